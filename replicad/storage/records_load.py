"""Makes the file of a record store from a snapshot."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from replicad.core.messages import Point
from replicad.storage.durable import disk_errors, sync_data
from replicad.storage.places import LIVE, at_of
from replicad.storage.records_changes import genero_of
from replicad.storage.records_schema import (
    INSERT_REQUESTS,
    INSERT_VERSIONS,
    SCHEMA,
    Request,
    Row,
    insert,
    typed_errors,
)
from replicad.storage.snapshot import Record, Remembered

# A snapshot comes in the order of keys, but rows are stored by index: all over the file.
_CACHE_KIB: Final = 256 * 1024


def load_records(path: Path, lines: Iterable[Record | Remembered], point: Point, time: str) -> None:
    """Make the file of a record store from a snapshot, durable on return.

    Much faster than applying entries: without a journal, because a file of which a crash leaves a
    part is never used.

    Args:
        path: Of a new file.
        lines: The snapshot's, in its order.
        point: The snapshot's last entry.
        time: Of that entry.

    Raises:
        ProtocolViolationError: A key, an index or a request occurs twice.
        DiskFullError, DiskFailedError: The disk does not allow it.
    """
    with disk_errors(f"create {path}"):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        with typed_errors(path):
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.executescript(SCHEMA)
            connection.execute("BEGIN")
            _insert_lines(connection, lines)
            connection.execute(
                "UPDATE applied SET entry_index = ?, digest = ?, time = ?, since = ?",
                (point.index, point.digest, time, point.index),
            )
            connection.execute("COMMIT")
    finally:
        connection.close()
    with disk_errors(f"open {path}"):
        descriptor = os.open(path, os.O_RDWR)
    try:
        sync_data(descriptor, path)
    finally:
        os.close(descriptor)


def _insert_lines(connection: sqlite3.Connection, lines: Iterable[Record | Remembered]) -> None:
    numbers: dict[str, int] = {}
    counts: Counter[str] = Counter()

    def live(group: Iterable[Record | Remembered]) -> Iterator[Row]:
        for each in group:
            if isinstance(each, Record):
                counts[each.collection] += 1
                number = numbers.setdefault(each.collection, len(numbers) + 1)
                at = at_of(number, each.index, each.position)
                yield at, number, each.key, LIVE, each.value, genero_of(each.value)

    for kind, group in groupby(lines, type):
        if kind is Record:
            insert(connection, INSERT_VERSIONS, live(group))
        else:
            insert(connection, INSERT_REQUESTS, _requests(group))
    connection.executemany(
        "INSERT INTO collections VALUES (?, ?, ?)",
        [(number, name, counts[name]) for name, number in numbers.items()],
    )


def _requests(group: Iterable[Record | Remembered]) -> Iterator[Request]:
    for each in group:
        if isinstance(each, Remembered):
            head = each.index, each.time, each.collection, each.key
            yield *head, each.done, each.request, each.fingerprint
