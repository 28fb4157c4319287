"""Imports and exports through a gateway, also while the leader is killed."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from tests.support.client import Client
from tests.support.cluster import Cluster
from tests.support.logs import entries
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
NDJSON, CSV = "application/x-ndjson", "text/csv"
FAILOVER_S = 10.0


@pytest.fixture
async def session(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections to the first gateway, for requests that may take long."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(cluster.url, timeout=timeout) as session:
        yield session


@pytest.fixture
async def people(session: aiohttp.ClientSession) -> str:
    """The path of a new collection's records."""
    return await new_collection(session)


async def new_collection(session: aiohttp.ClientSession) -> str:
    path = f"/v1/collections/personas-{uuid.uuid4().hex[:8]}"
    schema = {
        "type": "object",
        "properties": {"nota": {"type": "string"}, "v": {"type": "integer"}},
    }
    async with session.put(path, json={"schema": schema}) as response:
        assert response.status in (200, 201), await response.text()
    return f"{path}/records"


def person(number: int, v: int = 0, nota: str = "=«ñ»,\n") -> dict[str, Any]:
    return {"id": f"{number:07d}", "nota": nota, "v": v}


def lines_of(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in records)


async def import_all(
    session: aiohttp.ClientSession, path: str, body: bytes, kind: str = NDJSON
) -> list[dict[str, Any]]:
    headers = {"Content-Type": kind}
    async with session.post(f"{path}:import", data=BytesIO(body), headers=headers) as response:
        assert response.status == 200, await response.text()
        return [json.loads(line) async for line in response.content]


async def export(session: aiohttp.ClientSession, path: str, kind: str = NDJSON) -> bytes:
    async with session.get(f"{path}:export", headers={"Accept": kind}) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def test_what_is_exported_can_be_imported_elsewhere(
    session: aiohttp.ClientSession, people: str
) -> None:
    records = [person(number, v=number) for number in range(2_000)]
    *answers, last = await import_all(session, people, lines_of(records))
    assert [(each["line"], each["id"], each["status"]) for each in answers] == [
        (line, record["id"], "stored") for line, record in enumerate(records, 1)
    ]
    assert last["tally"] == {"stored": 2_000, "duplicate": 0, "invalid": 0, "unknown": 0}
    exported = await export(session, people, CSV)
    assert exported.startswith(b"id,nota,v\r\n0000000,\"'=")
    everything = await export(session, people)
    assert sorted(everything.splitlines()) == lines_of(records).splitlines()

    *_, last = await import_all(session, people, exported, CSV)
    assert last["tally"]["duplicate"] == 2_000
    copy = await new_collection(session)
    *_, last = await import_all(session, copy, exported, CSV)
    assert last["tally"]["stored"] == 2_000
    copied = [json.loads(line) for line in (await export(session, copy)).splitlines()]
    assert sorted(copied, key=lambda each: str(each["id"])) == records


async def test_an_export_is_of_one_moment_while_everything_changes(
    session: aiohttp.ClientSession, people: str
) -> None:
    """Batches change all records at once: so no export may show two generations."""
    count = 500
    await import_all(session, people, lines_of([person(n) for n in range(count)]))
    stopping = False

    async def change() -> int:
        generation = 0
        while not stopping:
            generation += 1
            operations = [
                {"operation": "put", "id": each["id"], "value": each}
                for each in (person(n, generation, "x" * 1_000) for n in range(count))
            ]
            async with session.post(f"{people}:batch", json={"operations": operations}) as response:
                assert response.status == 200, await response.text()
        return generation

    changing = asyncio.create_task(change())
    seen: set[int] = set()
    while len(seen) < 4:
        records = [json.loads(line) for line in (await export(session, people)).splitlines()]
        assert sorted(each["id"] for each in records) == [person(n)["id"] for n in range(count)]
        (generation,) = {each["v"] for each in records}
        seen.add(generation)
    stopping = True
    assert await changing >= max(seen)


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
async def test_the_leader_is_killed_in_the_middle_of_an_import(
    session: aiohttp.ClientSession, client: Client, cluster: Cluster, people: str
) -> None:
    before = await cluster.in_sync(client)
    count = 12_000
    answers: list[dict[str, Any]] = []

    async def is_replaced() -> bool:
        view = await client.view()
        return view["epoch"] > before["epoch"] and view["leader"] not in (None, before["leader"])

    async def body() -> AsyncIterator[bytes]:
        """As fast as it is taken; but there is more to come while nobody leads."""
        for first in range(0, count, 100):
            if first == count // 2:
                await eventually(lambda: len(answers) > count // 4, FAILOVER_S)
                killing.set()
            if first == count - 1_000:
                await until(is_replaced, FAILOVER_S)
            yield lines_of([person(n) for n in range(first, first + 100)])

    async def take_answers() -> None:
        headers = {"Content-Type": NDJSON}
        async with session.post(f"{people}:import", data=body(), headers=headers) as response:
            async for line in response.content:
                answers.append(json.loads(line))

    killing = asyncio.Event()
    importing = asyncio.create_task(take_answers())
    await killing.wait()
    await cluster.stop(before["leader"])
    await importing
    *told, last = answers
    assert last["tally"] == {"stored": count, "duplicate": 0, "invalid": 0, "unknown": 0}
    assert [each["line"] for each in told] == list(range(1, count + 1))
    await cluster.start(before["leader"])
    await cluster.assert_equal_logs(client)
    kept = inserted_keys(cluster, people.split("/")[3])
    assert kept == Counter(person(n)["id"] for n in range(count))
    assert len((await export(session, people)).splitlines()) == count


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
async def test_the_leader_is_killed_in_the_middle_of_an_export(
    session: aiohttp.ClientSession, client: Client, cluster: Cluster, people: str
) -> None:
    records = [person(n, nota="x" * 2_000) for n in range(10_000)]  # More than buffers hold.
    await import_all(session, people, lines_of(records))
    before = await cluster.in_sync(client)
    whole = await export(session, people)
    assert sorted(whole.splitlines()) == lines_of(records).splitlines()

    async def is_replaced() -> bool:
        return (await client.view())["leader"] not in (None, before["leader"])

    async with session.get(f"{people}:export") as response:
        assert response.headers["X-Replicad-Replica"] == before["leader"]
        exported = await response.content.readexactly(1_000)
        await cluster.stop(before["leader"])
        await until(is_replaced, FAILOVER_S)
        changed = [{"operation": "delete", "id": person(n)["id"]} for n in range(9_500, 10_000)]
        async with session.post(f"{people}:batch", json={"operations": changed}) as answer:
            assert answer.status == 200, await answer.text()
        exported += await response.content.read()
    # Byte for byte, in the order of the log, what another replica would have given.
    assert exported == whole
    left = await export(session, people)
    assert sorted(left.splitlines()) == lines_of(records[:9_500]).splitlines()


def inserted_keys(cluster: Cluster, collection: str) -> Counter[str]:
    """How often the log stores each id of a collection."""
    keys: Counter[str] = Counter()
    for entry in entries(cluster.data_dir(cluster.names[0])):
        if entry["collection"] == collection:
            changes = entry.get("changes") or [[entry["operation"], entry["key"], 0]]
            keys.update(key for operation, key, _ in changes if operation == "insert")
    return keys
