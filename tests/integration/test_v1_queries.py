"""Queries, full text and histories through a whole cluster, also while its leader is killed."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.client import Answer, Client
from tests.support.cluster import Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(180)
READY_S = 30.0
NAMES = ["María José", "Maria", "JOSE", "Ana", "Mariana"]


@pytest.fixture
async def path(client: Client, cluster: Cluster) -> str:
    """The path of a new collection without definition."""
    await cluster.in_sync(client)
    path = f"/v1/collections/consultas-{uuid.uuid4().hex[:8]}"
    assert (await client.ask("PUT", path, {})).status == 201
    return path


async def fill(client: Client, path: str, numbers: range) -> dict[str, dict[str, Any]]:
    """Store records in one batch."""
    records = {
        f"p{n:03}": {
            "id": f"p{n:03}",
            "nombres": NAMES[n % len(NAMES)],
            "edad": n % 90 if n % 7 else str(n % 90),
            "dir": {"estado": ["NY", "CA", "TX"][n % 3]},
        }
        for n in numbers
    }
    operations = [{"id": key, "value": value} for key, value in records.items()]
    done = await client.ask("POST", f"{path}/records:batch", {"operations": operations})
    assert done.status == 200, done
    return records


async def pages(client: Client, query: str, **headers: str) -> list[dict[str, Any]]:
    """The records on all pages."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await client.get(query + cursor, headers)
        assert answer.status == 200, answer
        told = json.loads(answer.body)
        found += told["items"]
        if told["next"] is None:
            return found
        cursor = f"&cursor={told['next']}"


def slug_of(answer: Answer) -> str:
    slug: str = json.loads(answer.body)["type"].removeprefix("urn:replicad:")
    return slug


QUERIES = [
    "dir.estado=NY",
    "dir.estado=NY&edad[gte]=18&edad[lt]=60&sort=-edad",
    "edad[in]=7,14,21&sort=edad,-id",
    "nombres[prefix]=Mari&sort=nombres",
    "dir.estado[ne]=NY&dir.estado[exists]=true",
    "sort=-dir.estado,id",
    "id[gte]=p030&id[lt]=p040&sort=-id",
]


async def test_indexes_change_how_fast_queries_are_and_nothing_else(
    client: Client, cluster: Cluster, path: str
) -> None:
    await fill(client, path, range(300))
    without = {query: await pages(client, f"{path}/records?{query}&limit=17") for query in QUERIES}
    assert all(without.values())
    defined = {"indexes": ["edad", "dir.estado", "nombres"], "search": ["nombres"]}
    assert (await client.ask("PUT", path, defined)).status == 200

    async def searchable() -> bool:
        return (await client.get(f"{path}/records?q=maria")).status == 200

    await until(searchable, READY_S)
    for level in ("strong", "local"):
        for query, expected in without.items():
            found = await pages(
                client, f"{path}/records?{query}&limit=17", **{"X-Replicad-Consistency": level}
            )
            assert found == expected, (level, query)
    counted = await client.get(f"{path}/records?dir.estado=NY&count=true&limit=1&fields=id,edad")
    told = json.loads(counted.body)
    assert (told["count"], told["items"]) == (100, [{"id": "p000", "edad": "0"}])


async def test_words_are_found_at_every_replica(client: Client, path: str) -> None:
    assert (await client.ask("PUT", path, {"search": ["nombres"]})).status == 200
    await fill(client, path, range(10))
    written = await client.ask("PUT", f"{path}/records/x", {"id": "x", "nombres": "Iñigo"})
    session = {
        "X-Replicad-Consistency": "session",
        "X-Replicad-Min-Index": written.headers["X-Replicad-Index"],
    }
    replicas = set()

    async def several_answered() -> bool:
        answer = await client.get(f"{path}/records?q=INIGO", session)
        assert [item["id"] for item in json.loads(answer.body)["items"]] == ["x"]
        replicas.add(answer.headers["X-Replicad-Replica"])
        return len(replicas) > 1

    await until(several_answered, READY_S)  # At first those that follow may be behind.
    found = await pages(client, f"{path}/records?q=jos%C3%A9+mar*")
    assert [record["id"] for record in found] == ["p000", "p005"]


