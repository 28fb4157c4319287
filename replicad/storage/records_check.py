"""Compares rows of the record store with the log entries they come from, and puts them back.

A version that was replaced is compared twice: all of it with the entry that wrote it, its end with
the entry that ended it. Each mending needs only the entries at hand, and believes the rest of the
rows; so what was wrong in several places is right after the next pass at the latest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from replicad.storage.places import INDEX_MAX, LIVE, at_of, index_of, last_at_of, position_of
from replicad.storage.records_changes import Changes, Name
from replicad.storage.records_schema import INSERT_REQUESTS, Row, insert, select_in

_WRITTEN: Final = """
SELECT at, number, key, until, CAST(value AS BLOB), genero FROM versions WHERE at BETWEEN ? AND ?
"""
_ENDED: Final = "SELECT at, number, key, until FROM past WHERE until BETWEEN ? AND ?"
# From the index alone.
_PLACE: Final = "SELECT at FROM versions WHERE number = ? AND key = ? AND until = ?"
_REQUESTS: Final = "SELECT * FROM requests WHERE entry_index BETWEEN ? AND ?"

_LAST_UNTIL: Final = """
SELECT max(until) FROM versions
WHERE number = ? AND key = ? AND at BETWEEN ? AND ? AND until BETWEEN ? AND ?
"""
_REMOVE: Final = "DELETE FROM versions WHERE at = ? AND number = ?"
_REMOVE_WRITTEN: Final = """
DELETE FROM versions WHERE number = ? AND key = ? AND (at BETWEEN ? AND ? OR at > ?)
"""
_EARLIER: Final = """
SELECT at FROM versions
WHERE number = ? AND key = ? AND at < ? AND (until BETWEEN ? AND ? OR until = ?)
"""
_LATEST: Final = "SELECT max(at) FROM versions WHERE number = ? AND key = ? AND at < ?"
_NEXT: Final = "SELECT min(at) FROM versions WHERE number = ? AND key = ? AND at > ?"
# A record has no two versions with the same end, also while ends are being set.
_FREE_END: Final = "UPDATE versions SET until = -at WHERE at = ?"
_SET_END: Final = "UPDATE OR REPLACE versions SET until = ? WHERE at = ?"
_PUT: Final = "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)"
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
        rows: Places and collection numbers of rows that should not be there, or be others.
    """

    entries: frozenset[int]
    names: frozenset[Name]
    rows: frozenset[tuple[int, int]]

    @property
    def numbers(self) -> set[int]:
        """Of the collections to which any of them belongs."""
        return {number for number, _ in self.names} | {number for _, number in self.rows}


def find_wrong(connection: sqlite3.Connection, stretch: Stretch, numbers: Iterable[int]) -> Wrong:
    """Compare the rows of a stretch with its entries.

    Args:
        connection: To the record store.
        stretch: What should be there.
        numbers: Of all collections.
    """
    # Lanes may be shared.
    lanes = {(at_of(n, stretch.first), last_at_of(n, stretch.last_end)) for n in numbers}
    written = {row[0]: row for lane in lanes for row in connection.execute(_WRITTEN, lane)}
    found, rows = _wrong_versions(connection, stretch, written)
    ends, strays = _wrong_ends(connection, stretch, written)
    found += ends
    entries = {index for index, _ in found} | _wrong_requests(connection, stretch)
    entries |= {index_of(at) for at, _ in rows}
    names = frozenset(name for _, name in found)
    return Wrong(frozenset(entries), names, frozenset(rows + strays))


def _wrong_versions(
    connection: sqlite3.Connection, stretch: Stretch, written: Mapping[int, Row]
) -> tuple[list[tuple[int, Name]], list[tuple[int, int]]]:
    """Versions that these entries wrote of which the rows are wrong, and rows to be removed."""
    changes = stretch.changes
    superfluous = dict(written)
    wrong, rows = [], []
    for row in chain(changes.past, changes.rows.values()):
        at, number, key, until, *_ = row
        stored = superfluous.pop(at, None)
        if stored is None:
            # Of a version that is live after these entries nothing tells when it ended.
            if (index_of(at) if until == LIVE else until) > stretch.since:
                wrong.append((index_of(at), (number, key)))
            continue
        if until == LIVE and changes.last < stored[3] <= stretch.applied:
            until = stored[3]
        is_right = stored == (at, number, key, until, *row[4:])
        if not is_right or not _is_found(connection, at, (number, key), until):
            wrong.append((index_of(at), (number, key)))
            if stored[1:3] != (number, key):
                rows.append((at, stored[1]))
    return wrong, rows + [(at, number) for at, number, *_ in superfluous.values()]


