"""The file of the record store: its tables, how it is opened, and what its errors mean.

Source: docs/log-format.md, "The record store".
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from replicad.core.entry import DIGEST_BYTES
from replicad.core.messages import Point
from replicad.errors import (
    DiskFailedError,
    DiskFullError,
    ProtocolViolationError,
    RecordsDamagedError,
)
from replicad.storage import indexes
from replicad.storage.places import LIVE

# What the schema stores as user_version; a file of any other version is rebuilt.
_SCHEMA_VERSION: Final = 6
_TABLES: Final = ("collections", "versions", "records", "past", "requests", "applied")
_OWN_TABLES: Final = f"""
BEGIN;
CREATE TABLE collections (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    records INTEGER NOT NULL
);
-- A value is the JSON object's bytes as they stand in the log: CAST(value AS BLOB) gives them
-- back, and json_extract(value, ...) works. A version that ends stays where it is: to move it
-- would touch twice as many pages, and this is what most of an update's time is taken by.
CREATE TABLE versions (
    at INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    key TEXT NOT NULL,
    until INTEGER NOT NULL,
    value TEXT NOT NULL,
    genero TEXT
);
CREATE UNIQUE INDEX versions_by_key ON versions (number, key, until);
CREATE INDEX versions_by_genero ON versions (number, genero, at) WHERE genero IS NOT NULL;
CREATE INDEX versions_by_until ON versions (until) WHERE until < {LIVE};
CREATE VIEW records AS SELECT at, number, key, value, genero FROM versions WHERE until = {LIVE};
CREATE VIEW past AS SELECT at, number, key, until, value FROM versions WHERE until < {LIVE};
CREATE TABLE requests (
    entry_index INTEGER PRIMARY KEY,
    time TEXT NOT NULL,
    collection TEXT NOT NULL,
    key TEXT,
    done TEXT NOT NULL,
    request TEXT NOT NULL,
    fingerprint TEXT NOT NULL
);
CREATE UNIQUE INDEX requests_by_id ON requests (request);
CREATE TABLE applied (
    entry_index INTEGER NOT NULL,
    digest BLOB NOT NULL,
    time TEXT NOT NULL,
    since INTEGER NOT NULL
);
INSERT INTO applied VALUES (0, x'', '', 0);
"""  # noqa: S608
SCHEMA: Final = (
    f"{_OWN_TABLES}{indexes.SCHEMA}\nPRAGMA user_version = {_SCHEMA_VERSION};\nCOMMIT;\n"
)
"""What makes an empty file."""

# Few different statements, so that they stay prepared.
_ROWS_AT_ONCE: Final = (256, 64, 16, 4, 1)
Statements = tuple[tuple[int, str], ...]


def _inserts(table: str, *columns: str) -> Statements:
    row = f"({','.join(columns)})"
    return tuple(
        (count, f"INSERT INTO {table} VALUES {','.join([row] * count)}")  # noqa: S608
        for count in _ROWS_AT_ONCE
    )


# Values are bytes: SQLite takes them as the text that they are, without Python decoding them.
_VALUE: Final = "CAST(? AS TEXT)"
INSERT_VERSIONS: Final = _inserts("versions", "?", "?", "?", "?", _VALUE, "?")
INSERT_REQUESTS: Final = _inserts("requests", *"???????")
# SQLite takes 32766 parameters in a statement.
_PARAMETERS_MAX: Final = 10_000

# Of SQLite's own checkpoints, which hold up everything: rarely needed, see `records_wal.py`.
_CHECKPOINT_PAGES: Final = 16384
_PAGE_BYTES: Final = 4096
_CACHE_KIB: Final = 64 * 1024
_READER_CACHE_KIB: Final = 8 * 1024
# Readers lock for moments only, on opening and on closing.
_BUSY_S: Final = 1.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_LAST: Final = """
SELECT max((
    SELECT max(at) FROM versions WHERE at BETWEEN lane << 53 AND (lane << 53) | 9007199254740991
) & 9007199254740991) >> 10 FROM (SELECT DISTINCT number & 1023 AS lane FROM collections)
"""

Row = tuple[int, int, str, int, bytes, str | None]
"""A row of `versions`: place, number of the collection, key, index of the entry that replaced it
or LIVE, value, `genero` folded."""
Request = tuple[int, str, str, str | None, str, str, str]
"""A row of `requests`: index, time, collection, key, what was done, request id, fingerprint."""


class Applied(NamedTuple):
    """What a record store reflects.

    Attributes:
        point: The last entry applied.
        time: Of that entry; "" if there is none.
        since: Every version that was replaced by an entry above this index is kept.
    """

    point: Point
    time: str
    since: int


def insert(
    connection: sqlite3.Connection, statements: Statements, rows: Iterable[tuple[object, ...]]
) -> None:
    """Insert rows many at a time: a third less work than one by one."""
    left = iter(rows)
    for count, statement in statements:
        while len(some := list(islice(left, count))) == count:
            connection.execute(statement, [*chain.from_iterable(some)])
        if not some:
            return
        left = iter(some)


def select_in(
    connection: sqlite3.Connection, query: str, fixed: Sequence[object], wanted: Sequence[object]
) -> list[tuple[Any, ...]]:
    """The rows of a query that ends with `IN`, for any number of wanted values."""
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(wanted), _PARAMETERS_MAX):
        some = wanted[start : start + _PARAMETERS_MAX]
        marks = ",".join("?" * len(some))
        rows += connection.execute(f"{query} ({marks})", (*fixed, *some)).fetchall()
    return rows


def connect(path: Path) -> tuple[sqlite3.Connection, Applied]:
    """Open the file for writing, or make an empty one.

    Raises:
        RecordsDamagedError: It is no record store of this version.
        DiskFullError, DiskFailedError: The disk does not allow it.
    """
    with typed_errors(path):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise DiskFailedError(f"cannot open {path}: {error}") from error
        connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            # What it has grown to beyond that, because somebody read for long, is given back.
            connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * _PAGE_BYTES}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            return connection, _prepare(path, connection)
        except BaseException:
            connection.close()
            raise


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a file that is open for writing once more, to read only, from any one thread."""
    return connect_again(path, mode="ro")


