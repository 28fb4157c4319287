"""Reads the record store page by page, as of an index.

What was replaced later is still there: so a page tells what was true then, whatever has been
applied since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from replicad.storage.places import at_of, index_of, last_at_of, no_later, position_of
from replicad.storage.snapshot import Record, Remembered

# Of the values in one page: bounds the memory of each reader, and how long it holds up everybody
# else.
PAGE_BYTES: Final = 128 * 1024
# Rows looked at for one page, of which all may be nothing to be told.
_ROWS_AT_ONCE: Final = 1000
_REQUESTS_AT_ONCE: Final = 500

# Of what is nothing to be told the value is NULL. Such rows are given all the same, so that what
# is passed over can be counted. Others may be in the collection's lane.
_SCAN: Final = """
SELECT at, CASE WHEN until > ?4 AND number = ?1 THEN CAST(value AS BLOB) END FROM versions
WHERE at > ?2 AND at <= ?3 ORDER BY at
"""
_SCAN_GENERO: Final = """
SELECT at, CASE WHEN until > ?4 THEN CAST(value AS BLOB) END FROM versions
WHERE number = ?1 AND genero = ?5 AND at > ?2 AND at <= ?3 ORDER BY at
"""
_BY_KEY: Final = """
SELECT key, until, at, CASE WHEN until > ?5 AND at <= ?4 THEN CAST(value AS BLOB) END FROM versions
WHERE number = ?1 AND (key, until) > (?2, ?3) ORDER BY key, until
"""
_REMEMBERED: Final = """
SELECT entry_index, time, collection, key, done, request, fingerprint FROM requests
WHERE entry_index > ? AND entry_index <= ? AND time >= ? ORDER BY entry_index LIMIT ?
"""


def scan_page(
    connection: sqlite3.Connection,
    number: int,
    *,
    after: int,
    upto: int,
    limit: int,
    genero: str | None,
) -> tuple[list[tuple[int, bytes]], int | None]:
    """The next page of a collection, as of `upto`; see Records.scan."""
    after, end = max(after, at_of(number, 0) - 1), last_at_of(number, upto)
    stretch = (number, after, end, no_later(upto))
    if genero is None:
        rows = connection.execute(_SCAN, stretch)
    else:
        rows = connection.execute(_SCAN_GENERO, (*stretch, genero.casefold()))
    page: list[tuple[int, bytes]] = []
    size = 0
    reached: int | None = after
    for visited, (at, value) in enumerate(rows):
        if visited == _ROWS_AT_ONCE or size >= PAGE_BYTES or len(page) == limit:
            break
        reached = at
        if value is not None:
            size += len(value)
            page.append((at, value))
    else:
        reached = None
    rows.close()
    return page, reached


Ending = tuple[str, int]
"""A version among all of its collection: the record's key, and when it ended or LIVE."""


def record_page(
    connection: sqlite3.Connection, collection: str, number: int, *, after: Ending, upto: int
) -> tuple[list[Record], Ending | None]:
    """The records of a collection as of `upto`, in the order of their keys.

    Returns:
        The next page of those after the version `after`, and the one to go on after; None when all
        were given.
    """
    end = last_at_of(number, upto)
    rows = connection.execute(_BY_KEY, (number, *after, end, no_later(upto)))
    page: list[Record] = []
    size = 0
    reached: Ending | None = after
    for visited, (key, until, at, value) in enumerate(rows):
        if visited == _ROWS_AT_ONCE or size >= PAGE_BYTES:
            break
        reached = key, until
        if value is not None:
            size += len(value)
            page.append(Record(index_of(at), position_of(at), collection, key, value))
    else:
        reached = None
    rows.close()
    return page, reached


def remembered_page(
    connection: sqlite3.Connection, *, after: int, upto: int, since: str
) -> list[Remembered]:
    """The next requests of entries above `after`, up to `upto` and not older than `since`."""
    rows = connection.execute(_REMEMBERED, (after, upto, since, _REQUESTS_AT_ONCE))
    return [Remembered(*row) for row in rows]


def snapshot_lines(
    connection: Callable[[], sqlite3.Connection],
    numbers: Mapping[str, int],
    upto: int,
    remembered_from: str,
) -> Iterator[bytes]:
    """The lines of a snapshot as of `upto`; see Records.snapshot_lines.

    Args:
        connection: Tells the one to read by: the file may be replaced meanwhile.
        numbers: Of all collections.
        upto: As there.
        remembered_from: As there.
    """
    for collection, number in sorted(numbers.items()):
        after: Ending | None = ("", 0)
        while after is not None:
            page, after = record_page(connection(), collection, number, after=after, upto=upto)
            yield from (record.encode() for record in page)
    last = 0
    while remembered := remembered_page(connection(), after=last, upto=upto, since=remembered_from):
        last = remembered[-1].index
        yield from (each.encode() for each in remembered)
