"""Where a version of a record stands in the record store: a number that says all about its entry.

Bits 53 and up are the lane of the record's collection, bits 10 to 52 the index of the entry that
wrote it, the lowest ten the position among that entry's changes. So the records of a collection
lie together, in the order in which they were written. Collections share a lane when there are
more than 1024; places are unique nevertheless, because no two share index and position.

Source: docs/log-format.md, "The record store".
"""

from __future__ import annotations

from typing import Final

INDEX_MAX: Final = (1 << 43) - 1
LIVE: Final = INDEX_MAX
"""Where a version ends that has not been replaced: no entry can have this index."""
_INDEX_SHIFT: Final = 10
_LANE_SHIFT: Final = 53
_LANES: Final = 1024
_POSITION_MAX: Final = (1 << _INDEX_SHIFT) - 1


def at_of(number: int, index: int, position: int = 0) -> int:
    """The place of what the change at `position` of an entry wrote in the collection `number`."""
    return (number % _LANES) << _LANE_SHIFT | index << _INDEX_SHIFT | position


def last_at_of(number: int, index: int) -> int:
    """The last place in the collection `number` that an entry up to `index` can have."""
    return at_of(number, min(index, INDEX_MAX), _POSITION_MAX)


def no_later(index: int) -> int:
    """The index, or if no entry can have it the last one that can: what is LIVE outlives it."""
    return min(index, INDEX_MAX - 1)


def index_of(at: int) -> int:
    """The index of the entry at a place, which is the record's version."""
    return at >> _INDEX_SHIFT & INDEX_MAX


def position_of(at: int) -> int:
    """The position among its entry's changes."""
    return at & _POSITION_MAX
