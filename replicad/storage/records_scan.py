"""Reads the record store page by page, as of an index.

What was replaced later is in the table `past`: so a page tells what was true then, whatever has
been applied since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from heapq import merge
from operator import itemgetter
from typing import Final

from replicad.storage.places import at_of, index_of, last_at_of, position_of
from replicad.storage.records_changes import genero_of
from replicad.storage.snapshot import Record, Remembered

# Of the values in one page: bounds the memory of each reader, and how long it holds up everybody
# else.
PAGE_BYTES: Final = 128 * 1024
# Rows looked at for one page, of which all may be nothing to be told.
_ROWS_AT_ONCE: Final = 1000
# Of the past, in one page.
_KEYS_AT_ONCE: Final = 1000
_REQUESTS_AT_ONCE: Final = 500

# Place, whether the value is in the past, else the value. Neither: nothing to be told. Such rows
# are given all the same, so that what is passed over can be counted.
_SCAN: Final = """
SELECT at, 0, CASE number WHEN ?1 THEN CAST(value AS BLOB) END FROM records
WHERE at > ?2 AND at <= ?3 ORDER BY at
"""  # Others may be in the collection's lane.
_SCAN_GENERO: Final = """
SELECT at, 0, CAST(value AS BLOB) FROM records
WHERE number = ?1 AND genero = ?4 AND at > ?2 AND at <= ?3 ORDER BY at
"""
_SCAN_PAST: Final = """
SELECT at, until > ?4, NULL FROM past INDEXED BY past_by_place
WHERE number = ?1 AND at > ?2 AND at <= ?3 ORDER BY at
"""
_PAST_VALUE: Final = "SELECT CAST(value AS BLOB) FROM past WHERE number = ? AND at = ?"
_BY_KEY: Final = """
SELECT key, at, CAST(value AS BLOB) FROM records
WHERE number = ? AND key > ? ORDER BY key
"""
# From key to key, however many versions each of them has.
_PAST_BY_KEY: Final = """
WITH RECURSIVE keys(key) AS (
    SELECT (SELECT key FROM past WHERE number = ?1 AND key > ?2 ORDER BY key LIMIT 1)
    UNION ALL
    SELECT (SELECT key FROM past WHERE number = ?1 AND key > keys.key ORDER BY key LIMIT 1)
    FROM keys WHERE keys.key IS NOT NULL
    LIMIT ?4
)
SELECT keys.key, latest.at, latest.until FROM keys LEFT JOIN past AS latest ON latest.rowid = (
    SELECT rowid FROM past WHERE number = ?1 AND key = keys.key AND at <= ?3
    ORDER BY at DESC LIMIT 1
) WHERE keys.key IS NOT NULL
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
    stretch = (number, after, end)
    if genero is None:
        live = connection.execute(_SCAN, stretch)
    else:
        genero = genero.casefold()
        live = connection.execute(_SCAN_GENERO, (*stretch, genero))
    past = connection.execute(_SCAN_PAST, (*stretch, upto))
    page: list[tuple[int, bytes]] = []
    size = 0
    reached: int | None = after
    for visited, (at, is_past, value) in enumerate(merge(live, past, key=itemgetter(0))):
        if visited == _ROWS_AT_ONCE or size >= PAGE_BYTES or len(page) == limit:
            break
        reached = at
        if is_past:
            value = _past_value(connection, number, at)
            size += len(value)
            if genero is None or genero_of(value) == genero:
                page.append((at, value))
        elif value is not None:
            size += len(value)
            page.append((at, value))
    else:
        reached = None
    live.close()
    past.close()
    return page, reached


def record_page(
    connection: sqlite3.Connection, collection: str, number: int, *, after: str, upto: int
) -> tuple[list[Record], str | None]:
    """The records of a collection as of `upto`, in the order of their keys.

    Returns:
        The next page of those after the key `after`, and the key to go on after; None when all
        were given.
    """
    found = connection.execute(
        _PAST_BY_KEY, (number, after, last_at_of(number, upto), _KEYS_AT_ONCE)
    ).fetchall()
    past = [(key, at, None) for key, at, until in found if at is not None and until > upto]
    bound = found[-1][0] if len(found) == _KEYS_AT_ONCE else None
    live = connection.execute(_BY_KEY, (number, after))
    page: list[Record] = []
    size = 0
    row: tuple[str, int, bytes | None]
    for visited, row in enumerate(merge(live, past)):
        key, at, value = row
        if bound is not None and key > bound:
            break
        if size >= PAGE_BYTES or visited == _KEYS_AT_ONCE:
            bound = after
            break
        after = key
        if index_of(at) <= upto:
            if value is None:
                value = _past_value(connection, number, at)
            page.append(Record(index_of(at), position_of(at), collection, key, value))
            size += len(value)
    live.close()
    return page, bound


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
        after: str | None = ""
        while after is not None:
            page, after = record_page(connection(), collection, number, after=after, upto=upto)
            yield from (record.encode() for record in page)
    last = 0
    while remembered := remembered_page(connection(), after=last, upto=upto, since=remembered_from):
        last = remembered[-1].index
        yield from (each.encode() for each in remembered)


def _past_value(connection: sqlite3.Connection, number: int, at: int) -> bytes:
    (value,) = connection.execute(_PAST_VALUE, (number, at)).fetchone()
    return bytes(value)
