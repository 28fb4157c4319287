"""Everything one replica keeps on its disk, opened together and kept in step.

The log is the truth. The record store holds what is committed of it and is rebuilt from it
whenever the two disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from replicad.core.entry import genesis_digest, split_lines
from replicad.core.log import LogIndex
from replicad.core.retention import SegmentFacts
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    RecordsDamagedError,
    SnapshotDamagedError,
)
from replicad.storage import snapshot_worker
from replicad.storage.checkpoint import Checkpoints, head_of, read_entries
from replicad.storage.datadir import DataDirectory
from replicad.storage.journal import SEGMENT_BYTES, Journal
from replicad.storage.logbase import Base
from replicad.storage.records import Records
from replicad.storage.recovery import recover
from replicad.storage.snapshot_files import SnapshotFiles

# An update touches some five pages of SQLite's: with what its log may hold before a checkpoint, one
# transaction must fit into the room that is kept free (`RESERVE_BYTES`).
_APPLY_BYTES = 256 * 1024
# What is appended is kept in memory until it is applied; much of it is read from the file again.
_KEPT_BYTES_MAX = 1024 * 1024
# Entries: one or two seconds, during which a running replica does nothing else.
_REBUILT_AT_ONCE = 50_000


class Store:
    """One replica's log, record store and persisted epoch.

    Attributes:
        log: Positions and digests of all entries; the core appends to it and truncates it.
        records: What is committed, ready to be looked up.
        commit: The commit index known from the disk alone.
        last_time: Of the last entry; "" for an empty log.
        cut_bytes: Length of the torn tail that was cut on opening.
        read_bytes: How much of the log was read and verified on opening.
        progress: Called again and again during work that takes long.
    """

    def __init__(
        self,
        directory: DataDirectory,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Recover the log of a directory that belongs to a cluster, and catch up the records.

        Args:
            directory: Locked.
            segment_bytes: See Journal.
            progress: See above.

        Raises:
            CorruptLogError: The log is damaged where it must not be. Nothing was changed.
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        self._directory = directory
        self._kept = b""
        self._kept_from = 0
        self.progress = progress
        self.records = Records.open(directory.path / "records.sqlite")
        with ExitStack() as on_failure:
            on_failure.callback(self.records.close)
            genesis = genesis_digest(directory.cluster_id)
            recovered = recover(
                directory.path,
                genesis,
                self.records.applied.index,
                epoch=directory.epoch,
                segment_bytes=segment_bytes,
            )
            self.log: LogIndex = recovered.index
            self._journal: Journal = recovered.journal
            self._checkpoints: Checkpoints = recovered.checkpoints
            on_failure.callback(self._checkpoints.finish)
            on_failure.callback(self._journal.abandon)
            self._synced = self._found = self.log.last
            self._keep_from_here()
            self.commit = recovered.commit
            self.last_time = recovered.last_time
            self.cut_bytes = recovered.cut_bytes
            self.read_bytes = recovered.read_bytes
            applied = self.records.applied
            known_from = max(1, self.log.base.index)
            if applied.index >= known_from and not self.log.holds(applied):
                raise CorruptLogError(
                    f"the log of {directory.path} and records.sqlite differ at the committed entry "
                    f"{applied.index}: one of them was replaced. If it is the record store, "
                    "delete it"
                )
            self.records.prune(self.log.base.index)
            self._catch_up_records()
            # A snapshot may know of more commits than the log does.
            self.commit = self.records.applied.index
            on_failure.pop_all()

    def append(self, first: int, lines: bytes) -> None:
        """Write the lines of the entries from `first` on, which `log` holds already.

        Raises:
            DiskFullError: Nothing was kept.
            DiskFailedError: End the process.
        """
        self._journal.append(lines, self.log, first)
        self._kept += lines
        if len(self._kept) > _KEPT_BYTES_MAX:
            self._keep_from_here()

    def sync(self) -> int:
        """Sync everything appended so far; returns the last index that is durable now.

        Raises:
            DiskFailedError: End the process.
        """
        self._journal.sync()
        self._synced = self.log.last
        return self._synced

    def mark_synced(self) -> None:
        """Note, without hurry, how far the log is known to be synced.

        A segment that has become full since gets the sidecar that makes a restart fast; and what
        was applied is written to the record store.

        Raises:
            CorruptLogError: A line is not the one that was appended.
            DiskFailedError: End the process.
            RecordsDamagedError: As `rebuild`.
        """
        try:
            self.records.settle()
        except DiskFullError:
            pass  # It stays in memory until there is room, or too much of it.
        except RecordsDamagedError:
            self.rebuild(self.records.applied.index)
        self._journal.mark_synced(self.log, self._synced)
        self._checkpoints.write_one(self.log)

    def truncate(self, first_gone: int) -> None:
        """Move the entries from `first_gone` on to lost+found."""
        self._journal.truncate(self.log, first_gone, epoch=self._directory.epoch)
        self._keep_from_here()
        self._synced = min(self._synced, first_gone - 1)

    @property
    def segment_firsts(self) -> tuple[int, ...]:
        """The first entry of each segment, in order; all but the last segment are full."""
        return tuple(segment.first for segment in self._journal.segments)

    def segment_facts(self) -> list[SegmentFacts]:
        """What retention wants to know. Reads one line of each segment.

        Raises:
            CorruptLogError: A line is not the one that was appended.
            DiskFailedError: One cannot be read.
        """
        segments = self._journal.segments
        lasts = [following.first - 1 for following in segments[1:]] + [self.log.last]
        return [
            SegmentFacts(
                segment.first,
                self.log.end_of(last) - segment.start,
                head_of(self._journal, self.log, last)[2],
            )
            for segment, last in zip(segments, lasts, strict=False)  # A log may have none.
        ]

    def drop_before(self, index: int) -> None:
        """Give up the entries of whole segments up to `index`, which a snapshot covers.

        Raises:
            CorruptLogError: The line that the rest follows is not the one that was appended.
            DiskFullError: No room for the note of it; nothing was dropped.
            DiskFailedError: End the process.
        """
        last = self._journal.boundary_at(index)
        if last is not None:
            self.records.settle()
            _, epoch, time, _ = head_of(self._journal, self.log, last)
            self._journal.drop_before(
                Base(self.log.point(last), epoch, time, self.log.end_of(last))
            )
            self.log.rebase(last)
            self.records.prune(last)

    def install(self, base: Base, committed: int, records: Path) -> None:
        """Put a snapshot, durable in this directory, in the place of the log and the records.

        What the log holds above `committed` goes to lost+found. After a crash on the way either
        nothing has happened, or the next opening does the rest.

        Args:
            base: The snapshot's last entry; see `Journal.reset_to`.
            committed: Entries up to here are known to be committed.
            records: The file that `load_records` made of the snapshot.

        Raises:
            DiskFullError: No room; nothing has happened.
            DiskFailedError: End the process.
        """
        self._journal.reset_to(self.log, base, committed, epoch=self._directory.epoch)
        self.log.reset(base.point, base.epoch, start=self._journal.end)
        self._keep_from_here()
        self._synced = self.log.last
        self.last_time = base.time
        self.records.replace_with(records)

    def check(self, first: int, bytes_max: int) -> int:
        """Read entries from `first` on back from the disk and compare them with the index.

        For a scrub, which calls it again and again. It blocks for some milliseconds a MiB.

        Args:
            first: Where to begin; log.first or any later synced entry.
            bytes_max: How much to read at most, but at least one entry.

        Returns:
            The entry to go on with; beyond the last synced one when all were checked.

        Raises:
            CorruptLogError: It names the file, the byte, the entry and what is wrong.
            DiskFailedError: They cannot be read.
        """
        last = self.log.fit(first, self._synced, bytes_max)
        read_entries(self._journal, self.log, first, last, from_disk=True)
        return last + 1

    def persist_epoch(self, epoch: int) -> None:
        """Make the epoch durable."""
        self._directory.persist_epoch(epoch)

    def read(self, first: int, count: int) -> bytes:
        """The lines of `count` entries from `first` on, every byte compared with their digests.

        Raises:
            CorruptLogError: They are not what they were when they were written.
            DiskFailedError: They cannot be read.
        """
        return read_entries(self._journal, self.log, first, first + count - 1)

    def read_unverified(self, first: int, last: int) -> bytes:
        """The lines of some entries as the disk has them.

        Raises:
            DiskFailedError: They cannot be read.
        """
        return self._journal.read(self.log.end_of(first - 1), self.log.end_of(last))

    def time_of(self, index: int) -> str:
        """When an entry was written, as it says.

        Raises:
            CorruptLogError: It is not what it was when it was written.
            DiskFailedError: It cannot be read.
        """
        return head_of(self._journal, self.log, index)[2]

    def apply(self, index: int) -> None:
        """Bring the record store up to the committed `index`; rebuild it if it is damaged.

        Raises:
            RecordsDamagedError: As `rebuild`.
            DiskFullError, DiskFailedError: End the process.
        """
        try:
            self._apply(index)
        except RecordsDamagedError:
            self.rebuild(index)
        if self.records.settled.index < index:
            # Whichever of the two is on the disk, it tells of these entries if they are damaged.
            self._journal.mark_synced(self.log, self._synced)

    def rebuild(self, index: int) -> None:
        """Make the record store anew, up to the committed `index`, from what there is on disk.

        Raises:
            CorruptLogError: The log does not begin with entry 1, and no snapshot fits it.
            RecordsDamagedError: It would hold up the process for too long. The record store is
                empty now; the next opening makes it anew.
        """
        self.records.reset()
        self._found = self.log.last  # What was verified once is read from the disk again.
        if index > _REBUILT_AT_ONCE:
            raise RecordsDamagedError("the record store was damaged, and is made anew on a restart")
        self._apply(index)

    def _catch_up_records(self) -> None:
        """On opening, however long it takes: nobody waits for this replica yet."""
        try:
            self._apply(self.commit)
            self.records.settle()
        except RecordsDamagedError:
            self.records.reset()
            self._apply(self.commit)
            self.records.settle()

    def _apply(self, index: int) -> None:
        if self.records.applied.index < self.log.base.index:
            self._load_snapshot()
        while self.records.applied.index < index:
            first = self.records.applied.index + 1
            last = self.log.fit(first, index, _APPLY_BYTES)
            lines = self._lines_to_apply(first, last)
            self.records.take(split_lines(lines), self.log.digest_at(last))
            self.progress()

    def _lines_to_apply(self, first: int, last: int) -> bytes:
        if first <= self._found:
            return self.read(first, last - first + 1)
        # Appended by this process, which verified them then.
        start, end = self.log.end_of(first - 1), self.log.end_of(last)
        if start < self._kept_from:
            return self.read_unverified(first, last)
        lines = self._kept[start - self._kept_from : end - self._kept_from]
        self._kept, self._kept_from = self._kept[end - self._kept_from :], end
        return lines

    def _keep_from_here(self) -> None:
        """Forget what was appended; what follows is kept."""
        self._kept, self._kept_from = b"", self._journal.end

    def _load_snapshot(self) -> None:
        """Fill the record store from the newest snapshot that the log can go on from."""
        path = self._directory.path
        files = SnapshotFiles(path)
        reasons = []
        for index in files.indexes():
            try:
                if not self.log.holds(files.load(index).header.point):
                    continue  # Older than the log, or of another one.
                snapshot_worker.load(str(path), index)
            except SnapshotDamagedError as error:
                reasons.append(str(error))
            else:
                self.records.replace_with(path / snapshot_worker.LOADED_NAME)
                return
        raise CorruptLogError(
            f"the log of {path} begins after entry {self.log.base.index}, and no snapshot holds "
            f"what was before: {'; '.join(reasons) or 'there is none'}"
        )

    def unapplied_bytes(self) -> int:
        """What the record store and its journal may still need for entries in the log.

        SQLite writes each row once to its write-ahead log and once to the file.
        """
        written = max(self.records.settled.index, self.log.base.index)
        return 2 * (self.log.end - self.log.end_of(written))

    def free_bytes(self) -> int:
        """Room left on the disk."""
        return self._directory.free_bytes()

    def close(self) -> None:
        """Make the mark durable and close the files."""
        self.mark_synced()
        self._checkpoints.finish()
        self.records.close()
        self._journal.close()

    def abandon(self) -> None:
        """Close the files as a killed process would: nothing is synced or marked."""
        with suppress(DiskFailedError):
            self._checkpoints.finish()
        self.records.close()
        self._journal.abandon()
