"""What one record was, as far back as the record store knows."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from replicad.storage.places import LIVE, at_of, index_of, no_later, position_of

# Of one record, versions end in the order in which they began.
_VERSIONS: Final = """
SELECT at, until, CAST(value AS BLOB) FROM versions
WHERE number = ? AND key = ? AND until > ? AND at >= ? ORDER BY until LIMIT ?
"""
_VERSION_AT: Final = """
SELECT at, until, CAST(value AS BLOB) FROM versions
WHERE number = ? AND key = ? AND until > ? ORDER BY until LIMIT 1
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
    begin = at_of(number, after + 1)
    rows = connection.execute(_VERSIONS, (number, key, after, begin, limit))
    for row in rows:
        version = _version(*row)
        versions.append(version)
        size += len(version.value)
        if size >= bytes_max:
            break
    rows.close()
    return versions


def version_at(connection: sqlite3.Connection, number: int, key: str, index: int) -> Version | None:
    """A record as it was after an entry; see Records.version_at."""
    row = connection.execute(_VERSION_AT, (number, key, no_later(index))).fetchone()
    if row is None or index_of(row[0]) > index:
        return None
    return _version(*row)


def _version(at: int, until: int, value: bytes) -> Version:
    return Version(index_of(at), position_of(at), None if until == LIVE else until, value)
