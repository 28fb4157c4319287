"""Reads the feed of changes out of one replica's log.

Only what is applied here is read, which is committed. A log may be long and hold little of what is
wanted: it is read in slices, between which everything else goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from replicad.core.entry import BATCH, kind_in, kind_of, split_lines, split_value
from replicad.core.feed import Cursor, LoggedChange, changes_in
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    LogFrontGoneError,
    MalformedEntryError,
)
from replicad.node.driver import Driver
from replicad.node.store import Store

_SLICE_BYTES: Final = 64 * 1024
# After so much without a change that is wanted the reader is told how far it got.
_SCAN_BYTES_MAX: Final = 8 * 1024 * 1024
PAGE_BYTES: Final = 1024 * 1024
"""A page ends with the change that reaches this size; so it has at most twice as much."""


@dataclass(slots=True)
class Page:
    """Changes that follow each other.

    Attributes:
        next: The place after all that was read, wanted or not; at first, where to begin.
        changes_max: Not more than these, at least 1.
        collection: Whose changes; None for all.
        upto: The last entry to be read; None for all that is applied.
        unwanted: Kinds of changes, `<collection>.<operation>`: an entry that holds nothing else
            need not be read as a whole.
        changes: In their order.
    """

    next: Cursor
    changes_max: int
    collection: str | None
    upto: int | None = None
    unwanted: Collection[str] = ()
    changes: list[LoggedChange] = field(default_factory=list)
    _bytes: int = field(default=0, init=False)

    @property
    def is_full(self) -> bool:
        """Whether no further change belongs on it."""
        return len(self.changes) >= self.changes_max or self._bytes >= PAGE_BYTES

    def take(self, index: int, line: bytes) -> bool:
        """Take what is wanted of entry `index`; False if some of it found no room."""
        for change in changes_in(line, self.collection):
            if not self.next.is_before(index, change.position):
                continue
            if self.is_full:
                return False
            self.changes.append(change)
            self._bytes += len(change.value or b"")
            if not change.is_last:
                self.next = change.cursor
        self.next = Cursor(index)
        return True


async def read_page(driver: Driver, page: Page) -> None:
    """Fill a page with what comes next, as far as it is applied here.

    It may have no changes afterwards although the log goes on: then read on.

    Raises:
        LogFrontGoneError: This replica's log begins later.
        CorruptLogError, DiskFailedError: The log cannot be read: this replica ends.
    """
    store, scanned = driver.store, 0
    while not (page.is_full or scanned >= _SCAN_BYTES_MAX or driver.stopped):
        first, upto = page.next.next_entry, store.records.applied.index
        if page.upto is not None:
            upto = min(upto, page.upto)
        if first < store.log.first:
            if page.changes:
                return  # They are good; the next page will say what is missing.
            raise LogFrontGoneError(f"the log begins with entry {store.log.first}")
        if first > upto:
            return
        last = store.log.fit(first, upto, _SLICE_BYTES)
        scanned += store.log.end_of(last) - store.log.end_of(first - 1)
        try:
            for index, line in _wanted_lines(store, first, last, page.unwanted):
                if not page.take(index, line):
                    return
        except (CorruptLogError, DiskFailedError) as error:
            driver.fail(error)
            raise
        page.next = Cursor(last)
        await asyncio.sleep(0)


def _wanted_lines(
    store: Store, first: int, last: int, unwanted: Collection[str]
) -> Iterator[tuple[int, bytes]]:
    """Entries, verified, except for some of which nothing is wanted."""
    if not unwanted:
        yield from enumerate(split_lines(store.read(first, last - first + 1)), first)
        return
    kinds = {kind_of(*kind.rsplit(".", 1)) for kind in unwanted}
    lines, log = store.read_unverified(first, last), store.log
    start = at = log.end_of(first - 1)
    for index in range(first, last + 1):
        end = log.end_of(index)
        # By where it should be: newlines are not verified either.
        line = lines[at - start : end - start - 1]
        at = end
        if b"\n" in line or not (kind_in(line) in kinds or _is_unwanted_batch(line, unwanted)):
            yield index, store.read(index, 1)[:-1]


def _is_unwanted_batch(line: bytes, unwanted: Collection[str]) -> bool:
    try:
        members, _ = split_value(line)
        return members["operation"] == BATCH and all(
            f"{members['collection']}.{done}" in unwanted for done, *_ in members["changes"]
        )
    except (MalformedEntryError, KeyError, TypeError, ValueError):
        return False  # Whoever verifies it will say what it is.