async def test_pages_go_on_while_the_leader_is_killed_and_records_are_written(
    client: Client, cluster: Cluster, path: str, restored: None
) -> None:
    """What is there all the time is on one page, and on one only."""
    assert (await client.ask("PUT", path, {"indexes": ["edad"]})).status == 200
    stayed = await fill(client, path, range(200))
    found: list[str] = []
    cursor, number = "", 0
    while True:
        answer = await client.get(f"{path}/records?sort=-edad&limit=10{cursor}")
        if answer.status == 503:
            continue
        assert answer.status == 200, answer
        told = json.loads(answer.body)
        found += [item["id"] for item in told["items"]]
        if told["next"] is None:
            break
        cursor, number = f"&cursor={told['next']}", number + 1
        if number == 5:
            leader = (await client.view())["leader"]
            await asyncio.gather(
                cluster.stop(leader),
                client.ask("PUT", f"{path}/records/new", {"id": "new", "edad": 45}),
            )
    kept = [key for key in found if key in stayed]
    assert sorted(kept) == sorted(stayed)


async def test_the_past_of_a_record(client: Client, path: str) -> None:
    record = f"{path}/records/a"
    created = await client.ask("PUT", record, b'{"id":"a","n":1.0}')
    updated = await client.ask("PATCH", record, {"n": 2})
    deleted = await client.ask("DELETE", record)
    again = await client.ask("POST", f"{path}/records", {"id": "a"})
    history = await client.get(f"{record}/history")
    told = json.loads(history.body)
    assert (history.status, told["next"], told["from_index"]) == (200, None, 1)
    assert b'"value":{"id":"a","n":1.0}' in history.body
    for item, receipt in zip(told["items"], [created, updated, deleted, again], strict=True):
        known = json.loads(receipt.body)
        assert {key: item[key] for key in ("index", "operation", "digest")} == {
            key: known[key] for key in ("index", "operation", "digest")
        }
    first = await client.get(f"{record}/history?limit=3")
    rest = await client.get(f"{record}/history?cursor={json.loads(first.body)['next']}")
    assert json.loads(first.body)["items"] + json.loads(rest.body)["items"] == told["items"]

    was = await client.get(f"{record}?at_index={created.index}")
    assert (was.status, was.body) == (200, b'{"id":"a","n":1.0}')
    assert was.headers["ETag"] == created.headers["ETag"]
    time = quote(told["items"][0]["time"])
    then = await client.get(f"{record}?at_time={time}")
    assert then.status in (200, 404)  # All may have happened in this millisecond.
    assert slug_of(await client.get(f"{record}?at_index={deleted.index}")) == "no-such-record"
    assert slug_of(await client.get(f"{record}?at_index={created.index - 1}")) == "no-such-record"
    assert slug_of(await client.get(f"{record}?at_time=1999-01-01T00:00:00Z")) == "no-such-record"
    assert slug_of(await client.get(f"{record}?at_index=999999999")) == "invalid-request"
    assert slug_of(await client.get(f"{path}/records/b/history")) == "no-such-record"


@pytest.mark.parametrize(
    ("query", "status", "slug"),
    [
        ("edad=siete", 400, "invalid-query"),
        ("edad[like]=7", 400, "invalid-query"),
        ("q=maria", 400, "invalid-query"),
        ("cursor=x", 400, "invalid-query"),
        ("limit=0", 400, "invalid-query"),
        ("a%22=1", 400, "invalid-query"),
        ("at_index=1", 400, "invalid-query"),
    ],
)
async def test_bad_queries(client: Client, path: str, query: str, status: int, slug: str) -> None:
    schema = {"properties": {"edad": {"type": "integer"}}}
    assert (await client.ask("PUT", path, {"schema": schema})).status == 200
    answer = await client.get(f"{path}/records?{query}")
    assert (answer.status, slug_of(answer)) == (status, slug)
    none = await client.get(f"/v1/collections/none-{uuid.uuid4().hex[:8]}/records")
    assert (none.status, slug_of(none)) == (404, "no-such-collection")
