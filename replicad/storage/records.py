"""The records themselves, in SQLite: look-ups and queries over the committed entries.

Derived from the log and nothing else: the file may be deleted at any time, and is rebuilt by
applying the log from entry 1. What is applied is stored in the same transaction as the rows.

A transaction costs as much as a dozen entries, so entries are *taken* into memory first and
written together (`settle`). Look-ups by key and by request know of them; whatever else is asked,
they are written before. A crash loses nothing by it: they are applied again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from replicad.core.events import Found
from replicad.core.messages import Point
from replicad.core.write import DEFINITIONS, WriteRequest
from replicad.errors import RecordsDamagedError
from replicad.storage.durable import disk_errors, sync_directory
from replicad.storage.indexes import Indexes
from replicad.storage.places import index_of
from replicad.storage.records_apply import forget_requests, prune_past, write_changes
from replicad.storage.records_changes import Changes
from replicad.storage.records_check import Stretch, find_wrong, put_back
from replicad.storage.records_lookup import (
    Name,
    Stored,
    Written,
    find_earlier,
    find_live,
    find_versions,
    find_written,
)
from replicad.storage.records_scan import scan_page, snapshot_lines
from replicad.storage.records_schema import (
    INSERT_REQUESTS,
    Applied,
    connect,
    connect_reader,
    delete,
    empty_journal,
    insert,
    journal_bytes,
    typed_errors,
)
from replicad.storage.records_versions import Version, version_at, versions_of
from replicad.storage.records_wal import Checkpointer
from replicad.storage.snapshot import forget_before

NOTHING_APPLIED: Final = Point(0, b"")

_APPLIED: Final = "UPDATE applied SET entry_index = ?, digest = ?, time = ?, since = ?"
_DEFINED: Final = "SELECT key, at FROM records WHERE number = ?"
# What is taken is written from here on; inserts hold up the replica for a millisecond or two,
# updates for some ten.
_ENTRIES_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 256 * 1024
# While a checkpoint is at work that would be over sooner if nothing was written.
_PATIENCE: Final = 3


class Records:
    """The record store of one replica. Every method runs on the caller's thread.

    Methods raise RecordsDamagedError when the file is damaged: `reset` and apply the log again.
    They raise DiskFullError when there is no room, and DiskFailedError on other I/O errors.

    Attributes:
        indexes: What else is kept of the records; another one after `reset` and `replace_with`.
        generation: Grows whenever the file is replaced: connections of `open_reader` from before
            show what was.
        transactions: How many were committed.
    """

    indexes: Indexes
    _connection: sqlite3.Connection
    _checkpointer: Checkpointer

    def __init__(self, path: Path) -> None:
        """Use `open`."""
        self._path = path
        self.generation = 0
        self.transactions = 0
        self._oldest = ""  # A time that no remembered write's is below.
        self._pruned_upto, self._prunable = 0, True
        self._open()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file; begin with an empty one if it is missing, damaged or of other version.

        Raises:
            DiskFullError: There is no room for it.
            DiskFailedError: It cannot be opened.
        """
        try:
            return cls(path)
        except RecordsDamagedError:
            delete(path)
            return cls(path)

    @property
    def applied(self) -> Point:
        """The last entry applied; NOTHING_APPLIED, which is in no log, when there is none."""
        return self._taken

    @property
    def settled(self) -> Point:
        """The last one of those that are in the file."""
        return self._applied.point

    @property
    def time(self) -> str:
        """The last applied entry's time; "" when there is none."""
        return self._fresh.time or self._applied.time

    @property
    def since(self) -> int:
        """Reads as of this index and of later ones are complete."""
        return self._applied.since

    @property
    def forgets_before(self) -> str:
        """Writes whose entries are older than this time are forgotten; "" when nothing is."""
        return forget_before(self.time) if self.time else ""

    def open_reader(self) -> sqlite3.Connection:
        """One more connection to the file, to read only, for any one thread; close it after use.

        It shows what is settled, transaction by transaction, until `generation` changes.
        """
        self.settle()
        return connect_reader(self._path)

    @property
    def journal_bytes(self) -> int:
        """The size of SQLite's write-ahead log: it grows as long as readers overlap."""
        return journal_bytes(self._path)

    def empty_journal(self) -> None:
        """Empty that log, if nobody reads; waits for nobody."""
        with typed_errors(self._path):
            empty_journal(self._connection)

    def reset(self) -> None:
        """Forget everything: begin with an empty file."""
        self.close()
        delete(self._path)
        self._reopen()

    def replace_with(self, loaded: Path) -> None:
        """Go on with the file that `load_records` made, in place of the own one.

        After a crash in the middle the record store may be empty.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        self.close()
        delete(self._path)
        with disk_errors(f"rename {loaded}"):
            loaded.replace(self._path)
        sync_directory(self._path.parent)
        self._reopen()

    def close(self) -> None:
        """Close the file. What was settled is in it; an open transaction there never is."""
        self._checkpointer.close()
        self._connection.close()

    def apply(self, lines: Iterable[bytes], digest: bytes) -> None:
        """Apply the entries that follow `applied`, and write them: all of them or none.

        Args:
            lines: At least one verified line, without newlines.
            digest: The last line's.

        Raises:
            ProtocolViolationError: They do not follow, or they cannot be in a log.
            MalformedEntryError: One is not an entry.
        """
        self.settle()
        try:
            self._take(lines, digest)
            self.settle()
        except BaseException:
            self._forget_taken()
            raise

    def take(self, lines: Iterable[bytes], digest: bytes) -> None:
        """Apply the entries that follow `applied`; they are written now or with later ones.

        Args:
            lines: As of `apply`.
            digest: As of `apply`.

        Raises:
            ProtocolViolationError, MalformedEntryError: As of `apply`; or of entries that were
                taken before. What is applied is what was settled.
        """
        try:
            self._take(lines, digest)
        except BaseException:
            self._forget_taken()
            raise
        if self._is_much_taken() or self._fresh.touches(DEFINITIONS):
            self.settle()

    def settle(self) -> None:
        """Write what was taken, in one transaction; if that fails, it is still taken.

        Raises:
            ProtocolViolationError: The entries cannot be in a log.
        """
        fresh, first = self._fresh, self.settled.index + 1
        if fresh.last < first:
            return
        forgets_before = forget_before(fresh.time)
        oldest, since, prunable = self._oldest, max(self.since, self._pruned_upto), self._prunable
        rows = self._connection.total_changes
        with self.transaction() as connection:
            write_changes(connection, fresh, first, self._new_numbers, self.indexes)
            if oldest < forgets_before:
                oldest = forget_requests(connection, fresh, forgets_before)
            insert(connection, INSERT_REQUESTS, fresh.requests.values())
            if prunable:
                prunable = prune_past(connection, fresh, since)
            connection.execute(_APPLIED, (fresh.last, self._taken.digest, fresh.time, since))
            redefined = fresh.touches(DEFINITIONS)
            if redefined:
                self.indexes.redefined()
        self._applied = Applied(self._taken, fresh.time, since)
        self._oldest, self._prunable = oldest, prunable
        self._new_numbers.clear()
        self._begin()
        if redefined:
            self._read_definitions()
        self._checkpointer.written(self._connection.total_changes - rows, fresh.bytes)

    def prune(self, upto: int) -> None:
        """Versions that were replaced by entries up to `upto` are kept no longer.

        They go little by little, while entries are applied.
        """
        self._pruned_upto, self._prunable = upto, True

    def wrong_entries(self, lines: Iterable[bytes], first: int) -> frozenset[int]:
        """Indexes of entries whose rows are missing, superfluous or not what the entries say.

        Args:
            lines: Verified lines of consecutive entries that were applied, without newlines.
            first: The first one's index.
        """
        self.settle()
        stretch = self._stretch(lines, first)
        with typed_errors(self._path):
            return find_wrong(self._connection, stretch, self._numbers.values()).entries

    def restore(self, lines: Iterable[bytes], first: int) -> None:
        """Make the rows of entries that were applied what the entries say, whatever they are."""
        self.settle()
        stretch = self._stretch(lines, first)
        with self.transaction() as connection:
            wrong = find_wrong(connection, stretch, self._numbers.values())
            put_back(connection, stretch, wrong)
            self.indexes.rebuild(wrong.numbers)
        self._read_definitions()

    def mend_indexes(self, first: int, last: int) -> bool:
        """Have indexes made anew that lack records of these entries; whether there were any."""
        self.settle()
        with typed_errors(self._path):
            lacking = self.indexes.lacking(first, last)
        if lacking:
            with self.transaction():
                self.indexes.rebuild(lacking)
        return bool(lacking)

    def lookup(self, writes: Sequence[WriteRequest]) -> list[Found]:
        """What is known about each write, in their order."""
        keys: dict[str, list[str]] = {}
        for write in writes:
            wanted = keys.setdefault(write.collection, [])
            for operation in write.operations:
                wanted.append(operation.key)
        with typed_errors(self._path):
            versions = {name: self._versions(name, each) for name, each in keys.items()}
            requests = [write.request for write in writes]
            earlier = find_earlier(self._connection, self._fresh, requests, self.forgets_before)
        return [
            Found(
                tuple([versions[write.collection].get(op.key, 0) for op in write.operations]),
                earlier.get(write.request),
                self._definitions.get(write.collection, 0),
                sum(map(self.count, write.must_be_empty)) if write.collection == DEFINITIONS else 0,
            )
            for write in writes
        ]

    def _versions(self, collection: str, keys: Sequence[str]) -> dict[str, int]:
        number = self._numbers.get(collection)
        if number is None:
            return {}
        return find_versions(self._connection, self._fresh, number, keys)

    def get(self, names: Sequence[Name]) -> list[Stored | None]:
        """The live records of these names, None where there is none, in their order."""
        keys: dict[str, list[str]] = {}
        for collection, key in names:
            keys.setdefault(collection, []).append(key)
        found: dict[Name, Stored] = {}
        with typed_errors(self._path):
            for collection, wanted in keys.items():
                number = self._numbers.get(collection)
                if number is not None:
                    for key, stored in find_live(self._connection, self._fresh, number, wanted):
                        found[collection, key] = stored
        return [found.get(name) for name in names]

    def written_by(self, request: str) -> Written | None:
        """What the write with this request id has done; None if none is remembered."""
        self.settle()
        with typed_errors(self._path):
            return find_written(self._connection, request, self.forgets_before)

    def count(self, collection: str) -> int:
        """How many live records the collection holds."""
        number = self._numbers.get(collection)
        if number is None:
            return 0
        with typed_errors(self._path):
            row = self._connection.execute(
                "SELECT records FROM collections WHERE number = ?", (number,)
            ).fetchone()
        return (int(row[0]) if row else 0) + self._fresh.counts[number]

    def versions_of(
        self, collection: str, key: str, *, after: int = 0, limit: int, bytes_max: int
    ) -> list[Version]:
        """The next versions of a record by entries above `after`, oldest first.

        Those that entries up to `since` have replaced may be missing.

        Args:
            collection: Whose record.
            key: Its id.
            after: Index.
            limit: How many at most.
            bytes_max: The one with which the values reach this size is the last.
        """
        self.settle()
        number = self._numbers.get(collection)
        if number is None:
            return []
        with typed_errors(self._path):
            return versions_of(
                self._connection, number, key, after=after, limit=limit, bytes_max=bytes_max
            )

    def version_at(self, collection: str, key: str, index: int) -> Version | None:
        """The record as it was after the entry `index`, not below `since`; None if there was none.

        `until` may tell of a later entry that has replaced it meanwhile.
        """
        self.settle()
        number = self._numbers.get(collection)
        if number is None:
            return None
        with typed_errors(self._path):
            return version_at(self._connection, number, key, index)

    def scan(
        self, collection: str, *, after: int, upto: int, limit: int, genero: str | None = None
    ) -> tuple[list[tuple[int, bytes]], int | None]:
        """Places and values of the next page of records as of `upto`, in the order of their places.

        A page ends after `limit` records, or with the one that fills PAGE_BYTES, or where a bound
        of the work is reached: so it may be empty before the end.

        Args:
            collection: Whose records.
            after: Where the page before ended, 0 for the first page.
            upto: Index; what later entries did is left out. Not below `since`.
            limit: How many at most.
            genero: Only records whose `genero` equals this, ignoring case.

        Returns:
            The page, and the place to go on after; None when that was all.
        """
        self.settle()
        number = self._numbers.get(collection)
        if number is None:
            return [], None
        with typed_errors(self._path):
            return scan_page(
                self._connection, number, after=after, upto=upto, limit=limit, genero=genero
            )

    def snapshot_lines(self, upto: int, remembered_from: str) -> Iterator[bytes]:
        """The lines of a snapshot as of `upto`, in its order, whatever is applied meanwhile.

        Args:
            upto: Not below `since`.
            remembered_from: Writes of entries older than this time are left out; not before
                `forgets_before`.
        """
        self.settle()
        with typed_errors(self._path):
            yield from snapshot_lines(
                lambda: self._connection, self._numbers, upto, remembered_from
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done in it or nothing, on disk at the next checkpoint."""
        with typed_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
                self.transactions += 1
            except BaseException:
                # SQLite has rolled back by itself after some errors, not after others.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self.indexes = Indexes(self._connection)
                raise

    def _open(self) -> None:
        self._connection, self._applied = connect(self._path)
        try:
            with typed_errors(self._path):
                self.indexes = Indexes(self._connection)
                self._numbers: dict[str, int] = dict(
                    self._connection.execute("SELECT name, number FROM collections")
                )
                self._read_definitions()
            self._checkpointer = Checkpointer(self._path)
        except BaseException:
            self._connection.close()
            raise
        self._oldest = ""
        self._prunable = True
        self._new_numbers: dict[str, int] = {}
        self._begin()

    def _reopen(self) -> None:
        self._open()
        self.generation += 1

    def _begin(self) -> None:
        """Take entries after those that are settled."""
        self._taken = self.settled
        self._fresh = Changes(self.settled.index, self._number_of)

    def _take(self, lines: Iterable[bytes], digest: bytes) -> None:
        self._fresh.add(lines)
        self._taken = Point(self._fresh.last, digest)

    def _is_much_taken(self) -> bool:
        entries, size = self._fresh.last - self._applied.point.index, self._fresh.bytes
        if entries < _ENTRIES_AT_ONCE and size < _BYTES_AT_ONCE:
            return False
        patience = _PATIENCE if self._checkpointer.ending else 1
        return entries >= patience * _ENTRIES_AT_ONCE or size >= patience * _BYTES_AT_ONCE

    def _forget_taken(self) -> None:
        for name in self._new_numbers:
            del self._numbers[name]
        self._new_numbers.clear()
        self._begin()

    def _number_of(self, collection: str) -> int:
        """The collection's number, by which it is known in this file only."""
        number = self._numbers.get(collection)
        if number is None:
            number = max(self._numbers.values(), default=0) + 1
            self._numbers[collection] = self._new_numbers[collection] = number
        return number

    def _known_number(self, collection: str) -> int:
        try:
            return self._numbers[collection]
        except KeyError:
            raise RecordsDamagedError(f"{self._path} does not know {collection}") from None

    def _stretch(self, lines: Iterable[bytes], first: int) -> Stretch:
        """What entries say that were settled."""
        changes = Changes(first - 1, self._known_number)
        changes.add(lines)
        return Stretch(first, changes, self.settled.index, self.since, self.forgets_before)

    def _read_definitions(self) -> None:
        with typed_errors(self._path):
            rows = self._connection.execute(_DEFINED, (self._numbers.get(DEFINITIONS),))
            self._definitions = {str(key): index_of(at) for key, at in rows}
