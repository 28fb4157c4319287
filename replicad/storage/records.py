"""The records themselves, in SQLite: look-ups and queries over the committed entries.

Derived from the log and nothing else: the file may be deleted at any time, and is rebuilt by
applying the log from entry 1. What is applied is stored in the same transaction as the rows.
"""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import orjson

from replicad.core.entry import DIGEST_BYTES, EPOCH, INSERT, WriteRequest, split_value
from replicad.core.events import Found
from replicad.core.messages import Point
from replicad.errors import (
    DiskFailedError,
    DiskFullError,
    MalformedEntryError,
    ProtocolViolationError,
    RecordsDamagedError,
)
from replicad.storage.durable import disk_errors, sync_data, sync_directory
from replicad.storage.snapshot import Record

NOTHING_APPLIED: Final = Point(0, b"")

_TABLES: Final = ("records", "requests", "applied")
# What the schema stores as user_version; a file of any other version is rebuilt.
_SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
BEGIN;
CREATE TABLE records (
    entry_index INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    value BLOB NOT NULL,
    genero TEXT
);
CREATE UNIQUE INDEX records_by_key ON records (collection, key);
CREATE INDEX records_by_genero ON records (collection, genero, entry_index);
CREATE TABLE requests (
    request TEXT PRIMARY KEY,
    entry_index INTEGER NOT NULL,
    fingerprint TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE applied (entry_index INTEGER NOT NULL, digest BLOB NOT NULL);
INSERT INTO applied VALUES (0, x'');
PRAGMA user_version = 2;
COMMIT;
"""

_INSERT_RECORDS: Final = "INSERT INTO records VALUES"
_INSERT_REQUESTS: Final = "INSERT INTO requests VALUES"
_ROWS: Final = "SELECT * FROM records WHERE entry_index BETWEEN ? AND ? ORDER BY entry_index"
_WRITTEN: Final = """
SELECT entry_index, collection, key FROM requests JOIN records USING (entry_index)
WHERE requests.request = ?
"""
_SCAN: Final = """
SELECT entry_index, value FROM records
WHERE +collection = ? AND entry_index > ? AND entry_index <= ?
ORDER BY entry_index LIMIT ?
"""  # The + keeps SQLite from the index by key, after which it would have to sort everything.
_SCAN_GENERO: Final = """
SELECT entry_index, value FROM records
WHERE collection = ? AND genero = ? AND entry_index > ? AND entry_index <= ?
ORDER BY entry_index LIMIT ?
"""

_REQUESTS_OF_RECORDS: Final = """
INSERT INTO requests SELECT request, entry_index, fingerprint FROM records ORDER BY request
"""
_LINES: Final = """
SELECT entry_index, collection, key, request, fingerprint, value FROM records
WHERE (collection, key) > (?, ?) AND entry_index <= ?
ORDER BY collection, key
"""

# Of the values in one page of a scan: bounds the memory of each reader, and how long it holds up
# everybody else.
PAGE_BYTES: Final = 128 * 1024
# Checkpoints sync and run inline: rather few and large.
_CHECKPOINT_PAGES: Final = 16384
_CACHE_KIB: Final = 64 * 1024
# A snapshot comes in the order of keys, but rows are stored by index: all over the file.
_LOADING_CACHE_KIB: Final = 256 * 1024
# SQLite takes 32766 parameters in a statement.
_PARAMETERS_MAX: Final = 10_000
_ROWS_AT_ONCE: Final = 100

_Row = tuple[int | bytes | str | None, ...]

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Written(NamedTuple):
    """One record, and the index `at` which it stands in the log."""

    at: int
    collection: str
    key: str


class Records:
    """The record store of one replica. Every method runs on the caller's thread.

    Methods raise RecordsDamagedError when the file is damaged: `reset` and apply the log again.
    They raise DiskFullError when there is no room, and DiskFailedError on other I/O errors.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, applied: Point) -> None:
        """Use `open`."""
        self._path = path
        self._connection = connection
        self._applied = applied

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file; begin with an empty one if it is missing, damaged or of other version.

        Raises:
            DiskFullError: There is no room for it.
            DiskFailedError: It cannot be opened.
        """
        try:
            return cls(path, *_connect(path))
        except RecordsDamagedError:
            _delete(path)
            return cls(path, *_connect(path))

    @property
    def applied(self) -> Point:
        """The last entry applied; NOTHING_APPLIED, which is in no log, when there is none."""
        return self._applied

    def reset(self) -> None:
        """Forget everything: begin with an empty file."""
        self._connection.close()
        _delete(self._path)
        self._connection, self._applied = _connect(self._path)

    def apply(self, lines: Iterable[bytes], digest: bytes) -> None:
        """Apply the entries that follow `applied`, all of them or none.

        Args:
            lines: At least one verified line, without newlines.
            digest: The last line's.

        Raises:
            ProtocolViolationError: They do not follow, or they cannot be in a log.
            MalformedEntryError: One is not an entry.
        """
        index, records, requests = _rows_of(lines, self._applied.index)
        with self._transaction() as connection:
            _insert(connection, _INSERT_RECORDS, records)
            _insert(connection, _INSERT_REQUESTS, requests)
            connection.execute("UPDATE applied SET entry_index = ?, digest = ?", (index, digest))
        self._applied = Point(index, digest)

    def wrong_rows(self, lines: Iterable[bytes], first: int) -> set[object]:
        """Indexes of entries whose rows are missing, superfluous or not what the entries say.

        Args:
            lines: Verified lines of consecutive entries that were applied, without newlines.
            first: The first one's index.
        """
        last, records, requests = _rows_of(lines, first - 1)
        with _typed_errors(self._path):
            stored = self._connection.execute(_ROWS, (first, last)).fetchall()
        known = self._select_in(
            "SELECT request, entry_index, fingerprint FROM requests WHERE request IN",
            [],
            [str(request) for request, *_ in requests],
        )
        wrong = {row[0] for row in set(records) ^ set(stored)}
        return wrong | {row[1] for row in set(requests) - set(known)}

    def restore(self, lines: Iterable[bytes], first: int) -> None:
        """Make the rows of entries that were applied what the entries say, whatever they are."""
        last, records, requests = _rows_of(lines, first - 1)
        with self._transaction() as connection:
            for table in ("records", "requests"):
                delete = f"DELETE FROM {table} WHERE entry_index BETWEEN ? AND ?"  # noqa: S608
                connection.execute(delete, (first, last))
            # Under a wrong index, too.
            keys = [row[1:3] for row in records]
            connection.executemany("DELETE FROM records WHERE collection = ? AND key = ?", keys)
            connection.executemany("INSERT OR REPLACE INTO requests VALUES (?, ?, ?)", requests)
            _insert(connection, _INSERT_RECORDS, records)

    def lookup(self, writes: Sequence[WriteRequest]) -> list[Found]:
        """What is known about each write, in their order."""
        keys: dict[str, list[str]] = defaultdict(list)
        for write in writes:
            keys[write.collection].append(write.key)
        present = {
            (collection, key)
            for collection, wanted in keys.items()
            for (key,) in self._select_in(
                "SELECT key FROM records WHERE collection = ? AND key IN", [collection], wanted
            )
        }
        requests = {
            request: (index, fingerprint)
            for request, index, fingerprint in self._select_in(
                "SELECT request, entry_index, fingerprint FROM requests WHERE request IN",
                [],
                [write.request for write in writes],
            )
        }
        return [
            Found((write.collection, write.key) in present, requests.get(write.request))
            for write in writes
        ]

    def get(self, collection: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values stored under the keys, None where there is none, in their order."""
        rows = self._select_in(
            "SELECT key, value FROM records WHERE collection = ? AND key IN", [collection], keys
        )
        values: dict[str, bytes] = dict(rows)
        return [values.get(key) for key in keys]

    def written_by(self, request: str) -> Written | None:
        """What the write with this request id has stored; None if none was applied."""
        with _typed_errors(self._path):
            row = self._connection.execute(_WRITTEN, (request,)).fetchone()
        return None if row is None else Written(*row)

    def scan(
        self, collection: str, *, after: int, upto: int, limit: int, genero: str | None = None
    ) -> list[tuple[int, bytes]]:
        """Entry indexes and values of the next page of records, in the order they were stored.

        A page ends after `limit` records, or with the one that fills PAGE_BYTES.

        Args:
            collection: Whose records.
            after: Only entries above this index; the last one of the page before.
            upto: Only entries up to this index.
            limit: How many at most.
            genero: Only records whose `genero` equals this, ignoring case.
        """
        bounds = (after, upto, limit)
        with _typed_errors(self._path):
            if genero is None:
                rows = self._connection.execute(_SCAN, (collection, *bounds))
            else:
                rows = self._connection.execute(
                    _SCAN_GENERO, (collection, genero.casefold(), *bounds)
                )
            page: list[tuple[int, bytes]] = []
            size = 0
            for index, value in rows:
                page.append((index, value))
                size += len(value)
                if size >= PAGE_BYTES:
                    break
            rows.close()
            return page

    def snapshot_lines(self, upto: int) -> Iterator[bytes]:
        """The records of the entries up to `upto`, as the lines of a snapshot and in its order.

        A page at a time; so while entries are applied meanwhile, what it gives may be of no one
        moment. The digests of its ranges tell.
        """
        page = [Record(0, "", "", "", "", b"")]
        while page:
            last = page[-1]
            page, size = [], 0
            with _typed_errors(self._path):
                rows = self._connection.execute(_LINES, (last.collection, last.key, upto))
                for row in rows:
                    page.append(Record(*row))
                    size += len(page[-1].value)
                    if size >= PAGE_BYTES:
                        break
                rows.close()
            yield from (record.encode() for record in page)

    def replace_with(self, loaded: Path) -> None:
        """Go on with the file that `load_records` made, in place of the own one.

        After a crash in the middle the record store may be empty.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        self._connection.close()
        _delete(self._path)
        with disk_errors(f"rename {loaded}"):
            loaded.replace(self._path)
        sync_directory(self._path.parent)
        self._connection, self._applied = _connect(self._path)

    def close(self) -> None:
        """Close the file. What was applied is in it; an open transaction there never is."""
        self._connection.close()

    def _select_in(
        self, query: str, fixed: Sequence[str], wanted: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        for at in range(0, len(wanted), _PARAMETERS_MAX):
            some = wanted[at : at + _PARAMETERS_MAX]
            marks = ",".join("?" * len(some))
            with _typed_errors(self._path):
                rows = self._connection.execute(f"{query} ({marks})", (*fixed, *some)).fetchall()
            yield from rows

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _typed_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                # SQLite has rolled back by itself after some errors, not after others.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def load_records(path: Path, records: Iterable[Record], point: Point) -> None:
    """Make the file of a record store from a snapshot, durable on return.

    Much faster than applying entries: without a journal, because a file of which a crash leaves a
    part is never used.

    Args:
        path: Of a new file.
        records: In the order of the snapshot.
        point: The snapshot's last entry.

    Raises:
        ProtocolViolationError: A key, an index or a request occurs twice.
        DiskFullError, DiskFailedError: The disk does not allow it.
    """
    with disk_errors(f"create {path}"):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        with _typed_errors(path):
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA cache_size = -{_LOADING_CACHE_KIB}")
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN")
            _insert(connection, _INSERT_RECORDS, map(_row_of, records))
            connection.execute(_REQUESTS_OF_RECORDS)
            applied = (point.index, point.digest)
            connection.execute("UPDATE applied SET entry_index = ?, digest = ?", applied)
            connection.execute("COMMIT")
    finally:
        connection.close()
    with disk_errors(f"open {path}"):
        descriptor = os.open(path, os.O_RDWR)
    try:
        sync_data(descriptor, path)
    finally:
        os.close(descriptor)


def _rows_of(lines: Iterable[bytes], index: int) -> tuple[int, list[_Row], list[_Row]]:
    """The last index, and the rows of the two tables, of the entries that follow `index`."""
    records: list[_Row] = []
    requests: list[_Row] = []
    for line in lines:
        entry, value = split_value(line)
        index += 1
        try:
            if entry["index"] != index:
                raise ProtocolViolationError(f"entry {entry['index']} to be applied as {index}")
            if entry["operation"] == INSERT:
                request, fingerprint = entry["request"], entry["fingerprint"]
                key = entry["collection"], entry["key"]
                records.append((index, *key, request, fingerprint, value, _genero_of(value)))
                requests.append((request, index, fingerprint))
            elif entry["operation"] != EPOCH:
                raise ProtocolViolationError(f"entry {index}: operation {entry['operation']!r}")
        except KeyError as error:
            raise MalformedEntryError(f"entry {index} lacks {error}") from error
    return index, records, requests


def _insert(connection: sqlite3.Connection, statement: str, rows: Iterable[_Row]) -> None:
    """Insert rows many at a time: a fifth less work than one by one."""
    left = iter(rows)
    while some := list(islice(left, _ROWS_AT_ONCE)):
        marks = f"({','.join('?' * len(some[0]))})"
        connection.execute(f"{statement} {','.join([marks] * len(some))}", [*chain(*some)])


def _row_of(record: Record) -> _Row:
    value = record.value
    head = (record.index, record.collection, record.key, record.request, record.fingerprint)
    return (*head, value, _genero_of(value))


def _genero_of(value: bytes) -> str | None:
    genero = orjson.loads(value).get("genero")
    return genero.casefold() if isinstance(genero, str) else None


def _connect(path: Path) -> tuple[sqlite3.Connection, Point]:
    with _typed_errors(path):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise DiskFailedError(f"cannot open {path}: {error}") from error
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            # Nobody else may lock the file: a lock would hold up the whole replica.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            return connection, _prepare(path, connection)
        except BaseException:
            connection.close()
            raise


def _prepare(path: Path, connection: sqlite3.Connection) -> Point:
    """Create the tables of a new file, or check an old one as far as that is cheap."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not tables:
        connection.executescript(_SCHEMA)
    elif version != _SCHEMA_VERSION or not tables.issuperset(_TABLES):
        raise RecordsDamagedError(f"{path} has schema version {version} and tables {tables}")
    match connection.execute("SELECT entry_index, digest FROM applied").fetchall():
        case [(int(index), bytes(digest))] if index >= 0 and len(digest) in (0, DIGEST_BYTES):
            pass
        case other:  # SQLite has no checksums: it gives back whatever it finds.
            raise RecordsDamagedError(f"{path} says that {other} was applied")
    (last,) = connection.execute("SELECT ifnull(max(entry_index), 0) FROM records").fetchone()
    if last > index:
        raise RecordsDamagedError(f"{path} holds entry {last} beyond the applied {index}")
    return Point(index, digest)


def _delete(path: Path) -> None:
    try:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise DiskFailedError(f"cannot delete {path}: {error}") from error


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into replicad's."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ProtocolViolationError(f"an entry repeats a key or a request: {error}") from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        primary = code & 0xFF
        if primary in _DAMAGED or code == sqlite3.SQLITE_READONLY_DBMOVED:
            raise RecordsDamagedError(f"{path}: {error}") from error
        if primary == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"{path}: {error}") from error
        raise DiskFailedError(f"{path}: {error}") from error