def connect_again(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """Open a file that is open for writing once more, for any one thread.

    Raises:
        RecordsDamagedError, DiskFailedError: It cannot be opened.
    """
    with typed_errors(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=_BUSY_S,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        return connection


def journal_bytes(path: Path) -> int:
    """The size of SQLite's write-ahead log of the file; 0 if there is none to be seen."""
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0


def empty_journal(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, as far as nobody reads; waits for nobody."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {round(_BUSY_S * 1000)}")


def _prepare(path: Path, connection: sqlite3.Connection) -> Applied:
    """Create the tables of a new file, or check an old one as far as that is cheap."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0 and not tables:
        connection.executescript(SCHEMA)
    elif version != _SCHEMA_VERSION or not tables.issuperset(_TABLES):
        raise RecordsDamagedError(f"{path} has schema version {version} and tables {tables}")
    match connection.execute("SELECT entry_index, digest, time, since FROM applied").fetchall():
        case [(int(index), bytes(digest), str(time), int(since))] if 0 <= since <= index and len(
            digest
        ) in (0, DIGEST_BYTES):
            pass
        case other:  # SQLite has no checksums: it gives back whatever it finds.
            raise RecordsDamagedError(f"{path} says that {other} was applied")
    (last,) = connection.execute(_LAST).fetchone()
    if last is not None and last > index:
        raise RecordsDamagedError(f"{path} holds entry {last} beyond the applied {index}")
    return Applied(Point(index, digest), time, since)


def delete(path: Path) -> None:
    """Delete the file and what belongs to it, if there is anything.

    Raises:
        DiskFailedError: It cannot be deleted.
    """
    try:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise DiskFailedError(f"cannot delete {path}: {error}") from error


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into replicad's."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ProtocolViolationError(f"an entry repeats a key or a request: {error}") from error
    except sqlite3.DatabaseError as error:
        # Python's own errors have no code: of the operational ones, that a text is not UTF-8.
        is_text = isinstance(error, sqlite3.OperationalError)
        default = sqlite3.SQLITE_CORRUPT if is_text else sqlite3.SQLITE_ERROR
        code = getattr(error, "sqlite_errorcode", default)
        primary = code & 0xFF
        if primary in _DAMAGED or code == sqlite3.SQLITE_READONLY_DBMOVED:
            raise RecordsDamagedError(f"{path}: {error}") from error
        if primary == sqlite3.SQLITE_FULL:
            raise DiskFullError(f"{path}: {error}") from error
        raise DiskFailedError(f"{path}: {error}") from error
