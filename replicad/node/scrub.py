"""Reads everything that one replica has stored again, and compares it with what it should be.

Every entry's bytes are read back from the disk and compared with the digests that were known when
they were written; every row of the record store is compared with its entry. Since followers ack
digests, equal digests on one disk make equal logs on all of them.

A row that differs is put back from its entry; if that cannot be, or does not last, the record store
is made anew. An entry that differs ends this run of the replica: it begins again by repairing its
disk from the others (rule 8).

Source: docs/operations.md, "Is what is stored still right?".
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

from replicad.core.effects import Level
from replicad.core.entry import split_lines
from replicad.errors import (
    CorruptLogError,
    DiskFullError,
    ProtocolViolationError,
    RecordsDamagedError,
    SnapshotDamagedError,
    WorkerFailedError,
)
from replicad.node.metrics import ScrubMetrics
from replicad.node.store import Store
from replicad.node.synclog import SyncLog
from replicad.node.upkeep import Upkeep
from replicad.storage.snapshot import REQUESTS, cut_ranges, parse_line

# As which damage to SQLite's file shows, when the log's lines were verified: a row that its index
# does not know seems to be there twice, or there is a blob where a number was.
_DAMAGE: Final = (RecordsDamagedError, ProtocolViolationError, TypeError)
# Of one step, during which nothing else happens: about two milliseconds.
_SLICE_BYTES: Final = 128 * 1024
BYTES_PER_S: Final = 1024 * 1024
PASS_INTERVAL_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """What one pass over everything has found.

    Attributes:
        finished: When, RFC 3339 in UTC.
        entries: How many were read back.
        restored: How many of their rows were wrong, and were put back.
        error: Why the log cannot be trusted; "" if it can.
    """

    finished: str
    entries: int
    restored: int
    error: str

    def describe(self) -> dict[str, object]:
        """As people and tools see it."""
        return asdict(self)


class Scrub:
    """The scrub of one running replica.

    Attributes:
        last: What the last finished pass has found, or None.
    """

    def __init__(
        self, store: Store, upkeep: Upkeep, sync_log: SyncLog, metrics: ScrubMetrics
    ) -> None:
        """Check `store`, and the snapshots that `upkeep` keeps of it."""
        self._store = store
        self._upkeep = upkeep
        self._sync_log = sync_log
        self._metrics = metrics
        self.last: ScrubResult | None = None
        self._wrong: set[int] = set()  # Entries whose rows this pass has put back,
        self._wrong_before: set[int] = set()  # and the one before it.

    async def run(self) -> None:
        """Pass over everything, slowly, again and again.

        Raises:
            CorruptLogError: An entry is damaged.
            DiskFailedError: The disk cannot be read.
        """
        while True:
            await self.check_all(_SLICE_BYTES / BYTES_PER_S)
            await asyncio.sleep(PASS_INTERVAL_S)

    async def check_all(self, pause_s: float = 0.0) -> ScrubResult:
        """One pass over what is committed now; pauses after each step.

        Raises:
            CorruptLogError: An entry is damaged; `last` says so.
            RecordsDamagedError: The records are too damaged to be put back while this runs.
            DiskFailedError: The disk cannot be read.
        """
        store = self._store
        entries = restored = 0
        self._wrong_before, self._wrong = self._wrong, set()
        upto, at = store.records.applied.index, store.log.first
        try:
            try:
                await self._check_snapshots()
            except (SnapshotDamagedError, WorkerFailedError, DiskFullError) as error:
                self._sync_log.write(Level.ERROR, "snapshot not checked", {"error": str(error)})
            except RecordsDamagedError as error:
                self._mend_records(error)
            # The log's front may go meanwhile, or a snapshot take its place.
            while (at := max(at, store.log.first)) <= min(upto, store.records.applied.index):
                following = min(store.check(at, _SLICE_BYTES), upto + 1)
                restored += self._check_rows(at, following - 1)
                entries += following - at
                self._metrics.entries.inc(following - at)
                at = following
                await asyncio.sleep(pause_s)
        except (CorruptLogError, RecordsDamagedError) as error:
            self._finish(entries, restored, str(error))
            raise
        return self._finish(entries, restored, "")

    async def _check_snapshots(self) -> None:
        """Records of entries that the log no longer has are compared with the snapshot of them."""
        for index in await self._upkeep.check_snapshots():
            self._sync_log.write(Level.ERROR, "snapshot damaged, deleted", {"index": index})
        store, snapshot = self._store, self._upkeep.newest_snapshot
        records = store.records
        if store.log.base.index == 0 or snapshot < max(store.log.base.index, records.since):
            return
        lines = records.snapshot_lines(snapshot, records.forgets_before)
        found = cut_ranges(((parse_line(line)[1], line) for line in lines), 0)
        for expected in self._upkeep.ranges_of(snapshot):
            if expected.first >= REQUESTS:
                return  # Many of them are forgotten rightly since.
            part, _ = next(found, (None, b""))
            if part is None or (part.first, part.digest) != (expected.first, expected.digest):
                fields: dict[str, object] = {"snapshot": snapshot, "from": expected.first.decode()}
                self._sync_log.write(Level.ERROR, "records differ from the snapshot", fields)
                store.rebuild(store.records.applied.index)
                return
            await asyncio.sleep(0)

    def _check_rows(self, first: int, last: int) -> int:
        """Compare the rows of some entries with them; returns how many were wrong."""
        store = self._store
        lines = split_lines(store.read(first, last - first + 1))
        try:
            wrong = store.records.wrong_entries(lines, first)
            if wrong:
                self._report_wrong(wrong)
                if wrong & self._wrong_before:
                    raise RecordsDamagedError("rows that were put back are wrong again")
                store.records.restore(lines, first)
            if store.records.mend_indexes(first, last):
                fields: dict[str, object] = {"first": first, "last": last}
                self._sync_log.write(Level.ERROR, "indexes lack records, made anew", fields)
        except _DAMAGE as error:
            self._mend_records(error)
            return 0
        except DiskFullError:
            return 0  # No room to write what is only in memory yet; the next pass compares it.
        return len(wrong)

    def _mend_records(self, error: Exception) -> None:
        self._sync_log.write(Level.ERROR, "record store damaged", {"error": str(error)})
        self._wrong.clear()
        self._store.rebuild(self._store.records.applied.index)

    def _report_wrong(self, wrong: Set[int]) -> None:
        self._wrong |= wrong
        self._metrics.restored.inc(len(wrong))
        fields: dict[str, object] = {"indexes": sorted(wrong)[:10], "rows": len(wrong)}
        self._sync_log.write(Level.ERROR, "rows differ from the log, put back", fields)

    def _finish(self, entries: int, restored: int, error: str) -> ScrubResult:
        finished = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.last = ScrubResult(finished, entries, restored, error)
        self._metrics.passes.inc()
        level = Level.ERROR if error or restored else Level.INFO
        self._sync_log.write(level, "scrub finished", self.last.describe())
        return self.last
