"""Streams of records as of one index, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from replicad.core.write import Operation
from replicad.node import http_export as module
from replicad.storage.records import Records
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.node_http import RECORDS, Client, epoch_of
from tests.support.nodes import Driven, Nodes

EXPORT = "/internal/export"


def value(key: str, version: int) -> bytes:
    return b'{"id":"%b","v":%d}' % (key.encode(), version)


async def exported(client: Client, one: Driven, query: str = "collection=forms") -> bytes:
    async with client.get(f"{EXPORT}?{query}", headers=epoch_of(one)) as response:
        assert response.status == 200
        assert response.content_type == "application/x-ndjson"
        return await response.read()


async def test_nothing_is_no_line(client: Client, one: Driven) -> None:
    assert await exported(client, one) == b""
    await one.store_all(write_of("a", b"{}"))
    assert await exported(client, one, "collection=other") == b""


@pytest.mark.parametrize("count", [1, 3, 4, 7])
async def test_a_line_for_each_record(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    await one.store_all(*(write_of(str(n), value(str(n), 0)) for n in range(count)))
    assert await exported(client, one) == b"".join(value(str(n), 0) + b"\n" for n in range(count))


async def test_others_have_their_turn_between_pages(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the reader keeps up, so that writing to it never waits."""
    await one.store_all(*(write_of(str(n), b"{}") for n in range(10)))
    turns = 0
    seen: list[int] = []
    scan = Records.scan

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def note(
        records: Records, collection: str, *, after: int, upto: int, limit: int, genero: None
    ) -> object:
        seen.append(turns)
        return scan(records, collection, after=after, upto=upto, limit=limit, genero=genero)

    monkeypatch.setattr(module, "_PAGE", 1)
    monkeypatch.setattr(Records, "scan", note)
    counting = asyncio.create_task(count())
    assert len(await exported(client, one)) == 30
    counting.cancel()
    assert len(set(seen)) == len(seen) == 10


async def store_versions(one: Driven) -> list[int]:
    """The index of the first state of three records, and that after they were changed."""
    a, b, c = (write_of(key, value(key, 1)) for key in "abc")
    *_, first = await one.store_all(a, b, c)
    await one.store_all(put_of("a", value("a", 2), request="2"))
    batch = [Operation("d", value("d", 1)), Operation("c", value("c", 2))]
    await one.store_all(batch_of(*batch, request="3"))
    (last,) = await one.store_all(delete_of("b", request="4"))
    return [first.index, last.index]


async def test_earlier_states_are_streamed_as_they_were(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 1)
    first, last = await store_versions(one)
    before = b"".join(value(key, 1) + b"\n" for key in "abc")
    after = b"".join([value("a", 2), b"\n", value("d", 1), b"\n", value("c", 2), b"\n"])
    assert await exported(client, one, f"collection=forms&upto={first}") == before
    assert await exported(client, one, f"collection=forms&upto={last}") == after
    assert await exported(client, one) == after


async def test_what_is_written_meanwhile_is_not_in_it(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 1)
    padding = b"x" * (1 << 20)
    records = [write_of(key, b'{"id":"%b","x":"%b"}' % (key.encode(), padding)) for key in "abcdef"]
    await one.store_all(*records)
    async with client.get(f"{EXPORT}?collection=forms", headers=epoch_of(one)) as response:
        begun = await response.content.readexactly(10)
        await one.store_all(put_of("e", b"{}", request="2"), delete_of("f", request="3"))
        rest = await response.content.read()
    lines = (begun + rest).splitlines()
    assert lines == [write.operations[0].value for write in records]
    assert await exported(client, one) != begun + rest


async def test_all_replicas_give_the_same(tmp_path: Path) -> None:
    """So what one of them breaks off another can complete."""
    async with Nodes.open(tmp_path, "n1", "n2", "n3") as nodes, aiohttp.ClientSession() as session:
        await nodes.start_cluster(2)
        for number in range(5):
            await nodes.write(put_of("ab"[number % 2], value("a", number), request=str(number)))
        await nodes.level()
        last = (await nodes.leader()).status().last_index
        for upto in range(last - 4, last + 1):
            answers = set()
            for name in nodes.names:
                url = f"{nodes.url(name)}{EXPORT}?collection=forms&upto={upto}"
                async with session.get(url, headers={"X-Replicad-Min-Index": str(upto)}) as answer:
                    assert answer.headers["X-Replicad-Index"] == str(upto)
                    answers.add(await answer.read())
            assert len(answers) == 1


@pytest.mark.parametrize("path", [EXPORT, RECORDS])
async def test_a_state_that_is_not_kept_is_gone(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    first, _ = await store_versions(one)
    monkeypatch.setattr(type(one.store.records), "since", first + 1)
    url = f"{path}?collection=forms&upto={first}"
    async with client.get(url, headers=epoch_of(one)) as response:
        assert response.status == web.HTTPGone.status_code
