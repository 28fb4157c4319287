"""Queries on threads of their own: in turn, however long they take, until the end."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
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
async def pool(tmp_path: Path) -> AsyncIterator[QueryPool]:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.adopt_cluster("test")
    store = Store(directory)
    pool = QueryPool(store)
    yield pool
    await pool.stop()
    store.abandon()
    directory.close()


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
