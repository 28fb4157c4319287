"""Runs queries beside the event loop: each on a thread and a connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from replicad.core.query import Query
from replicad.errors import QueryRefusedError, RecordsDamagedError, ReplicadError
from replicad.node.store import Store
from replicad.storage.queries import Answer, answer, prepare_reader

# More would only take time from each other, and from writes.
_THREADS: Final = 2
_WAITING_MAX: Final = 64
# SQLite's write-ahead log can begin anew only while nobody reads. From this size on, which is twice
# what it has otherwise, queries wait for each other until that is so.
_JOURNAL_MAX: Final = 128 * 1024 * 1024
# Together with what a query may take this stays below the time that a gateway gives an attempt.
_WAIT_S: Final = 1.0
_STOP_S: Final = 0.5
_INTERRUPT_S: Final = 0.02


class QueriesBusyError(ReplicadError):
    """So many queries wait already that this one would not get its turn in time, or none will."""


@dataclass(frozen=True, slots=True)
class _Reader:
    generation: int
    connection: sqlite3.Connection


class QueryPool:
    """The queries of one running replica."""

    def __init__(self, store: Store) -> None:
        """Answer out of what `store` has applied."""
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="query")
        self._turns = asyncio.Semaphore(_THREADS)
        self._waiting = 0
        self._kept_turns = 0
        self._idle: list[_Reader] = []
        self._busy: dict[asyncio.Future[Answer], _Reader] = {}
        self._stopped = False

    async def answer(self, query: Query) -> Answer:
        """Answer a query.

        Raises:
            QueriesBusyError: Too many wait already, the turn did not come, or this replica stops.
            QueryRefusedError: The collection cannot answer it.
            RecordsDamagedError: The record store was found damaged, or was replaced meanwhile.
            DiskFailedError: It cannot be read.
        """
        if self._waiting >= _WAITING_MAX:
            raise QueriesBusyError("too many queries wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            raise QueriesBusyError("other queries take too long") from None
        finally:
            self._waiting -= 1
        try:
            reader = self._take()
        except ReplicadError:
            self._turns.release()
            raise
        running = asyncio.get_running_loop().run_in_executor(
            self._threads, answer, reader.connection, query
        )
        self._busy[running] = reader
        # Also when nobody waits for the answer any more, the thread goes on to the end.
        running.add_done_callback(self._give_back)
        try:
            return await asyncio.shield(running)
        except QueryRefusedError:
            if self._stopped:  # It was interrupted, whatever it says.
                raise QueriesBusyError("the replica stops") from None
            raise

    async def stop(self) -> None:
        """End what runs, and answer nothing more."""
        self._stopped = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._busy:
                    # Again and again: what has not begun yet cannot be interrupted.
                    for reader in self._busy.values():
                        reader.connection.interrupt()
                    await asyncio.wait(self._busy, timeout=_INTERRUPT_S)
        for reader in self._idle:
            reader.connection.close()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> _Reader:
        if self._stopped:
            raise QueriesBusyError("the replica stops")
        self._store.records.settle()  # A reader sees what is in the file.
        generation = self._store.records.generation
        while self._idle:
            reader = self._idle.pop()
            if reader.generation == generation:
                break
            reader.connection.close()
        else:
            connection = self._store.records.open_reader()
            prepare_reader(connection)
            reader = _Reader(generation, connection)
        return reader

    def _give_back(self, done: asyncio.Future[Answer]) -> None:
        reader = self._busy.pop(done)
        self._kept_turns += 1
        if not self._busy or self._store.records.journal_bytes < _JOURNAL_MAX:
            self._give_turns()
        is_fit = not done.cancelled() and not isinstance(done.exception(), RecordsDamagedError)
        if is_fit and not self._stopped:
            self._idle.append(reader)
        else:
            reader.connection.close()

    def _give_turns(self) -> None:
        records = self._store.records
        if not self._busy and not self._stopped and records.journal_bytes >= _JOURNAL_MAX:
            # If the disk is at fault, the next transaction will meet that, too.
            with suppress(ReplicadError):
                records.empty_journal()
        while self._kept_turns:
            self._kept_turns -= 1
            self._turns.release()
