"""Queries and histories, answered by a real driver of a cluster of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from replicad.core.query import Condition, Order, Query, Relation, encode_query
from replicad.core.write import DEFINITIONS
from replicad.errors import RecordsDamagedError
from replicad.node import gates, past
from replicad.node import query_pool as module
from replicad.node.store import Store
from replicad.storage.queries import answer
from tests.support.entries import delete_of, put_of, write_of
from tests.support.node_http import Client, epoch_of
from tests.support.nodes import Driven
from tests.support.waiting import eventually

QUERY, VERSIONS, PAST = "/internal/query", "/internal/versions", "/internal/past"
A = Query("forms", (Condition("a", Relation.FROM, ("2",)),), order=(Order("a", True),))


async def define(one: Driven, **members: object) -> None:
    value = json.dumps(members, separators=(",", ":")).encode()
    definition = put_of("forms", value, request="define", collection=DEFINITIONS)
    await one.store_all(definition)


async def ask(client: Client, one: Driven, query: Query) -> tuple[int, dict[str, Any]]:
    body = encode_query(query)
    async with client.post(QUERY, data=body, headers=epoch_of(one)) as response:
        told: dict[str, Any] = await response.json()
        if response.status == 200:
            assert int(response.headers["X-Replicad-Index"]) >= 0
            assert response.headers["X-Replicad-Replica"] == "n1"
        return response.status, told


async def get(client: Client, one: Driven, path: str, **query: object) -> tuple[int, bytes]:
    asked = {"collection": "forms", "key": "a", **{k: str(v) for k, v in query.items()}}
    async with client.get(path, params=asked, headers=epoch_of(one)) as response:
        return response.status, await response.read()


async def test_a_query_finds_what_was_committed(client: Client, one: Driven) -> None:
    await define(one, indexes=["a"])
    version = one.store.records.get([(DEFINITIONS, "forms")])[0]
    assert version is not None
    for n in range(4):
        value = b'{"id":"k%d","a":%d}' % (n, n)
        await one.store_all(write_of(f"k{n}", value, definition=version.version))
    status, told = await ask(client, one, A)
    assert status == 200
    assert told == {"items": [{"id": "k3", "a": 3}, {"id": "k2", "a": 2}], "next": None}


async def test_an_index_is_made_while_the_replica_runs(client: Client, one: Driven) -> None:
    await one.store_all(*(write_of(f"k{n}", b'{"id":"k%d","a":%d}' % (n, n)) for n in range(200)))
    await define(one, indexes=["a"], search=["id"])
    assert one.store.records.indexes.unfinished
    await eventually(lambda: not one.store.records.indexes.unfinished)
    words = Query("forms", words=("k19*",))
    _, told = await ask(client, one, words)
    assert [item["a"] for item in told["items"]] == [19, *range(190, 200)]


async def test_the_scrub_finds_an_index_that_lacks_records(client: Client, one: Driven) -> None:
    await one.store_all(*(write_of(f"k{n}", b'{"id":"k%d","a":%d}' % (n, n)) for n in range(4)))
    await define(one, indexes=["a"])
    records = one.store.records
    await eventually(lambda: not records.indexes.unfinished)
    with records.transaction() as connection:
        connection.execute("DELETE FROM fields WHERE key = 'k3'")
    assert len((await ask(client, one, A))[1]["items"]) == 1
    await one.driver.scrub.check_all()
    await eventually(lambda: not records.indexes.unfinished)
    assert len((await ask(client, one, A))[1]["items"]) == 2


async def test_a_query_that_cannot_be_answered_says_why(client: Client, one: Driven) -> None:
    told: dict[str, Any] = {"refused": "no-such-collection", "fields": []}
    assert await ask(client, one, A) == (200, told)
    await define(one, schema={"properties": {"a": {"type": "boolean"}}})
    assert await ask(client, one, A) == (200, {"refused": "not-a-boolean", "fields": ["a"]})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", encode_query(A)[:-1] + b',"x":1}'])
async def test_a_malformed_query_is_refused(client: Client, one: Driven, body: bytes) -> None:
    async with client.post(QUERY, data=body, headers=epoch_of(one)) as response:
        assert response.status == 400


async def test_a_query_of_a_damaged_record_store_is_answered_from_a_new_one(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(one)
    damaged = [RecordsDamagedError("damaged")]

    def fail(*arguments: Any) -> object:  # noqa: ANN401
        if damaged:
            raise damaged.pop()
        return answer(*arguments)

    monkeypatch.setattr(module, "answer", fail)
    generation = one.store.records.generation
    assert await ask(client, one, A) == (200, {"items": [], "next": None})
    assert one.store.records.generation == generation + 1


async def test_connections_are_opened_anew_when_the_file_was_replaced(
    client: Client, one: Driven
) -> None:
    await define(one)
    assert (await ask(client, one, A))[0] == 200
    one.driver.rebuild_records()
    assert await ask(client, one, A) == (200, {"items": [], "next": None})


async def test_when_too_many_wait_the_next_one_is_sent_elsewhere(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(one)
    monkeypatch.setattr(module, "_WAITING_MAX", 0)
    status, _ = await ask(client, one, A)
    assert status == 503


async def test_a_replica_that_stops_answers_nothing_more(client: Client, one: Driven) -> None:
    await define(one)
    assert (await ask(client, one, A))[0] == 200
    await one.driver.queries.stop()
    assert (await ask(client, one, A))[0] == 503


# -- the past ------------------------------------------------------------------------------------


async def make_history(one: Driven) -> list[int]:
    """Insert, update, delete and insert again; returns the entries' indexes."""
    await define(one)
    found = one.store.records.get([(DEFINITIONS, "forms")])[0]
    assert found is not None
    writes = [
        put_of("a", b'{"id":"a","n":1.0}', request="w1"),
        put_of("a", b'{"id":"a","n":2}', request="w2"),
        delete_of("a", request="w3"),
        put_of("a", b'{"id":"a","n":3}', request="w4"),
    ]
    indexes = []
    for write in writes:
        versioned = write._replace(definition=found.version)
        (committed,) = await one.store_all(versioned)
        indexes.append(committed.index)
    return indexes