def _wrong_ends(
    connection: sqlite3.Connection, stretch: Stretch, written: Container[int]
) -> tuple[list[tuple[int, Name]], list[tuple[int, int]]]:
    """Entries that ended an earlier version of which the row is wrong, and rows in no lane."""
    above = max(stretch.first - 1, stretch.since)
    missing = {name: until for name, until in stretch.changes.gone.items() if until > above}
    wrong, strays = [], []
    for at, number, key, until in connection.execute(_ENDED, (above + 1, stretch.last_end)):
        if at in written:
            continue  # Compared as a whole.
        name = number, key
        if at != at_of(number, index_of(at), position_of(at)):
            wrong.append((until, name))
            strays.append((at, number))
        elif missing.get(name) == until and _is_found(connection, at, name, until):
            del missing[name]
        else:
            wrong.append((until, name))
    return wrong + [(until, name) for name, until in missing.items()], strays


def _is_found(connection: sqlite3.Connection, at: int, name: Name, until: int) -> bool:
    """Whether the index of keys has a version."""
    return bool(connection.execute(_PLACE, (*name, until)).fetchone() == (at,))


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
    connection.executemany(_REMOVE, wrong.rows)
    for name in sorted(wrong.names):
        _put_back(connection, stretch, name)
    connection.execute(_RECOUNT)
    bounds = stretch.first, changes.last
    connection.execute("DELETE FROM requests WHERE entry_index BETWEEN ? AND ?", bounds)
    remembered = [r for r in changes.requests.values() if r[1] >= stretch.forgets_before]
    query = "SELECT entry_index FROM requests WHERE request IN"  # Under a wrong index, too.
    misplaced = select_in(connection, query, [], [row[5] for row in remembered])
    connection.executemany("DELETE FROM requests WHERE entry_index = ?", misplaced)
    insert(connection, INSERT_REQUESTS, remembered)


def _put_back(connection: sqlite3.Connection, stretch: Stretch, name: Name) -> None:
    """Put the rows of one record back: its versions by these entries, and what these ended."""
    changes, number = stretch.changes, name[0]
    low, high = at_of(number, stretch.first), last_at_of(number, changes.last)
    bounds = low, high, changes.last + 1, stretch.applied
    (until,) = connection.execute(_LAST_UNTIL, (*name, *bounds)).fetchone()
    written = low, high, last_at_of(number, stretch.applied)
    connection.execute(_REMOVE_WRITTEN, (*name, *written))
    end = changes.gone.get(name)
    earlier = _earlier(connection, stretch, name, end)
    connection.executemany(_FREE_END, [(at,) for at in earlier])
    rows = [row for row in changes.past if row[1:3] == name]
    live = changes.rows.get(name)
    if live is not None:
        rows.append((*live[:3], until or _next_index(connection, name, high), *live[4:]))
    connection.executemany(_PUT, [row for row in rows if row[3] > stretch.since])
    for at in earlier:
        connection.execute(_SET_END, (end or _next_index(connection, name, at), at))
        end = None  # Of the others each ended where the next one begins.


def _earlier(
    connection: sqlite3.Connection, stretch: Stretch, name: Name, end: int | None
) -> list[int]:
    """Places of earlier versions, latest first, that say to have ended by these entries or never.

    If an entry at `end` has ended one, it was the latest, whatever that says.
    """
    low = at_of(name[0], stretch.first)
    bounds = low, stretch.first, stretch.last_end, LIVE
    earlier = {at for (at,) in connection.execute(_EARLIER, (*name, *bounds))}
    if end is not None:
        (latest,) = connection.execute(_LATEST, (*name, low)).fetchone()
        earlier |= set() if latest is None else {latest}
    return sorted(earlier, reverse=True)


def _next_index(connection: sqlite3.Connection, name: Name, at: int) -> int:
    """The entry that wrote a record's next version after a place; LIVE if there is none."""
    (following,) = connection.execute(_NEXT, (*name, at)).fetchone()
    return LIVE if following is None else index_of(following)
