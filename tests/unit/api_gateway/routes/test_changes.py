"""The feed as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from api_gateway.routes import changes as module
from replicad.core.feed import LoggedChange
from tests.support.fake_leader import FORMS, FakeCluster, FakeLeader, Fault
from tests.support.waiting import eventually, until
from tests.unit.api_gateway.reading.test_changes import BATCH, FEED, PATH, change_at, poll_problem

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
async def replicas(cluster: FakeCluster, leader: FakeLeader) -> list[FakeLeader]:
    """Two replicas that hold the same feed; n1 leads."""
    everyone = [leader, await cluster.replica("n2")]
    for replica in everyone:
        replica.feed, replica.applied = list(FEED), 6
    return everyone


def happen(replicas: list[FakeLeader], change: LoggedChange) -> None:
    for replica in replicas:
        replica.feed.append(change)
        replica.applied = change.index
        replica.news.tell()


@asynccontextmanager
async def events_of(
    gateway: aiohttp.ClientSession, query: str = "", **headers: str
) -> AsyncIterator[aiohttp.StreamReader]:
    async with gateway.get(f"{PATH}?{query}", headers={**EVENTS, **headers}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        yield response.content


async def next_event(stream: aiohttp.StreamReader) -> dict[str, str]:
    """The fields of the next event; a keep-alive has only an id."""
    lines = (await stream.readuntil(b"\n\n")).decode().splitlines()[:-1]
    return dict(line.split(": ", 1) for line in lines if not line.startswith(":"))


async def test_the_past_comes_first_and_then_what_happens(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    async with events_of(gateway) as stream:
        seen = [await next_event(stream) for _ in range(5)]
        assert [event["id"] for event in seen] == ["2", "3.0", "3.1", "3", "5"]
        assert seen[1] == {"id": "3.0", "event": "insert", "data": BATCH[0].encode().decode()}
        happen(replicas, change_at(7))
        assert (await next_event(stream))["id"] == "7"


async def test_a_reader_that_comes_back_goes_on(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    async with events_of(gateway, "since=0", **{"Last-Event-ID": "3.0"}) as stream:
        assert [(await next_event(stream))["id"] for _ in range(3)] == ["3.1", "3", "5"]


async def test_from_now_on(gateway: aiohttp.ClientSession, replicas: list[FakeLeader]) -> None:
    async with events_of(gateway, "since=now") as stream:
        assert await next_event(stream) == {"id": "6"}
        happen(replicas, change_at(7))
        assert (await next_event(stream))["id"] == "7"


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.BREAK_STREAM, Fault.GARBAGE])
async def test_nothing_is_skipped_or_doubled_when_replicas_fail(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], fault: Fault
) -> None:
    async with events_of(gateway) as stream:
        seen = [(await next_event(stream))["id"] for _ in range(5)]
        for replica in replicas:
            replica.faults.append(fault)
        for index in range(7, 17):
            happen(replicas, change_at(index))
            seen.append((await next_event(stream))["id"])
    assert seen == ["2", "3.0", "3.1", "3", "5", *map(str, range(7, 17))]


async def test_silence_is_broken_by_the_place(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.05)
    async with events_of(gateway, "since=6") as stream:
        assert await next_event(stream) == {"id": "6"}
        happen(replicas, change_at(8, collection="others"))
        while (event := await next_event(stream))["id"] == "6":
            pass
        assert event == {"id": "8"}


async def test_a_stream_outlives_an_outage(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.05)
    async with events_of(gateway, "since=6") as stream:
        await next_event(stream)
        for replica in replicas:
            replica.faults.extend([Fault.UNCONFIRMED] * 5)
        await eventually(lambda: not any(replica.faults for replica in replicas))
        happen(replicas, change_at(7))
        while (event := await next_event(stream)) == {"id": "6"}:
            pass
        assert event["event"] == "insert"


async def test_the_end_of_history_ends_a_stream(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    async with events_of(gateway) as stream:
        for replica in replicas:
            replica.feed_first = replica.applied = 100
            replica.news.tell()
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.read()
    refused = await poll_problem(gateway, PATH, "since=6", **EVENTS)
    assert refused == (410, "urn:replicad:history-gone")


async def test_nobody_is_asked_for_a_reader_that_is_gone(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_gateway.reading.changes._WAIT_S", 0.05)
    async with events_of(gateway) as stream:
        await next_event(stream)

    async def nothing_in_flight() -> bool:
        async with gateway.get("/metrics") as response:
            return "replicad_gateway_in_flight 0.0" in await response.text()

    await until(nothing_in_flight)


async def test_a_reader_that_takes_nothing_gets_no_further(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    """What it does not take waits at the replicas, not in the gateway."""
    value = b'{"x":"%b"}' % (b"x" * 10_000)
    many = [replace(change_at(index), value=value) for index in range(7, 6007)]
    for replica in replicas:
        replica.feed, replica.applied = many, 6006

    def pages() -> int:
        return sum(len(replica.followed) for replica in replicas)

    # Compressed, all of it would fit into the buffers on its way.
    gateway.headers["Accept-Encoding"] = "identity"
    async with events_of(gateway) as stream:
        for _ in range(20):
            assert (await gateway.get("/healthz")).status == 200
        assert pages() <= 2
        for index in range(7, 6007):
            assert (await next_event(stream))["id"] == str(index)
        assert pages() >= 6


async def test_a_bad_last_event_id_is_refused(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    headers = {**EVENTS, "Last-Event-ID": "x"}
    refused = await poll_problem(gateway, f"/v1/collections/{FORMS}/changes", **headers)
    assert refused == (400, "urn:replicad:invalid-query")
