from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from replicad.client import Collection, ImportStatus
from tests.support.fake_gateway import FakeGateway, FakeStore


def _records(count: int) -> Iterator[dict[str, str]]:
    return ({"id": f"k{number}"} for number in range(count))


async def test_every_record_has_a_result(collection: Collection, store: FakeStore) -> None:
    await collection.insert({"id": "k1"})
    lines: list[bytes] = [b'{"id":"k0"}', b' {"id":"k1"}\n', b"", b'{"id":\n"k3"}']
    results = [result async for result in collection.import_records(lines)]
    assert [(result.line, result.status) for result in results] == [
        (1, ImportStatus.STORED),
        (2, ImportStatus.DUPLICATE),
        (3, ImportStatus.INVALID),
        (4, ImportStatus.STORED),
    ]
    assert set(store.records) == {"k0", "k1", "k3"}


@pytest.mark.parametrize("is_async", [False, True])
async def test_broken_connections_lose_and_double_nothing(
    collection: Collection, gateways: list[FakeGateway], store: FakeStore, is_async: bool
) -> None:
    """What was stored by the connection that broke still counts as stored."""
    gateways[0].import_lines.extend([10, 700, 0])
    gateways[1].import_lines.extend([0, 33])
    gateways[1].faults.append(503)

    async def slowly() -> AsyncIterator[dict[str, str]]:
        for number, record in enumerate(_records(2000)):
            if number % 100 == 0:
                await asyncio.sleep(0)
            yield record

    source = slowly() if is_async else _records(2000)
    async with asyncio.timeout(30):
        results = [result async for result in collection.import_records(source)]
    assert [result.line for result in results] == list(range(1, 2001))
    assert {result.status for result in results} == {ImportStatus.STORED}
    assert len(store.changes) == 2000


async def test_what_the_source_raises_is_raised(collection: Collection) -> None:
    def source() -> Iterator[dict[str, str]]:
        yield {"id": "a"}
        raise ZeroDivisionError

    results = collection.import_records(source())
    assert (await anext(results)).id == "a"
    with pytest.raises(ZeroDivisionError):
        await anext(results)


async def test_an_import_may_be_given_up(collection: Collection) -> None:
    async with asyncio.timeout(10):
        async for _ in collection.import_records(_records(100_000)):
            break


async def test_nothing_to_import(collection: Collection) -> None:
    assert [result async for result in collection.import_records([])] == []
