"""Finds records by key and writes by request id, in what was taken and in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from replicad.core.events import Earlier
from replicad.storage.places import index_of
from replicad.storage.records_changes import Changes
from replicad.storage.records_schema import select_in

_PLACES: Final = "SELECT key, at FROM records WHERE number = ? AND key IN"
_LIVE: Final = "SELECT key, at, CAST(value AS BLOB) FROM records WHERE number = ? AND key IN"
_EARLIER: Final = """
SELECT request, entry_index, fingerprint, done FROM requests WHERE time >= ? AND request IN
"""
_WRITTEN: Final = """
SELECT entry_index, collection, key, done, time FROM requests WHERE request = ? AND time >= ?
"""

Name = tuple[str, str]
"""A record: its collection and its key."""


class Stored(NamedTuple):
    """A live record: the index of the entry that wrote it, and its value."""

    version: int
    value: bytes


class Written(NamedTuple):
    """What one write has done.

    Attributes:
        at: The index of its entry.
        collection: Whose records.
        key: Of the one record; None if there were several.
        done: What it did to each of them: letters of `entry.DONE`.
        time: Of its entry.
    """

    at: int
    collection: str
    key: str | None
    done: str
    time: str


def find_versions(
    connection: sqlite3.Connection, taken: Changes, number: int, keys: Sequence[str]
) -> dict[str, int]:
    """The versions, by their keys, of those of a collection's records that there are."""
    live, elsewhere = taken.find(number, keys)
    places = [(row[2], row[0]) for row in live]
    places += select_in(connection, _PLACES, [number], elsewhere)
    return {key: index_of(at) for key, at in places}


def find_live(
    connection: sqlite3.Connection, taken: Changes, number: int, keys: Sequence[str]
) -> Iterator[tuple[str, Stored]]:
    """The same with their values."""
    live, elsewhere = taken.find(number, keys)
    for at, _, key, _, value, _ in live:
        yield key, Stored(index_of(at), value)
    for key, at, value in select_in(connection, _LIVE, [number], elsewhere):
        yield key, Stored(index_of(at), value)


def find_earlier(
    connection: sqlite3.Connection, taken: Changes, requests: Sequence[str], since: str
) -> dict[str, Earlier]:
    """The entries, not older than `since`, that carry these request ids."""
    rows = select_in(connection, _EARLIER, [since], requests)
    earlier = {request: Earlier(*found) for request, *found in rows}
    for request in requests:
        row = taken.requests.get(request)
        if row is not None and row[1] >= since:
            at, _, _, _, done, _, fingerprint = row
            earlier[request] = Earlier(at, fingerprint, done)
    return earlier


def find_written(connection: sqlite3.Connection, request: str, since: str) -> Written | None:
    """What the write with this request id has done, if that is in the file and not older."""
    row = connection.execute(_WRITTEN, (request, since)).fetchone()
    return None if row is None else Written(*row)
