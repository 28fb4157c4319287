"""The feed through a gateway, over replicas that fail on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from api_gateway.errors import NoAnswerError
from api_gateway.reading import changes as module
from api_gateway.reading.changes import Page
from replicad.core.feed import Cursor, LoggedChange
from tests.support.fake_leader import DIGEST, FORMS, FakeCluster, FakeLeader, Fault
from tests.support.gateway import Serve
from tests.support.waiting import eventually

PATH = f"/v1/collections/{FORMS}/changes"


def change_at(
    index: int, position: int = 0, *, is_last: bool = True, collection: str = FORMS
) -> LoggedChange:
    key = f"k{index}-{position}"
    return LoggedChange(
        *(index, position, is_last, 1, "2026-01-01T00:00:00.000Z", "insert", collection, key),
        b'{"id":"%b"}' % key.encode(),
        DIGEST,
    )


BATCH = [change_at(3, number, is_last=number == 2) for number in range(3)]
FEED = [change_at(2), *BATCH, change_at(5), change_at(6, collection="others")]


def page_of(*changes: LoggedChange, after: Cursor) -> Page:
    return Page(b"".join(change.encode() + b"\n" for change in changes), after, after.index)


def ids_in(events: bytes) -> list[str]:
    return [line[4:].decode() for line in events.split(b"\n") if line.startswith(b"id: ")]


def test_each_event_bears_the_place_after_it() -> None:
    page = page_of(*FEED[:5], after=Cursor(6))
    assert ids_in(page.events()) == ["2", "3.0", "3.1", "3", "5"]
    first = page.events().split(b"\n\n")[0].split(b"\n")
    assert first == [b"id: 2", b"event: insert", b"data: " + FEED[0].encode()]


def test_a_page_may_end_within_a_batch() -> None:
    assert ids_in(page_of(*FEED[:3], after=Cursor(3, 1)).events()) == ["2", "3.0", "3.1"]
    assert ids_in(page_of(*BATCH[2:], after=Cursor(3)).events()) == ["3"]


def test_without_changes_only_the_place_is_told() -> None:
    assert page_of(after=Cursor(9)).events() == b":\nid: 9\n\n"


def test_a_line_that_is_no_change_is_refused() -> None:
    with pytest.raises(NoAnswerError):
        Page(b"{}\n", Cursor(1), 1).events()


@pytest.fixture
async def replicas(cluster: FakeCluster, leader: FakeLeader) -> AsyncIterator[list[FakeLeader]]:
    """Three replicas that hold the same feed; n1 leads."""
    everyone = [leader, await cluster.replica("n2"), await cluster.replica("n3")]
    cluster.in_sync("n1", "n2", "n3")
    for replica in everyone:
        replica.feed, replica.applied = list(FEED), 6
    yield everyone
    for replica in everyone:
        replica.release.set()


async def poll(
    gateway: aiohttp.ClientSession, query: str = "", path: str = PATH
) -> tuple[int, str, list[dict[str, Any]]]:
    """The status, the next place, and the changes."""
    async with gateway.get(f"{path}?{query}") as response:
        lines = [json.loads(line) for line in (await response.read()).splitlines()]
        return response.status, response.headers.get("X-Replicad-Next", ""), lines


def places(changes: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(change["index"], change["position"]) for change in changes]


EVERYTHING = [(2, 0), (3, 0), (3, 1), (3, 2), (5, 0)]


async def test_a_long_poll_ends_at_once_when_there_is_something(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    status, after, changes = await poll(gateway)
    assert (status, after, places(changes)) == (200, "6", EVERYTHING)
    assert changes[0]["value"] == {"id": "k2-0"}
    assert changes[0]["collection"] == FORMS


async def test_it_goes_on_where_it_ended(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    seen, since = list[tuple[int, int]](), "0"
    while len(seen) < len(EVERYTHING):
        _, since, changes = await poll(gateway, f"since={since}&limit=2")
        seen += places(changes)
    assert seen == EVERYTHING
    assert await poll(gateway, f"since={since}&timeout=0") == (200, "6", [])


async def test_it_waits_for_what_happens(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    waiting = asyncio.create_task(poll(gateway, "since=6&timeout=20"))
    await eventually(lambda: any(replica.followed for replica in replicas))
    assert not waiting.done()
    for replica in replicas:
        replica.feed.append(change_at(7))
        replica.applied = 7
        replica.news.tell()
    assert places((await waiting)[2]) == [(7, 0)]


async def test_what_others_wrote_moves_the_place(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    assert await poll(gateway, "since=5&timeout=0") == (200, "6", [])


async def test_now_is_after_what_is_committed(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    assert await poll(gateway, "since=now&timeout=0") == (200, "6", [])


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.BREAK_STREAM, Fault.GARBAGE, Fault.HANG])
async def test_another_replica_goes_on_when_one_fails(
    gateway: aiohttp.ClientSession,
    replicas: list[FakeLeader],
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ANSWER_S", 0.2)
    for replica in replicas[1:]:
        replica.faults.append(fault)
    status, after, changes = await poll(gateway, "timeout=0")
    assert (status, after, places(changes)) == (200, "6", EVERYTHING)


async def test_nobody_answers(
    serve: Serve, cluster: FakeCluster, replicas: list[FakeLeader]
) -> None:
    gateway = await serve(request_s=0.2)
    assert (await poll(gateway, "timeout=0"))[0] == 200
    await cluster.stop()
    async with gateway.get(PATH, params={"timeout": "0"}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_only_a_replica_whose_log_begins_later_is_passed_over(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    for replica in replicas[:2]:
        replica.feed_first = 4
    assert places((await poll(gateway))[2]) == EVERYTHING
    replicas[2].feed_first = 4
    async with gateway.get(PATH) as response:
        problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["type"]) == (410, "urn:replicad:history-gone")
    assert (await poll(gateway, "since=3"))[0] == 200
    assert (await poll(gateway, "since=3.1"))[0] == 410


@pytest.mark.parametrize(
    "query",
    [
        *("since=x", "since=-1", "since=", "since=1.2.3", "since=1&since=2"),
        *("limit=0", "limit=10001", "limit=x", "limit=", "limit=1&limit=2"),
        *(
            "timeout=-1",
            "timeout=61",
            "timeout=60.001",
            "timeout=1e3",
            "timeout=6e1e1",
            "timeout=nan",
            "timeout=",
            "other=1",
        ),
    ],
)
async def test_a_bad_parameter_is_refused(gateway: aiohttp.ClientSession, query: str) -> None:
    assert (await poll_problem(gateway, PATH, query)) == (400, "urn:replicad:invalid-query")


async def poll_problem(
    gateway: aiohttp.ClientSession, path: str, query: str = "", **headers: str
) -> tuple[int, str]:
    async with gateway.get(f"{path}?{query}", headers=headers) as response:
        problem = await response.json(content_type="application/problem+json")
        return response.status, problem["type"]


@pytest.mark.parametrize("query", ["", "since=now"])
async def test_there_is_no_such_collection(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], query: str
) -> None:
    refused = await poll_problem(gateway, "/v1/collections/none/changes", query)
    assert refused == (404, "urn:replicad:no-such-collection")


async def test_no_other_format_is_offered(gateway: aiohttp.ClientSession) -> None:
    refused = await poll_problem(gateway, PATH, Accept="application/xml")
    assert refused == (406, "urn:replicad:not-acceptable")
