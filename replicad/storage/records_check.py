"""Compares rows of the record store with the log entries they come from, and puts them back.

A version that was replaced is compared twice: its value with the entry that wrote it, its end with
the entry that ended it. Each mending needs only the entries at hand, and believes the rest of the
rows; so what was wrong in several places is right after the next pass at the latest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from replicad.storage.places import INDEX_MAX, at_of, index_of, last_at_of, position_of
from replicad.storage.records_changes import Changes, Name, row_of
from replicad.storage.records_schema import (
    INSERT_PAST,
    INSERT_RECORDS,
    INSERT_REQUESTS,
    Past,
    insert,
    select_in,
)

_LIVE: Final = """
SELECT at, number, key, CAST(value AS BLOB), genero FROM records WHERE at BETWEEN ? AND ?
"""
_PAST: Final = """
SELECT until, CAST(value AS BLOB) FROM past WHERE number = ? AND key = ? AND at = ?
"""
_PLACE: Final = "SELECT at FROM records WHERE number = ? AND key = ?"  # From the index alone.
_ENDED: Final = "SELECT number, key, at, until FROM past WHERE until BETWEEN ? AND ?"
_REQUESTS: Final = "SELECT * FROM requests WHERE entry_index BETWEEN ? AND ?"
_NEXT: Final = """
SELECT min(at) FROM (
    SELECT at FROM records WHERE number = ?1 AND key = ?2 AND at > ?3
    UNION ALL SELECT at FROM past WHERE number = ?1 AND key = ?2 AND at > ?3
)
"""
_LAST_UNTIL: Final = """
SELECT max(until) FROM past
WHERE number = ? AND key = ? AND at BETWEEN ? AND ? AND until BETWEEN ? AND ?
"""
_TO_PAST: Final = """
INSERT OR IGNORE INTO past SELECT number, key, at, ?4, value FROM records
WHERE number = ?1 AND key = ?2 AND at < ?3
"""
_REMOVE: Final = "DELETE FROM records WHERE number = ? AND key = ? AND at < ?"
_REMOVE_PAST: Final = "DELETE FROM past WHERE number = ? AND key = ? AND at = ?"
_EARLIER: Final = """
SELECT at, CAST(value AS BLOB) FROM past
WHERE number = ? AND key = ? AND at < ? AND until BETWEEN ? AND ? ORDER BY at DESC
"""
_SET_UNTIL: Final = "UPDATE past SET until = ?4 WHERE number = ?1 AND key = ?2 AND at = ?3"
_END_LATEST: Final = """
UPDATE past SET until = ?4 WHERE number = ?1 AND key = ?2 AND at = (
    SELECT max(at) FROM past WHERE number = ?1 AND key = ?2 AND at < ?3
)
"""
_RECOUNT: Final = """
UPDATE collections
SET records = (SELECT count(*) FROM records WHERE records.number = collections.number)
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Entries that were applied and follow each other, and what they say.

    Attributes:
        first: The first one's index.
        changes: Of all of them.
        applied: The index of the last entry applied; versions end there at the latest.
        since: Versions that entries up to here have replaced may be missing.
        forgets_before: Requests of entries older than this time may be missing.
    """

    first: int
    changes: Changes
    applied: int
    since: int
    forgets_before: str

    @property
    def last_end(self) -> int:
        """Up to which entry rows are compared here: also with those that are not there yet."""
        return INDEX_MAX if self.changes.last == self.applied else self.changes.last


@dataclass(frozen=True, slots=True)
class Wrong:
    """What does not agree with a stretch of entries.

    Attributes:
        entries: Indexes of the entries that rows are missing of, or differ from.
        names: Records whose rows are to be put back.
        live: Places and collection numbers of live rows that should not be there, or be others.
        strays: Names and places of past rows that are in no record's lane.
    """

    entries: frozenset[int]
    names: frozenset[Name]
    live: frozenset[tuple[int, int]]
    strays: frozenset[tuple[int, str, int]]

    @property
    def numbers(self) -> set[int]:
        """Of the collections to which any of them belongs."""
        return {number for number, _ in self.names} | {number for _, number in self.live}


def find_wrong(connection: sqlite3.Connection, stretch: Stretch, numbers: Iterable[int]) -> Wrong:
    """Compare the rows of a stretch with its entries.

    Args:
        connection: To the record store.
        stretch: What should be there.
        numbers: Of all collections.
    """
    found, live = _wrong_versions(connection, stretch, numbers)
    ends, strays = _wrong_ends(connection, stretch)
    found += ends
    entries = {index for index, _ in found} | _wrong_requests(connection, stretch)
    entries |= {index_of(at) for at, _ in live}
    return Wrong(
        frozenset(entries),
        frozenset(name for _, name in found),
        frozenset(live),
        frozenset(strays),
    )


def _wrong_versions(
    connection: sqlite3.Connection, stretch: Stretch, numbers: Iterable[int]
) -> tuple[list[tuple[int, Name]], list[tuple[int, int]]]:
    """Versions of which the rows are wrong, and the live rows that are."""
    last = stretch.changes.last
    live: dict[int, tuple[int, int, str, bytes, str | None]] = {}
    # Lanes may be shared.
    bounds = {(at_of(n, stretch.first), last_at_of(n, stretch.last_end)) for n in numbers}
    for low, high in bounds:
        live |= {row[0]: row for row in connection.execute(_LIVE, (low, high))}
    wrong, rows = [], []
    for name, row in stretch.changes.rows.items():
        at = row[0]
        stored = live.pop(at, None)
        past = connection.execute(_PAST, (*name, at)).fetchone()
        if stored is None and past is None and index_of(at) <= stretch.since:
            continue
        is_past = past is not None and last < past[0] <= stretch.applied and past[1] == row[3]
        is_found = connection.execute(_PLACE, name).fetchone() == (at,)
        is_live = past is None and stored == row and is_found
        if not is_live and (stored is not None or not is_past):
            wrong.append((index_of(at), name))
            if stored is not None:
                rows.append((at, stored[1]))
    return wrong, rows + [(at, number) for at, number, *_ in live.values()]


def _wrong_ends(
    connection: sqlite3.Connection, stretch: Stretch
) -> tuple[list[tuple[int, Name]], list[tuple[int, str, int]]]:
    """Entries that ended a version of which the row is wrong, and past rows in no lane."""
    changes, above = stretch.changes, max(stretch.first - 1, stretch.since)
    here = {(*row[:3],): row for row in changes.past if row[3] > above}
    before = {name: until for name, until in changes.gone.items() if until > above}
    wrong, strays = [], []
    ends = connection.execute(_ENDED, (above + 1, stretch.last_end)).fetchall()
    for number, key, at, until in ends:
        name = number, key
        row = here.pop((number, key, at), None)
        if row is not None:
            stored = connection.execute(_PAST, (number, key, at)).fetchone()
            is_right = stored == (until, row[4]) and until == row[3]
        else:
            is_right = index_of(at) < stretch.first and before.pop(name, None) == until
        if not is_right:
            wrong.append((index_of(at) if row else until, name))
            if at != at_of(number, index_of(at), position_of(at)):
                strays.append((number, key, at))
    wrong += [(until, (number, key)) for number, key, _, until, _ in here.values()]
    return wrong + [(until, name) for name, until in before.items()], strays


def _wrong_requests(connection: sqlite3.Connection, stretch: Stretch) -> set[int]:
    rows = connection.execute(_REQUESTS, (stretch.first, stretch.changes.last)).fetchall()
    expected = {row[0]: row for row in stretch.changes.requests.values()}
    wrong = {row[0] for row in rows if expected.pop(row[0], None) != row}
    return wrong | {row[0] for row in expected.values() if row[1] >= stretch.forgets_before}


def put_back(connection: sqlite3.Connection, stretch: Stretch, wrong: Wrong) -> None:
    """Make what `find_wrong` has found what the entries say.

    Args:
        connection: In a transaction.
        stretch: What should be there.
        wrong: What was found, in the same transaction.
    """
    changes = stretch.changes
    connection.executemany("DELETE FROM records WHERE at = ? AND number = ?", wrong.live)
    connection.executemany(_REMOVE_PAST, wrong.strays)
    for name in sorted(wrong.names):
        ended = sorted(row for row in changes.past if row[:2] == name)
        _put_back(connection, stretch, name, ended)
    connection.execute(_RECOUNT)
    bounds = stretch.first, changes.last
    connection.execute("DELETE FROM requests WHERE entry_index BETWEEN ? AND ?", bounds)
    remembered = [r for r in changes.requests.values() if r[1] >= stretch.forgets_before]
    query = "SELECT entry_index FROM requests WHERE request IN"  # Under a wrong index, too.
    misplaced = select_in(connection, query, [], [row[5] for row in remembered])
    connection.executemany("DELETE FROM requests WHERE entry_index = ?", misplaced)
    insert(connection, INSERT_REQUESTS, remembered)


def _put_back(
    connection: sqlite3.Connection, stretch: Stretch, name: Name, ended: list[Past]
) -> None:
    """Put the rows of one record back: its versions by these entries, and what these ended."""
    changes = stretch.changes
    low, high = at_of(name[0], stretch.first), last_at_of(name[0], changes.last)
    bounds = low, high, changes.last + 1, stretch.applied
    (until,) = connection.execute(_LAST_UNTIL, (*name, *bounds)).fetchone()
    for table in ("records", "past"):
        connection.execute(
            f"DELETE FROM {table} WHERE number = ? AND key = ?"  # noqa: S608
            " AND (at BETWEEN ? AND ? OR at > ?)",
            (*name, low, high, last_at_of(name[0], stretch.applied)),
        )
    if until is None:
        until = _next_index(connection, name, high)
    live = changes.rows.get(name)
    end = changes.gone.get(name)
    if end is not None or ended or live:
        # There may be one that should have ended. If not here, the entry that ended it tells.
        connection.execute(_TO_PAST, (*name, low, end or changes.last))
        connection.execute(_REMOVE, (*name, low))
    insert(connection, INSERT_PAST, [row for row in ended if row[3] > stretch.since])
    if live is not None and until is None:
        insert(connection, INSERT_RECORDS, [live])
    elif live is not None and until > stretch.since:
        insert(connection, INSERT_PAST, [(*name, live[0], until, live[3])])
    if end is not None:
        connection.execute(_END_LATEST, (*name, low, end))
    _mend_ends(connection, name, low, (stretch.first, stretch.last_end), end)


def _mend_ends(
    connection: sqlite3.Connection, name: Name, low: int, bounds: tuple[int, int], end: int | None
) -> None:
    """Versions by earlier entries that do not end with these entries end with the next version."""
    ends = connection.execute(_EARLIER, (*name, low, *bounds)).fetchall()
    for at, value in ends[1:] if end is not None else ends:  # The latest one does.
        following = _next_index(connection, name, at)
        if following is None:
            connection.execute(_REMOVE_PAST, (*name, at))
            connection.execute(_REMOVE, (*name, at))
            insert(connection, INSERT_RECORDS, [row_of(*name, at, value)])
        else:
            connection.execute(_SET_UNTIL, (*name, at, following))


def _next_index(connection: sqlite3.Connection, name: Name, at: int) -> int | None:
    (following,) = connection.execute(_NEXT, (*name, at)).fetchone()
    return None if following is None else index_of(following)
