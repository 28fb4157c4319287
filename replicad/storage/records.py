"""The records themselves, in SQLite: look-ups and queries over the committed entries.

Derived from the log and nothing else: the file may be deleted at any time, and is rebuilt by
applying the log from entry 1. What is applied is stored in the same transaction as the rows.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from replicad.core.events import Earlier, Found
from replicad.core.messages import Point
from replicad.core.write import DEFINITIONS, WriteRequest
from replicad.errors import RecordsDamagedError
from replicad.storage.durable import disk_errors, sync_directory
from replicad.storage.indexes import Indexes
from replicad.storage.places import at_of, index_of, last_at_of, position_of
from replicad.storage.records_apply import forget_requests, prune_past, write_changes
from replicad.storage.records_changes import Changes
from replicad.storage.records_check import Stretch, find_wrong, put_back
from replicad.storage.records_scan import record_page, remembered_page, scan_page
from replicad.storage.records_schema import (
    INSERT_REQUESTS,
    Applied,
    connect,
    connect_reader,
    delete,
    empty_journal,
    insert,
    journal_bytes,
    select_in,
    typed_errors,
)
from replicad.storage.snapshot import forget_before

NOTHING_APPLIED: Final = Point(0, b"")

_APPLIED: Final = "UPDATE applied SET entry_index = ?, digest = ?, time = ?, since = ?"
_WRITTEN: Final = """
SELECT entry_index, collection, key, done, time FROM requests WHERE request = ? AND time >= ?
"""
_DEFINED: Final = "SELECT key, at FROM records WHERE number = ?"
_VERSIONS: Final = """
SELECT at, until, CAST(value AS BLOB) FROM past WHERE number = ?1 AND key = ?2 AND at >= ?3
UNION ALL
SELECT at, NULL, CAST(value AS BLOB) FROM records WHERE number = ?1 AND key = ?2 AND at >= ?3
ORDER BY at LIMIT ?4
"""
_VERSION_AT: Final = """
SELECT at, until, CAST(value AS BLOB) FROM past WHERE number = ?1 AND key = ?2 AND at <= ?3
UNION ALL
SELECT at, NULL, CAST(value AS BLOB) FROM records WHERE number = ?1 AND key = ?2 AND at <= ?3
ORDER BY at DESC LIMIT 1
"""
Name = tuple[str, str]
"""A record: its collection and its key."""


class Stored(NamedTuple):
    """A live record: the index of the entry that wrote it, and its value."""

    version: int
    value: bytes


class Version(NamedTuple):
    """What a record was from one entry until another.

    Attributes:
        entry, position: The index of the entry that wrote it, and which of its changes that was.
        until: The entry that replaced or deleted it; None for the live one.
        value: The value's bytes as they stand in the log.
    """

    entry: int
    position: int
    until: int | None
    value: bytes


class Written(NamedTuple):
    """What one write has done.

    Attributes:
        at: The index of its entry.
        collection: Whose records.
        key: Of the one record; None if there were several.
        done: What it did to each of them: letters of `entry.DONE`.
        time: Of its entry.
    """

    at: int
    collection: str
    key: str | None
    done: str
    time: str


class Records:
    """The record store of one replica. Every method runs on the caller's thread.

    Methods raise RecordsDamagedError when the file is damaged: `reset` and apply the log again.
    They raise DiskFullError when there is no room, and DiskFailedError on other I/O errors.

    Attributes:
        indexes: What else is kept of the records; another one after `reset` and `replace_with`.
        generation: Grows whenever the file is replaced: connections of `open_reader` from before
            show what was.
    """

    indexes: Indexes

    def __init__(self, path: Path) -> None:
        """Use `open`."""
        self._path = path
        self.generation = 0
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
        return self._applied.point

    @property
    def time(self) -> str:
        """The last applied entry's time; "" when there is none."""
        return self._applied.time

    @property
    def since(self) -> int:
        """Reads as of this index and of later ones are complete."""
        return self._applied.since

    @property
    def forgets_before(self) -> str:
        """Writes whose entries are older than this time are forgotten; "" when nothing is."""
        return self._forgets_before

    def open_reader(self) -> sqlite3.Connection:
        """One more connection to the file, to read only, for any one thread; close it after use.

        It shows what is applied, transaction by transaction, until `generation` changes.
        """
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
        self._connection.close()
        delete(self._path)
        self._reopen()

    def replace_with(self, loaded: Path) -> None:
        """Go on with the file that `load_records` made, in place of the own one.

        After a crash in the middle the record store may be empty.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        self._connection.close()
        delete(self._path)
        with disk_errors(f"rename {loaded}"):
            loaded.replace(self._path)
        sync_directory(self._path.parent)
        self._reopen()

    def close(self) -> None:
        """Close the file. What was applied is in it; an open transaction there never is."""
        self._connection.close()

    def apply(self, lines: Iterable[bytes], digest: bytes) -> None:
        """Apply the entries that follow `applied`, all of them or none.

        Args:
            lines: At least one verified line, without newlines.
            digest: The last line's.

        Raises:
            ProtocolViolationError: They do not follow, or they cannot be in a log.
            MalformedEntryError: One is not an entry.
        """
        first = self.applied.index + 1
        numbers: dict[str, int] = {}
        changes = Changes(first - 1, lambda name: self._number_of(name, numbers))
        changes.add(lines)
        forgets_before = forget_before(changes.time)
        oldest, since, prunable = self._oldest, max(self.since, self._pruned_upto), self._prunable
        with self.transaction() as connection:
            write_changes(connection, changes, first, numbers, self.indexes)
            if oldest < forgets_before:
                oldest = forget_requests(connection, changes, forgets_before)
            insert(connection, INSERT_REQUESTS, changes.requests.values())
            if prunable:
                prunable = prune_past(connection, since)
            connection.execute(_APPLIED, (changes.last, digest, changes.time, since))
            redefined = changes.touches(DEFINITIONS)
            if redefined:
                self.indexes.redefined()
        self._numbers |= numbers
        if redefined:
            self._read_definitions()
        self._applied = Applied(Point(changes.last, digest), changes.time, since)
        self._forgets_before, self._oldest, self._prunable = forgets_before, oldest, prunable

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
        stretch = self._stretch(lines, first)
        with typed_errors(self._path):
            return find_wrong(self._connection, stretch, self._numbers.values()).entries

    def restore(self, lines: Iterable[bytes], first: int) -> None:
        """Make the rows of entries that were applied what the entries say, whatever they are."""
        stretch = self._stretch(lines, first)
        with self.transaction() as connection:
            wrong = find_wrong(connection, stretch, self._numbers.values())
            put_back(connection, stretch, wrong)
            self.indexes.rebuild(wrong.numbers)
        self._read_definitions()

    def mend_indexes(self, first: int, last: int) -> bool:
        """Have indexes made anew that lack records of these entries; whether there were any."""
        with typed_errors(self._path):
            lacking = self.indexes.lacking(first, last)
        if lacking:
            with self.transaction():
                self.indexes.rebuild(lacking)
        return bool(lacking)

    def lookup(self, writes: Sequence[WriteRequest]) -> list[Found]:
        """What is known about each write, in their order."""
        versions = self._versions(
            [(write.collection, each.key) for write in writes for each in write.operations]
        )
        earlier = self._earlier([write.request for write in writes])
        return [
            Found(
                tuple([versions.get((write.collection, op.key), 0) for op in write.operations]),
                earlier.get(write.request),
                self._definitions.get(write.collection, 0),
                sum(map(self.count, write.must_be_empty)),
            )
            for write in writes
        ]

    def get(self, names: Sequence[Name]) -> list[Stored | None]:
        """The live records of these names, None where there is none, in their order."""
        query = "SELECT key, at, CAST(value AS BLOB) FROM records WHERE number = ? AND key IN"
        found = {
            (collection, key): Stored(index_of(at), value)
            for collection, number, keys in self._by_collection(names)
            for key, at, value in self._select_in(query, [number], keys)
        }
        return [found.get(name) for name in names]

    def written_by(self, request: str) -> Written | None:
        """What the write with this request id has done; None if none is remembered."""
        with typed_errors(self._path):
            row = self._connection.execute(_WRITTEN, (request, self._forgets_before)).fetchone()
        return None if row is None else Written(*row)

    def count(self, collection: str) -> int:
        """How many live records the collection holds."""
        with typed_errors(self._path):
            row = self._connection.execute(
                "SELECT records FROM collections WHERE name = ?", (collection,)
            ).fetchone()
        return int(row[0]) if row else 0

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
        number = self._numbers.get(collection)
        if number is None:
            return []
        versions: list[Version] = []
        size = 0
        with typed_errors(self._path):
            parameters = (number, key, at_of(number, after + 1), limit)
            rows = self._connection.execute(_VERSIONS, parameters)
            for at, until, value in rows:
                versions.append(Version(index_of(at), position_of(at), until, value))
                size += len(value)
                if size >= bytes_max:
                    break
            rows.close()
        return versions

    def version_at(self, collection: str, key: str, index: int) -> Version | None:
        """The record as it was after the entry `index`, not below `since`; None if there was none.

        `until` may tell of a later entry that has replaced it meanwhile.
        """
        number = self._numbers.get(collection)
        if number is None:
            return None
        with typed_errors(self._path):
            row = self._connection.execute(
                _VERSION_AT, (number, key, last_at_of(number, index))
            ).fetchone()
        if row is None or (row[1] is not None and row[1] <= index):
            return None
        at, until, value = row
        return Version(index_of(at), position_of(at), until, value)

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
        for collection, number in sorted(self._numbers.items()):
            after: str | None = ""
            while after is not None:
                with typed_errors(self._path):
                    page, after = record_page(
                        self._connection, collection, number, after=after, upto=upto
                    )
                yield from (record.encode() for record in page)
        last = 0
        while True:
            with typed_errors(self._path):
                remembered = remembered_page(
                    self._connection, after=last, upto=upto, since=remembered_from
                )
            if not remembered:
                return
            last = remembered[-1].index
            yield from (each.encode() for each in remembered)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done in it or nothing, on disk at the next checkpoint."""
        with typed_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
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
        except BaseException:
            self._connection.close()
            raise
        self._forgets_before = forget_before(self.time) if self.time else ""
        self._oldest = ""
        self._prunable = True

    def _reopen(self) -> None:
        self._open()
        self.generation += 1

    def _number_of(self, collection: str, new: dict[str, int]) -> int:
        """The collection's number, by which it is known in this file only."""
        number = self._numbers.get(collection) or new.get(collection)
        if number is None:
            last = max(self._numbers.values(), default=0)
            number = new[collection] = last + len(new) + 1
        return number

    def _stretch(self, lines: Iterable[bytes], first: int) -> Stretch:
        unknown: dict[str, int] = {}
        changes = Changes(first - 1, lambda name: self._number_of(name, unknown))
        changes.add(lines)
        if unknown:
            raise RecordsDamagedError(f"{self._path} does not know the collections {[*unknown]}")
        return Stretch(first, changes, self.applied.index, self.since, self._forgets_before)

    def _earlier(self, requests: Sequence[str]) -> dict[str, Earlier]:
        query = "SELECT request, entry_index, fingerprint, done FROM requests"
        rows = self._select_in(
            f"{query} WHERE time >= ? AND request IN", [self._forgets_before], requests
        )
        return {request: Earlier(*found) for request, *found in rows}

    def _versions(self, names: Sequence[Name]) -> dict[Name, int]:
        """The versions of those of the records that there are."""
        query = "SELECT key, at FROM records WHERE number = ? AND key IN"
        return {
            (collection, key): index_of(at)
            for collection, number, keys in self._by_collection(names)
            for key, at in self._select_in(query, [number], keys)
        }

    def _read_definitions(self) -> None:
        with typed_errors(self._path):
            rows = self._connection.execute(_DEFINED, (self._numbers.get(DEFINITIONS),))
            self._definitions = {str(key): index_of(at) for key, at in rows}

    def _by_collection(self, names: Sequence[Name]) -> Iterator[tuple[str, int, list[str]]]:
        """Names by the collections that there are: with their numbers, and the keys in them."""
        keys: dict[str, list[str]] = defaultdict(list)
        for collection, key in names:
            keys[collection].append(key)
        for collection, wanted in keys.items():
            number = self._numbers.get(collection)
            if number is not None:
                yield collection, number, wanted

    def _select_in(
        self, query: str, fixed: Sequence[object], wanted: Sequence[object]
    ) -> Iterator[tuple[Any, ...]]:
        with typed_errors(self._path):
            yield from select_in(self._connection, query, fixed, wanted)
