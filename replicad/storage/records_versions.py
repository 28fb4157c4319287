"""What one record was, as far back as the record store knows."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from replicad.storage.places import at_of, index_of, last_at_of, position_of

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


def versions_of(
    connection: sqlite3.Connection,
    number: int,
    key: str,
    *,
    after: int,
    limit: int,
    bytes_max: int,
) -> list[Version]:
    """The next versions of a record; see Records.versions_of."""
    versions: list[Version] = []
    size = 0
    rows = connection.execute(_VERSIONS, (number, key, at_of(number, after + 1), limit))
    for at, until, value in rows:
        versions.append(Version(index_of(at), position_of(at), until, value))
        size += len(value)
        if size >= bytes_max:
            break
    rows.close()
    return versions


def version_at(connection: sqlite3.Connection, number: int, key: str, index: int) -> Version | None:
    """A record as it was after an entry; see Records.version_at."""
    row = connection.execute(_VERSION_AT, (number, key, last_at_of(number, index))).fetchone()
    if row is None or (row[1] is not None and row[1] <= index):
        return None
    at, until, value = row
    return Version(index_of(at), position_of(at), until, value)