async def test_a_history_tells_what_each_entry_did(client: Client, one: Driven) -> None:
    indexes = await make_history(one)
    status, body = await get(client, one, VERSIONS, after=0, limit=100)
    told = json.loads(body)
    assert status == 200
    items = told.pop("items")
    assert told == {"next": None, "from_index": 1}
    assert [item["index"] for item in items] == indexes
    assert [item["operation"] for item in items] == ["insert", "update", "delete", "insert"]
    assert [item["value"] for item in items][1:] == [{"id": "a", "n": 2}, None, {"id": "a", "n": 3}]
    assert b'"value":{"id":"a","n":1.0}' in body
    for item in items:
        assert item["digest"] == one.store.log.digest_at(item["index"]).hex()
        assert item["time"] == one.store.time_of(item["index"])


@pytest.mark.parametrize("page_bytes", [1, 30, 2**20])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_pages_of_a_history_follow_each_other(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch, limit: int, page_bytes: int
) -> None:
    monkeypatch.setattr(past, "PAGE_BYTES", page_bytes)
    indexes = await make_history(one)
    seen: list[tuple[int, str]] = []
    after: str | None = "0"
    while after is not None:
        _, body = await get(client, one, VERSIONS, after=after, limit=limit)
        told = json.loads(body)
        assert len(told["items"]) <= limit
        seen += [(item["index"], item["operation"]) for item in told["items"]]
        after = told["next"]
    assert seen == list(zip(indexes, ["insert", "update", "delete", "insert"], strict=True))


async def test_a_record_is_given_as_it_was_after_an_entry(client: Client, one: Driven) -> None:
    first, second, third, fourth = await make_history(one)
    was = {
        first - 1: b"0\n",
        first: b'%d {"id":"a","n":1.0}\n' % first,
        second: b'%d {"id":"a","n":2}\n' % second,
        third: b"0\n",
        fourth: b'%d {"id":"a","n":3}\n' % fourth,
    }
    for index, line in was.items():
        assert await get(client, one, PAST, index=index) == (200, line)
    refused = b'{"refused":"not-yet","fields":[]}\n'
    assert await get(client, one, PAST, index=fourth + 1) == (200, refused)


async def test_a_record_is_given_as_it_was_at_a_time(client: Client, one: Driven) -> None:
    indexes = await make_history(one)
    for index in indexes:
        time = one.store.time_of(index)
        last = max(each for each in indexes if one.store.time_of(each) <= time)
        assert await get(client, one, PAST, time=time) == await get(client, one, PAST, index=last)
    assert await get(client, one, PAST, time="1999-01-01T00:00:00.000Z") == (200, b"0\n")
    late = await get(client, one, PAST, time="2999-01-01T00:00:00.000Z")
    assert late == await get(client, one, PAST, index=indexes[-1])


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (VERSIONS, {"after": "x", "limit": "1"}),
        (VERSIONS, {"after": "0", "limit": "0"}),
        (VERSIONS, {"after": "0"}),
        (PAST, {}),
        (PAST, {"index": "x"}),
    ],
)
async def test_a_malformed_question_about_the_past_is_refused(
    client: Client, one: Driven, path: str, query: dict[str, str]
) -> None:
    status, _ = await get(client, one, path, **query)
    assert status == 400


# -- how stale -----------------------------------------------------------------------------------


class Clock:
    """Stands for the module `time`; a slow function takes it two seconds on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def slow(self, function: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            self.now = 2.0
            return function(*arguments)

        return called


@pytest.mark.parametrize(("stale_s", "told"), [(0.25, "2250"), (None, None)])
@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("POST", QUERY, {}, encode_query(A)),
        ("GET", VERSIONS, {"after": "0", "limit": "9"}, b""),
        ("GET", PAST, {"time": "2999-01-01T00:00:00.000Z"}, b""),
    ],
)
async def test_the_time_that_a_read_takes_counts_as_staleness(
    client: Client,
    one: Driven,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    query: dict[str, str],
    body: bytes,
    stale_s: float | None,
    told: str | None,
) -> None:
    """What is committed meanwhile may be missing, even if the replica is level at the end."""
    await make_history(one)
    clock, before = Clock(), replace(one.driver.status(), stale_s=stale_s)
    level = replace(before, stale_s=0.0)
    monkeypatch.setattr(one.driver, "status", lambda: level if clock.now else before)
    monkeypatch.setattr(gates, "time", clock)
    monkeypatch.setattr(module, "answer", clock.slow(answer))
    monkeypatch.setattr(Store, "time_of", clock.slow(Store.time_of))
    asked, local = {"collection": "forms", "key": "a", **query}, {gates.MIN_INDEX: "0"}
    async with client.request(method, path, params=asked, data=body, headers=local) as response:
        assert response.status == 200
        assert clock.now == 2.0
        assert response.headers.get("X-Replicad-Staleness-Ms") == told
