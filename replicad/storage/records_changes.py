"""What log entries change in the record store, as rows of its tables.

Source: docs/log-format.md, "The record store".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

import orjson

from replicad.core.entry import DONE, EPOCH, INSERT, BareChange, changes_of, split_value
from replicad.errors import MalformedEntryError, ProtocolViolationError
from replicad.storage.places import LIVE, at_of, index_of
from replicad.storage.records_schema import Request, Row
from replicad.storage.snapshot import forget_before

LETTERS: Final = {operation: letter for letter, operation in DONE.items()}
_GENERO: Final = b'"genero":"'

Name = tuple[int, str]
"""A record: the number of its collection, and its key."""


class Changes:
    """What some entries that follow each other amount to.

    Attributes:
        last: The last one's index.
        time: Its time; "" if there is no entry.
        gone: Records that were there before and were written or deleted since, each with the
            index of the first entry that did.
        past: Rows of `versions` that these entries wrote and replaced.
        requests: Rows of `requests`, by request id.
        numbers: Of the collections whose records they change.
        bytes: The size of their lines.
    """

    def __init__(self, after: int, number_of: Callable[[str], int]) -> None:
        """Nothing yet, of the entries after index `after`.

        Args:
            after: See above.
            number_of: Tells the number of a collection.
        """
        self.last = after
        self.time = ""
        self.bytes = 0
        self.gone: dict[Name, int] = {}
        self.past: list[Row] = []
        self.requests: dict[str, Request] = {}
        self._rows: dict[Name, Row] = {}
        self._inserted: list[Row] = []  # And not in `_rows` yet: most are never looked for.
        self._number_of = number_of
        self._known: dict[str, int] = {}

    @property
    def numbers(self) -> Collection[int]:
        """See above."""
        return self._known.values()

    def touches(self, collection: str) -> bool:
        """Whether they change any of its records."""
        return collection in self._known

    @property
    def live(self) -> Collection[Row]:
        """Rows of `versions` that are live after them, in the order of their entries."""
        return self.rows.values() if self._rows else self._inserted

    @property
    def rows(self) -> dict[Name, Row]:
        """The same by their names."""
        for row in self._inserted:
            name = row[1], row[2]
            if name in self._rows:
                index = index_of(row[0])
                raise ProtocolViolationError(f"entry {index} inserts {row[2]}, which is there")
            self._rows[name] = row
        self._inserted.clear()
        return self._rows

    def find(self, number: int, keys: Sequence[str]) -> tuple[list[Row], list[str]]:
        """Rows of those of the records that these entries wrote, and keys they do not mention.

        Args:
            number: Of a collection.
            keys: Of records in it.
        """
        rows, gone = self.rows, self.gone
        if not rows and not gone:
            return [], [*keys]
        found: list[Row] = []
        others: list[str] = []
        for key in keys:
            row = rows.get((number, key))
            if row is not None:
                found.append(row)
            elif (number, key) not in gone:
                others.append(key)
        return found, others

    @property
    def counts(self) -> Counter[int]:
        """By how much the number of live records of each collection changes."""
        counts = Counter(row[1] for row in self.live)
        counts.subtract(number for number, _ in self.gone)
        return counts

    def add(self, lines: Iterable[bytes]) -> None:
        """Take the next entries.

        Args:
            lines: Verified lines, without newlines.

        Raises:
            ProtocolViolationError: They do not follow, or contradict themselves.
            MalformedEntryError: One is not an entry.
        """
        known, requests = self._known, self.requests
        for line in lines:
            entry, value = split_value(line)
            self.bytes += len(line)
            self.last = index = self.last + 1
            try:
                if not value.isascii():
                    value.decode()  # SQLite would take any bytes for text.
                if entry["index"] != index:
                    raise ProtocolViolationError(f"entry {entry['index']} to be applied as {index}")
                self.time = time = entry["time"]
                operation = entry["operation"]
                if operation == EPOCH:
                    continue
                collection, key, request = entry["collection"], entry["key"], entry["request"]
                number = known.get(collection)
                if number is None:
                    number = known[collection] = self._number_of(collection)
                if operation == INSERT:  # By far the most.
                    at = at_of(number, index)
                    self._inserted.append((at, number, key, LIVE, value, genero_of(value)))
                    done = "i"
                else:
                    done = self._change(number, changes_of(entry, value))
                if request in requests:
                    self._assert_forgotten(request)
                fingerprint = entry["fingerprint"]
                requests[request] = (index, time, collection, key, done, request, fingerprint)
            except KeyError as error:
                raise MalformedEntryError(f"entry {index} lacks {error}") from error
            except UnicodeDecodeError as error:
                raise MalformedEntryError(f"entry {index} is not UTF-8: {error}") from error

    def _change(self, number: int, changes: Iterable[BareChange]) -> str:
        """Do what the last entry does; returns the letters that stand for it."""
        done = ""
        for at, (operation, key, value) in enumerate(changes, at_of(number, self.last)):
            if operation != INSERT:
                self._end(number, key)
            if value is not None:
                self._inserted.append((at, number, key, LIVE, value, genero_of(value)))
            done += LETTERS[operation]
        return done

    def _end(self, number: int, key: str) -> None:
        """The record's version ends with the last entry."""
        name = number, key
        row = self.rows.pop(name, None)
        if row is not None:
            at, _, _, _, value, genero = row
            self.past.append((at, number, key, self.last, value, genero))
        elif name not in self.gone:
            self.gone[name] = self.last
        else:
            raise ProtocolViolationError(f"entry {self.last} changes {key}, which is deleted")

    def _assert_forgotten(self, request: str) -> None:
        if self.requests.pop(request)[1] >= forget_before(self.time):
            raise ProtocolViolationError(f"entry {self.last} repeats request {request}")


def genero_of(value: bytes) -> str | None:
    """What the listings by `genero` compare: folded; None if there is no such text."""
    if b"\\" not in value and value.find(b"{", 1) < 0:
        # Each name is one of its own, and each quote begins or ends a text: no need to decode it.
        at = value.find(_GENERO)
        if at >= 0:
            start = at + len(_GENERO)
            return value[start : value.index(b'"', start)].decode().casefold()
        if b'"genero"' not in value:
            return None
    genero = orjson.loads(value).get("genero")
    return genero.casefold() if isinstance(genero, str) else None
