"""What happened to a record, and what the time was then, out of the records and the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from replicad.core.entry import DELETE, INSERT, UPDATE
from replicad.node.driver import Driver
from replicad.storage.records_versions import Version

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of values: a page ends with the one that reaches this size."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What an entry did to the record.

    Attributes:
        index, time, digest: The entry's.
        operation: INSERT, UPDATE or DELETE.
        value: What the record was then; None if it was deleted.
    """

    index: int
    time: str
    operation: str
    digest: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A part of a record's history.

    Attributes:
        happenings: Oldest first.
        next: The entry after which to go on; None if that was all.
        first: What happened before this entry is not known any more.
    """

    happenings: list[Happening]
    next: int | None
    first: int


async def read_history(
    driver: Driver, collection: str, key: str, *, after: int, limit: int
) -> HistoryPage:
    """What happened to a record.

    Args:
        driver: Of the replica that is asked.
        collection: Whose record.
        key: Its id.
        after: Only what entries above this one did.
        limit: How much at most.

    Raises:
        CorruptLogError: The log is damaged: this replica must end, to be repaired.
        RecordsDamagedError: The record store is damaged.
    """
    store = driver.store
    first = max(store.log.first, store.records.since + 1)
    after = max(after, first - 1)
    prior = store.records.version_at(collection, key, after)
    # Where these end before the last one, the page ends, too.
    versions = store.records.versions_of(
        collection, key, after=after, limit=limit, bytes_max=PAGE_BYTES
    )
    happened: list[Happening] = []
    count, size, last = 0, 0, after
    for index, operation, value in _changes(prior, versions):
        if index <= after:
            continue
        if count == limit or size >= PAGE_BYTES:
            return HistoryPage(happened, last, first)
        count, size, last = count + 1, size + len(value or b""), index
        await asyncio.sleep(0)  # To read an entry may take a while: it may be large.
        if index >= store.log.first:  # Its segment may have been dropped just now.
            time, digest = store.time_of(index), store.log.digest_at(index)
            happened.append(Happening(index, time, operation, digest, value))
    return HistoryPage(happened, None, first)


def _changes(
    prior: Version | None, versions: list[Version]
) -> Iterator[tuple[int, str, bytes | None]]:
    """What each entry did, out of the versions that it began and ended."""
    known = versions if prior is None else [prior, *versions]
    ended = None
    for version, following in zip_longest(known, known[1:]):
        yield version.entry, UPDATE if ended == version.entry else INSERT, version.value
        ended = version.until
        if ended is not None and (following is None or following.entry != ended):
            yield ended, DELETE, None


async def index_at(driver: Driver, time: str) -> int | None:
    """The last applied entry that is not later than a time; None if the log begins later.

    Args:
        driver: Of the replica that is asked.
        time: RFC 3339 in UTC with milliseconds, as in entries.

    Raises:
        CorruptLogError: The log is damaged: this replica must end, to be repaired.
    """
    store = driver.store
    low, high = store.log.base.index, store.records.applied.index
    # Times never decrease: whatever is at `low` or before is not later, if anything is.
    while low < high:
        middle = (low + high + 1) // 2
        await asyncio.sleep(0)
        if middle < store.log.first or store.time_of(middle) <= time:  # Dropped meanwhile.
            low = middle
        else:
            high = middle - 1
    return low if low >= store.log.first or store.log.base.index == 0 else None
