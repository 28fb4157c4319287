"""Writes what log entries change into the tables of the record store.

All of it inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from replicad.errors import ProtocolViolationError
from replicad.storage.indexes import Indexes
from replicad.storage.records_changes import Changes
from replicad.storage.records_schema import (
    INSERT_VERSIONS,
    insert,
    select_in,
)

# Rows deleted at once because their time has come, beyond twice the rows that are added.
_FORGOTTEN_AT_ONCE: Final = 200
_FORGET: Final = """
DELETE FROM requests WHERE entry_index <= (
    SELECT max(entry_index) FROM (
        SELECT entry_index, time FROM requests ORDER BY entry_index LIMIT ?
    ) WHERE time < ?
)
"""
_OLDEST: Final = "SELECT time FROM requests ORDER BY entry_index LIMIT 1"
_PRUNE: Final = """
DELETE FROM versions WHERE at IN (
    SELECT at FROM past WHERE until <= ? ORDER BY until LIMIT ?
)
"""


def write_changes(
    connection: sqlite3.Connection,
    changes: Changes,
    first: int,
    numbers: Mapping[str, int],
    indexes: Indexes,
) -> None:
    """Write everything but the requests.

    Args:
        connection: In a transaction.
        changes: What to write.
        first: The first entry's index.
        numbers: Of the collections that are new.
        indexes: What else is kept of the records.

    Raises:
        ProtocolViolationError: A record that is changed or deleted is not there.
    """
    for name, number in numbers.items():
        connection.execute("INSERT INTO collections VALUES (?, ?, 0)", (number, name))
    if changes.gone:
        _supersede(connection, changes, indexes)
    insert(connection, INSERT_VERSIONS, changes.past)
    insert(connection, INSERT_VERSIONS, changes.live)
    connection.executemany(
        "UPDATE collections SET records = records + ? WHERE number = ?",
        [(grown, number) for number, grown in changes.counts.items() if grown],
    )
    if not indexes.idle:
        indexes.added(changes.numbers, first, changes.last)


def _supersede(connection: sqlite3.Connection, changes: Changes, indexes: Indexes) -> None:
    """End the versions that were live before and are replaced or deleted."""
    keys: dict[int, list[str]] = defaultdict(list)
    for number, key in changes.gone:
        keys[number].append(key)
    query = "SELECT number, key, at FROM records WHERE number = ? AND key IN"
    found = [
        (changes.gone[number, key], at)
        for each, wanted in keys.items()
        for number, key, at in select_in(connection, query, [each], wanted)
    ]
    if len(found) != len(changes.gone):
        raise ProtocolViolationError(
            f"entries up to {changes.last} change {len(changes.gone)} records, "
            f"of which {len(found)} are there"
        )
    if not indexes.idle:
        indexes.removing([at for _, at in found])
    connection.executemany("UPDATE versions SET until = ? WHERE at = ?", found)


def forget_requests(connection: sqlite3.Connection, changes: Changes, before: str) -> str:
    """Forget some requests whose time has come, and those of them whose ids are used again.

    Args:
        connection: In a transaction.
        changes: Of the new entries, whose requests are not there yet.
        before: Requests of entries older than this count as forgotten.

    Returns:
        The time of the oldest that is left; "" if none is.
    """
    most = 2 * len(changes.requests) + _FORGOTTEN_AT_ONCE
    if connection.execute(_FORGET, (most, before)).rowcount == most:  # There may be more.
        query = "SELECT entry_index FROM requests WHERE time < ? AND request IN"
        used = select_in(connection, query, [before], list(changes.requests))
        connection.executemany("DELETE FROM requests WHERE entry_index = ?", used)
    oldest = connection.execute(_OLDEST).fetchone()
    return str(oldest[0]) if oldest else ""


def prune_past(connection: sqlite3.Connection, changes: Changes, upto: int) -> bool:
    """Give up some versions that entries up to `upto` replaced; whether there may be more.

    Args:
        connection: In a transaction.
        changes: Of the new entries.
        upto: See above.
    """
    most = 2 * (len(changes.gone) + len(changes.past)) + _FORGOTTEN_AT_ONCE
    return connection.execute(_PRUNE, (upto, most)).rowcount == most
