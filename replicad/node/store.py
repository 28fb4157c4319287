"""Everything one replica keeps on its disk, opened together and kept in step.

The log is the truth. The record store holds what is committed of it and is rebuilt from it
whenever the two disagree.
"""

from __future__ import annotations

from contextlib import ExitStack

from replicad.core.entry import genesis_digest, split_lines
from replicad.core.log import LogIndex
from replicad.errors import CorruptLogError, RecordsDamagedError
from replicad.storage.datadir import DataDirectory
from replicad.storage.journal import Journal
from replicad.storage.records import Records
from replicad.storage.recovery import recover

_APPLY_BYTES = 1024 * 1024


class Store:
    """One replica's log, record store and persisted epoch.

    Attributes:
        log: Positions and digests of all entries; the core appends to it and truncates it.
        records: What is committed, ready to be looked up.
        commit: The commit index known from the disk alone.
        last_time: Of the last entry; "" for an empty log.
        cut_bytes: Length of the torn tail that was cut on opening.
    """

    def __init__(self, directory: DataDirectory) -> None:
        """Recover the log of a directory that belongs to a cluster, and catch up the records.

        Raises:
            CorruptLogError: The log is damaged where it must not be. Nothing was changed.
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        self._directory = directory
        self.records = Records.open(directory.path / "records.sqlite")
        with ExitStack() as on_failure:
            on_failure.callback(self.records.close)
            genesis = genesis_digest(directory.cluster_id)
            recovered = recover(directory.path, genesis, self.records.applied.index)
            self.log: LogIndex = recovered.index
            self._journal: Journal = recovered.journal
            on_failure.callback(self._journal.abandon)
            self._synced = self.log.last
            self.commit = recovered.commit
            self.last_time = recovered.last_time
            self.cut_bytes = recovered.cut_bytes
            applied = self.records.applied
            if applied.index and not self.log.holds(applied):
                raise CorruptLogError(
                    f"the log of {directory.path} and records.sqlite differ at the committed entry "
                    f"{applied.index}: one of them was replaced. If it is the record store, "
                    "delete it"
                )
            self.apply(self.commit)
            on_failure.pop_all()

    def append(self, first: int, lines: bytes) -> None:
        """Write the lines of the entries from `first` on, which `log` holds already.

        Raises:
            DiskFullError: Nothing was kept.
            DiskFailedError: End the process.
        """
        self._journal.append(lines, self.log, first)

    def sync(self) -> int:
        """Sync everything appended so far; returns the last index that is durable now.

        Raises:
            DiskFailedError: End the process.
        """
        self._journal.sync()
        self._synced = self.log.last
        return self._synced

    def mark_synced(self) -> None:
        """Note, without hurry, how far the log is known to be synced."""
        self._journal.mark_synced(self.log, self._synced)

    def truncate(self, first_gone: int) -> None:
        """Move the entries from `first_gone` on to lost+found."""
        self._journal.truncate(self.log, first_gone)
        self._synced = min(self._synced, first_gone - 1)

    def persist_epoch(self, epoch: int) -> None:
        """Make the epoch durable."""
        self._directory.persist_epoch(epoch)

    def read(self, first: int, count: int) -> bytes:
        """The lines of `count` entries from `first` on."""
        return self._journal.read(self.log.end_of(first - 1), self.log.end_of(first + count - 1))

    def apply(self, index: int) -> None:
        """Bring the record store up to the committed `index`; rebuild it if it is damaged."""
        try:
            self._apply(index)
        except RecordsDamagedError:
            self.rebuild(index)

    def rebuild(self, index: int) -> None:
        """Make the record store anew from the log, up to the committed `index`."""
        self.records.reset()
        self._apply(index)

    def _apply(self, index: int) -> None:
        while self.records.applied.index < index:
            first = self.records.applied.index + 1
            last = self.log.fit(first, index, _APPLY_BYTES)
            lines = self.read(first, last - first + 1)
            self.records.apply(split_lines(lines), self.log.digest_at(last))

    def unapplied_bytes(self) -> int:
        """What the record store and its journal may still need for entries in the log.

        SQLite writes each row once to its write-ahead log and once to the file.
        """
        return 2 * (self.log.end - self.log.end_of(self.records.applied.index))

    def free_bytes(self) -> int:
        """Room left on the disk."""
        return self._directory.free_bytes()

    def close(self) -> None:
        """Make the mark durable and close the files."""
        self.mark_synced()
        self.records.close()
        self._journal.close()

    def abandon(self) -> None:
        """Close the files as a killed process would: nothing is synced or marked."""
        self.records.close()
        self._journal.abandon()
