"""The feed of changes: what the committed log says was done to records, in order.

Each change has a place, the index of its entry and its position there, the same on every replica.
So whoever follows the feed may go on at any replica, after the last change that it has seen.

Source: docs/api.md, "Change feed".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from replicad.core.entry import DIGEST_BYTES, changes_of, split_value

# Log indexes fit into 63 bits.
_CURSOR: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two changes.

    Attributes:
        index: Of the entry that it stands after, or in; 0 stands before all.
        position: Of the change, in that entry, that it stands after; None after the whole entry.
    """

    index: int
    position: int | None = None

    def __str__(self) -> str:
        """`INDEX`, or `INDEX.POSITION`."""
        return str(self.index) if self.position is None else f"{self.index}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The inverse of `str`.

        Raises:
            ValueError: It is no cursor.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:40]!r} is no cursor")
        index = int(match[1])
        # Before the first entry there is no change to stand after.
        return cls(index, None if match[2] is None or index == 0 else int(match[2]))

    @property
    def next_entry(self) -> int:
        """The entry to read next: another one, or what is left of this one."""
        return self.index + 1 if self.position is None else self.index

    def is_before(self, index: int, position: int) -> bool:
        """Whether this change comes after the cursor."""
        if index != self.index:
            return index > self.index
        return self.position is not None and position > self.position


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """One change with all that is told about it.

    Attributes:
        index, position: Its place.
        is_last: Whether it is the last one of its entry.
        epoch, time: Of the entry.
        operation: INSERT, UPDATE or DELETE.
        collection, key: Of the record.
        value: The record as stored; None for DELETE.
        digest: Of the entry, in hex.
    """

    index: int
    position: int
    is_last: bool
    epoch: int
    time: str
    operation: str
    collection: str
    key: str
    value: bytes | None
    digest: str

    @property
    def cursor(self) -> Cursor:
        """The place after it."""
        return Cursor(self.index, None if self.is_last else self.position)

    def encode(self) -> bytes:
        """The JSON object that is told about it; the value's bytes stand in it as stored."""
        return (
            b'{"index":%d,"position":%d,"time":"%b","operation":"%b","collection":%b,"id":%b,'
            b'"value":%b,"digest":"%b"}'
        ) % (
            self.index,
            self.position,
            self.time.encode(),
            self.operation.encode(),
            orjson.dumps(self.collection),
            orjson.dumps(self.key),
            b"null" if self.value is None else self.value,
            self.digest.encode(),
        )


def changes_in(line: bytes, collection: str | None) -> Iterator[LoggedChange]:
    """The changes of one collection, or of all, in one log line that was verified before.

    Args:
        line: Without its newline.
        collection: Whose changes are wanted; None for all.

    Raises:
        MalformedEntryError: The line is not a log entry.
    """
    members, value = split_value(line)
    if collection is not None and members["collection"] != collection:
        return
    changes = changes_of(members, value)
    index, epoch, time = members["index"], members["epoch"], members["time"]
    own, digest = members["collection"], line[-2 * DIGEST_BYTES - 2 : -2].decode()
    last = len(changes) - 1
    for position, (operation, key, held) in enumerate(changes):
        # By position: to name its attributes costs as much as all the rest of it.
        place = (index, position, position == last)
        yield LoggedChange(*place, epoch, time, operation, own, key, held, digest)
