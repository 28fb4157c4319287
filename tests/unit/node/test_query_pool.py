"""Queries on threads of their own: in turn, however long they take, until the end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from replicad.core.query import Query, Refused
from replicad.errors import DiskFailedError, QueryRefusedError
from replicad.node import query_pool as module
from replicad.node.query_pool import QueriesBusyError, QueryPool
from replicad.node.store import Store
from replicad.storage.datadir import DataDirectory
from replicad.storage.queries import Answer
from replicad.storage.records import Records
from tests.support.waiting import eventually

ANY = Query("forms")


class Slow:
    """In the place of `answer`: does not return before it is let go or interrupted."""

    def __init__(self) -> None:
        self.running: list[sqlite3.Connection] = []
        self.go = threading.Event()

    def __call__(self, connection: sqlite3.Connection, _query: Query) -> Answer:
        self.running.append(connection)
        assert self.go.wait(10)
        return Answer(0, b"{}")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(module, "answer", slow)
    return slow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.adopt_cluster("test")
    store = Store(directory)
    yield store
    store.abandon()
    directory.close()


@pytest.fixture
async def pool(store: Store) -> AsyncIterator[QueryPool]:
    pool = QueryPool(store)
    yield pool
    await pool.stop()


async def test_a_third_query_waits_for_its_turn(pool: QueryPool, slow: Slow) -> None:
    asked = [asyncio.create_task(pool.answer(ANY)) for _ in range(3)]
    await eventually(lambda: len(slow.running) == 2)
    assert slow.running[0] is not slow.running[1]
    slow.go.set()
    assert await asyncio.gather(*asked) == [Answer(0, b"{}")] * 3
    assert slow.running[2] in slow.running[:2]


async def test_who_waits_too_long_is_sent_away(
    pool: QueryPool, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    asked = [asyncio.create_task(pool.answer(ANY)) for _ in range(2)]
    await eventually(lambda: len(slow.running) == 2)
    with pytest.raises(QueriesBusyError):
        await pool.answer(ANY)
    slow.go.set()
    await asyncio.gather(*asked)
    assert await pool.answer(ANY) == Answer(0, b"{}")


async def test_an_answer_that_nobody_waits_for_keeps_its_connection_to_the_end(
    pool: QueryPool, slow: Slow
) -> None:
    asked = asyncio.create_task(pool.answer(ANY))
    await eventually(lambda: len(slow.running) == 1)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    others = [asyncio.create_task(pool.answer(ANY)) for _ in range(2)]
    await eventually(lambda: len(slow.running) == 2)
    assert slow.running[0] is not slow.running[1]
    slow.go.set()
    await asyncio.gather(*others)


async def test_a_turn_is_given_back_when_the_file_cannot_be_opened(
    pool: QueryPool, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_records: Records) -> sqlite3.Connection:
        raise DiskFailedError("no descriptor left")

    with monkeypatch.context() as failing:
        failing.setattr(Records, "open_reader", fail)
        for _ in range(3):
            with pytest.raises(DiskFailedError):
                await pool.answer(ANY)
    slow.go.set()
    assert await pool.answer(ANY) == Answer(0, b"{}")


async def test_what_runs_is_interrupted_at_the_end(
    pool: QueryPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def count(connection: sqlite3.Connection, _query: Query) -> Answer:
        started.set()
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT sum(x)"
        try:
            connection.execute(f"{endless} FROM n").fetchall()
        except sqlite3.OperationalError:
            raise QueryRefusedError(Refused.TOO_BROAD) from None
        raise AssertionError

    monkeypatch.setattr(module, "answer", count)
    asked = asyncio.create_task(pool.answer(ANY))
    await asyncio.to_thread(started.wait, 10)
    await pool.stop()
    with pytest.raises(QueriesBusyError):
        await asked
    with pytest.raises(QueriesBusyError):
        await pool.answer(ANY)


class Reading:
    """In the place of `answer`: each reads until it is let go, and notes the journal's size."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.journal: list[int] = []
        self.go = [threading.Event() for _ in range(3)]

    def __call__(self, connection: sqlite3.Connection, _query: Query) -> Answer:
        go = self.go[len(self.journal)]
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM applied").fetchall()
        self.journal.append(self.records.journal_bytes)
        assert go.wait(10)
        connection.execute("COMMIT")
        return Answer(0, b"{}")


@pytest.mark.parametrize("bound", [0, 2**40])
async def test_a_long_journal_begins_anew_when_nobody_reads(
    pool: QueryPool, store: Store, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    """Even if queries overlap without end: the next one waits for those that read."""
    reading = Reading(store.records)
    monkeypatch.setattr(module, "answer", reading)
    monkeypatch.setattr(module, "_JOURNAL_MAX", bound)
    asked = []
    asked.append(asyncio.create_task(pool.answer(ANY)))
    await eventually(lambda: len(reading.journal) == 1)
    asked.append(asyncio.create_task(pool.answer(ANY)))
    await eventually(lambda: len(reading.journal) == 2)
    asked.append(asyncio.create_task(pool.answer(ANY)))
    reading.go[0].set()
    await asked[0]
    if bound:  # Nothing is to be waited for.
        await eventually(lambda: len(reading.journal) == 3)
    reading.go[1].set()
    await eventually(lambda: len(reading.journal) == 3)
    assert (reading.journal[2] == 0) is (bound == 0)
    reading.go[2].set()
    assert await asyncio.gather(*asked) == [Answer(0, b"{}")] * 3
    assert len(reading.journal) == 3
