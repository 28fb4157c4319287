"""A driver runs a real core on real files; broker and coordinator are in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.coordination.port import View
from replicad.core.cluster import ClusterState
from replicad.core.effects import AnswerWrites, Committed, Reason, Refusal, Rejected
from replicad.core.events import (
    AppendFailed,
    MessageReceived,
    Outcome,
    ProposalFinished,
    ReadFinished,
    Tick,
    WritesArrived,
)
from replicad.core.messages import Point
from replicad.core.write import WriteRequest
from replicad.errors import (
    CoordinationError,
    DiskFailedError,
    DiskFullError,
    ProtocolViolationError,
    RecordsDamagedError,
)
from tests.support.core import append_of
from tests.support.entries import write_of
from tests.support.logs import assert_chained, changes_of, entries
from tests.support.nodes import Driven, driven
from tests.support.waiting import eventually

A, B = write_of("a"), write_of("b")


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Driven]:
    async with driven(tmp_path) as running:
        yield running


def logged_keys(data_dir: Path) -> list[str]:
    return [key for entry in entries(data_dir) for _, key, _ in changes_of(entry)]


async def results_of(one: Driven, *writes: WriteRequest) -> tuple[object, ...]:
    return (await one.driver.write(one.driver.epoch, writes)).results


async def test_a_cluster_of_one_commits(one: Driven, tmp_path: Path) -> None:
    (first,), (second,) = await one.store_all(A), await one.store_all(B)
    assert (first.index, second.index) == (2, 3)
    assert one.store.records.get([("forms", "a"), ("forms", "b")]) == [(2, b"{}"), (3, b"{}")]
    assert logged_keys(tmp_path) == ["a", "b"]
    assert_chained(tmp_path)
    assert await one.driver.read(one.driver.epoch)


async def test_a_restart_leads_a_higher_epoch_and_knows_what_was_written(tmp_path: Path) -> None:
    async with driven(tmp_path) as one:
        stored = await one.store_all(A)
        epoch = one.driver.epoch
    async with driven(tmp_path) as again:
        assert await again.leads() > epoch
        assert await again.store_all(A) == [replace(each, again=True) for each in stored]


async def test_answers_of_another_epoch(one: Driven) -> None:
    epoch = await one.leads()
    assert one.driver.leads_in(epoch)
    assert not one.driver.leads_in(epoch + 1)
    answer = await one.driver.write(epoch + 1, (A,))
    assert answer.results == (Refusal.NOT_LEADER,)
    assert not await one.driver.read(epoch + 1)


async def test_writes_are_looked_up_when_their_turn_comes(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its arrival and its step the very same write may have been appended."""
    epoch = await one.leads()
    append = one.store.append
    arrived: list[asyncio.Future[AnswerWrites]] = []

    def append_while_a_retry_arrives(first: int, lines: bytes) -> None:
        if not arrived:
            waiting = one.driver.write(epoch, (A,))
            arrived.append(waiting.send(None))  # Runs until it waits for its future.
            waiting.close()
        append(first, lines)

    monkeypatch.setattr(one.store, "append", append_while_a_retry_arrives)
    stored = await one.store_all(A)
    await eventually(lambda: arrived[0].done())
    assert arrived[0].result().results == (replace(stored[0], again=True),)
    assert one.failures == []


