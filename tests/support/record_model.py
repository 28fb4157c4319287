"""What a record store must say, made from the lines of a log in the plainest way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from replicad.core.entry import Entry, decode_entry, split_lines
from replicad.storage.records import Records
from tests.support.entries import LogBuilder

Name = tuple[str, str]


class Kept(NamedTuple):
    """A live record."""

    entry: int
    position: int
    value: bytes


def apply(records: Records, log: LogBuilder, lines: bytes) -> None:
    """Apply lines of the log that end where it ends."""
    records.apply(split_lines(lines), log.index.last_point.digest)


def values(records: Records, collection: str, *keys: str) -> list[bytes | None]:
    """What is stored under the keys."""
    found = records.get([(collection, key) for key in keys])
    return [each and each.value for each in found]


class Model:
    """All states of a log.

    Attributes:
        entries: All entries, decoded.
        states: By index: what is live after that entry; the first is before entry 1.
    """

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.entries: list[Entry] = [decode_entry(line.rstrip(b"\n")) for line in lines]
        self.states: list[dict[Name, Kept]] = [{}]
        for entry in self.entries:
            state = dict(self.states[-1])
            for position, change in enumerate(entry.changes):
                name = str(entry.collection), change.key
                state.pop(name, None)
                if change.value is not None:
                    state[name] = Kept(entry.index, position, change.value)
            self.states.append(state)

    def listing(self, collection: str, upto: int) -> list[bytes]:
        """The values of a collection as of an index, in the order they were written."""
        kept = [each for (name, _), each in self.states[upto].items() if name == collection]
        return [each.value for each in sorted(kept)]

    def record_lines(self, upto: int) -> list[bytes]:
        """The records' lines of a snapshot as of an index."""
        return [
            b'{"index":%d,"position":%d,"collection":%b,"key":%b,"value":%b}\n'
            % (*kept[:2], _quoted(collection), _quoted(key), kept.value)
            for (collection, key), kept in sorted(self.states[upto].items())
        ]

    def versions(self, name: Name) -> list[tuple[int, int, int | None, bytes]]:
        """Index, position, index of the end, and value of each version of a record."""
        found: list[tuple[int, int, int | None, bytes]] = []
        for index, state in enumerate(self.states):
            kept = state.get(name)
            if found and found[-1][2] is None and (kept is None or kept.entry != found[-1][0]):
                found[-1] = (*found[-1][:2], index, found[-1][3])
            if kept is not None and kept.entry == index:
                found.append((index, kept.position, None, kept.value))
        return found


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()
