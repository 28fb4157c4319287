"""Moves SQLite's write-ahead log into the file of the record store, beside everything else.

SQLite would do it within a transaction, which then takes as long as copying thousands of pages
and two syncs: on a thread nobody waits for that. The write-ahead log begins anew once all of it
was moved and nothing was written meanwhile. So most of it is moved first, while writing goes on;
then what was written meanwhile, until little is left; then that, for which the record store waits
with writing if it can (`ending`). Where that is not enough, because of many who read or much that
is written, SQLite's own checkpoint comes in the end; it has little left to do then.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from replicad.errors import DiskFullError
from replicad.storage.records_schema import connect_again, typed_errors

# What was written since the last time is moved from here on. A row costs up to two pages, and
# SQLite's own checkpoint begins at 16,384. Each checkpoint syncs twice, on the log's disk: not too
# often.
_ROWS: Final = 8192
_BYTES: Final = 8 * 1024 * 1024
_STEPS_MAX: Final = 5
_SHORT_S: Final = 0.02
_MOVE: Final = "PRAGMA wal_checkpoint(PASSIVE)"


class Checkpointer:
    """Checkpoints of one file, which is open for writing elsewhere in this process."""

    def __init__(self, path: Path) -> None:
        """Begin nothing yet.

        Raises:
            RecordsDamagedError, DiskFailedError: The file cannot be opened.
        """
        self._path = path
        self._connection = connect_again(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._most: Future[None] | None = None
        self._rest: Future[None] | None = None
        self._rows = self._bytes = 0

    @property
    def ending(self) -> bool:
        """Whether the write-ahead log will begin anew soon, if nothing is written."""
        return self._rest is not None and not self._rest.done()

    def written(self, rows: int, bytes_: int) -> None:
        """So much more was written, and nothing is being written now: begin what is due.

        Raises:
            RecordsDamagedError, DiskFailedError: An earlier checkpoint has met that.
        """
        self._rows += rows
        self._bytes += bytes_
        if self._most is not None:
            if self._most.done():
                self._most.result()
                self._most, self._rest = None, self._thread.submit(self._move)
        elif (self._rows >= _ROWS or self._bytes >= _BYTES) and not self.ending:
            if self._rest is not None:
                self._rest.result()
            self._rows = self._bytes = 0
            self._most = self._thread.submit(self._move_most)

    def close(self) -> None:
        """Wait for what is at work, and close the connection."""
        self._thread.shutdown(cancel_futures=True)
        self._connection.close()

    def _move_most(self) -> None:
        for _ in range(_STEPS_MAX):
            began = time.monotonic()
            self._move()
            if time.monotonic() - began < _SHORT_S:
                return

    def _move(self) -> None:
        try:
            with typed_errors(self._path):
                self._connection.execute(_MOVE).fetchall()
        except DiskFullError:
            pass  # The write-ahead log keeps what could not be moved; the next one tries again.