async def test_a_write_is_answered_before_it_is_applied(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever may ask next finds it applied."""
    epoch = await one.leads()
    apply = one.store.apply
    applied: list[int] = []

    def noted(index: int) -> None:
        applied.append(index)
        apply(index)

    monkeypatch.setattr(one.store, "apply", noted)
    first = await one.driver.write(epoch, (A,))
    assert isinstance(first.results[0], Committed)
    assert applied == []
    assert await one.driver.read(epoch)
    assert one.store.records.get([(A.collection, A.operations[0].key)]) != [None]
    again = await one.driver.write(epoch, (A._replace(request="another"),))
    assert isinstance(again.results[0], Rejected)
    assert len(applied) == 1


async def test_one_sync_covers_what_one_turn_of_the_loop_appended(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = await one.leads()
    syncs: list[int] = []
    sync = os.fdatasync

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)
    writes = [write_of(str(number)) for number in range(20)]
    answers = await asyncio.gather(*(one.driver.write(epoch, (write,)) for write in writes))
    assert [type(answer.results[0]) for answer in answers] == [Committed] * 20
    assert len(syncs) == 1


async def test_no_room_refuses_and_is_over_when_there_is_room(one: Driven, tmp_path: Path) -> None:
    await one.leads()
    one.store.append_error = DiskFullError("no room")
    one.store.room = 0
    assert await results_of(one, A) == (Refusal.DISK_FULL,)
    assert AppendFailed(2) in one.replica.events
    assert await results_of(one, A) == (Refusal.DISK_FULL,)
    assert one.driver.status().last_index == 1
    assert await one.driver.read(one.driver.epoch)  # Reads go on.
    one.store.room = 1 << 40
    stored = await one.store_all(A, B)
    assert [result.index for result in stored] == [2, 3]
    assert logged_keys(tmp_path) == ["a", "b"]
    assert one.failures == []


async def test_no_room_is_told_before_anything_else_happens(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core believes that the entries are in the log until it hears otherwise."""
    await one.leads()
    append = one.store.append

    def append_while_time_passes(first: int, lines: bytes) -> None:
        one.driver.feed(Tick())
        append(first, lines)

    monkeypatch.setattr(one.store, "append", append_while_time_passes)
    one.store.append_error = DiskFullError("no room")
    assert await results_of(one, A) == (Refusal.DISK_FULL,)
    events = one.replica.events
    at = events.index(AppendFailed(2))
    assert isinstance(events[at - 1], WritesArrived)
    assert events[at + 1] == Tick()


async def test_little_room_refuses_before_the_disk_is_full(one: Driven) -> None:
    (stored,) = await one.store_all(A)
    one.store.room = 1000
    await eventually(lambda: one.driver.status().refusal is Refusal.DISK_FULL)
    assert await results_of(one, A, B) == (
        replace(stored, again=True),
        Refusal.DISK_FULL,
    )


async def test_a_failed_sync_ends_it_once_and_nobody_is_answered(one: Driven) -> None:
    epoch = await one.leads()
    one.store.sync_error = DiskFailedError("the disk is gone")
    waiting = [
        asyncio.create_task(one.driver.write(epoch, (A,))),
        asyncio.create_task(one.driver.write(epoch, (B,))),
    ]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
    assert one.failures == [one.store.sync_error]
    assert one.driver.stopped
    assert not one.driver.leads_in(epoch)
    with pytest.raises(asyncio.CancelledError):
        await one.driver.write(epoch, (A,))
    assert len(one.failures) == 1


async def test_a_defect_ends_it_and_is_seen(one: Driven) -> None:
    epoch = await one.leads()
    one.store.append_error = ZeroDivisionError("a defect")
    with pytest.raises(ZeroDivisionError):
        await one.driver.write(epoch, (A,))
    assert [type(error) for error in one.failures] == [ZeroDivisionError]
    assert one.driver.stopped


async def test_what_the_protocol_excludes_ends_it(one: Driven) -> None:
    """A leader of a later epoch whose log differs where this one's is committed."""
    await one.store_all(A)
    one.driver.feed(MessageReceived(append_of(Point(2, b"x" * 32), epoch=99)))
    assert [type(error) for error in one.failures] == [ProtocolViolationError]
    assert one.driver.stopped


async def test_a_stopped_driver_cancels_who_waits(one: Driven) -> None:
    epoch = await one.leads()
    waiting = one.driver.write(epoch, (A,))
    future = waiting.send(None)
    waiting.close()
    await one.driver.stop()
    assert future.cancelled()
    assert one.failures == []


async def test_a_damaged_record_store_is_made_anew_for_a_look_up(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored,) = await one.store_all(A)
    lookup = one.store.records.lookup
    damaged = [RecordsDamagedError("damaged")]

    def fail_once(writes: tuple[WriteRequest, ...]) -> object:
        if damaged:
            raise damaged.pop()
        return lookup(writes)

    monkeypatch.setattr(one.store.records, "lookup", fail_once)
    other = write_of("a", request="another request")
    exists = Rejected(Reason.EXISTS, 0, stored.index)
    assert await results_of(one, A, other) == (replace(stored, again=True), exists)
    assert one.store.records.get([("forms", "a")]) == [(stored.index, b"{}")]


class LosesReply(MemoryCoordinator):
    """The first proposal happens, but its reply is lost."""

    lost = False

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        version = await super().propose(state, expected_version)
        if not self.lost:
            self.lost = True
            raise CoordinationError("the connection is gone")
        return version


class LosesRequest(MemoryCoordinator):
    """The first proposal and the first read never arrive."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.failing = {"propose", "read"}

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        self._fail_once("propose")
        return await super().propose(state, expected_version)

    async def read(self) -> View:
        self._fail_once("read")
        return await super().read()

    def _fail_once(self, name: str) -> None:
        if name in self.failing:
            self.failing.remove(name)
            raise CoordinationError("the connection is gone")


def outcomes_of(one: Driven) -> list[Outcome]:
    finished = (e for e in one.replica.events if isinstance(e, ProposalFinished))
    return [event.outcome for event in finished]


async def test_a_lost_reply_of_the_coordinator_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    async with driven(tmp_path, LosesReply) as one:
        await one.store_all(A)
        assert outcomes_of(one)[0] is Outcome.UNKNOWN
        assert one.driver.epoch == 1  # What was in doubt had happened, and is recognised.
        assert one.failures == []


async def test_a_lost_request_to_the_coordinator_is_made_again(tmp_path: Path) -> None:
    async with driven(tmp_path, LosesRequest) as one:
        await one.store_all(A)
        assert outcomes_of(one) == [Outcome.UNKNOWN, Outcome.ACCEPTED]
        failed_reads = [e for e in one.replica.events if isinstance(e, ReadFinished) and not e.view]
        assert len(failed_reads) == 1
        assert one.failures == []


class Breaks(MemoryCoordinator):
    """Has a defect."""

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        raise ZeroDivisionError("a defect")


async def test_a_defect_in_a_task_ends_it(tmp_path: Path) -> None:
    async with driven(tmp_path, Breaks) as one:
        await eventually(lambda: one.driver.stopped)
        assert [type(error) for error in one.failures] == [ZeroDivisionError]


class BreaksLater(MemoryCoordinator):
    """Has a defect, which shows only when the test says so."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.asked = False
        self.released = asyncio.Event()
        self.broken = False

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        self.asked = True
        await self.released.wait()
        self.broken = True
        raise ZeroDivisionError("a defect")


async def test_nothing_that_happens_after_its_end_is_a_failure(tmp_path: Path) -> None:
    async with driven(tmp_path, BreaksLater) as one:
        coordinator = one.coordinator
        assert isinstance(coordinator, BreaksLater)
        await eventually(lambda: coordinator.asked)
        one.driver.abandon()
        coordinator.released.set()
        await eventually(lambda: coordinator.broken)
        await one.driver.stop()
        assert one.failures == []


class OvertakenOnce(MemoryCoordinator):
    """Somebody else's transaction comes before the first proposal."""

    overtaken = False

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        if not self.overtaken:
            self.overtaken = True
            others = replace(state, leader=None, incarnation=None, url=None, nonce="others")
            assert await super().propose(others, expected_version) is not None
        return await super().propose(state, expected_version)


async def test_a_proposal_that_was_overtaken_is_refused(tmp_path: Path) -> None:
    async with driven(tmp_path, OvertakenOnce) as one:
        assert await one.leads() == 2
        assert outcomes_of(one) == [Outcome.REFUSED, Outcome.ACCEPTED]
