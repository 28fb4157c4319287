"""What this epoch's entries hold while the record store does not know them yet."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

from replicad.core.entry import WriteRequest
from replicad.core.events import Found


class _Entry(NamedTuple):
    at: int
    write: WriteRequest


class Precedent(Enum):
    """What was written before that concerns a write."""

    SAME_WRITE = "same write"
    """This very write, sent before."""
    OTHER_WRITE = "other write"
    """Another write with the same request id."""
    RECORD = "record"
    """A record under the same key, from another request."""


class Verdict(NamedTuple):
    """How a write stands to what was written before.

    Attributes:
        precedent: What there is.
        at: Index of its entry; 0 if that is applied and does not matter.
    """

    precedent: Precedent
    at: int


class PendingWrites:
    """Keys and request ids of entries above the applied index, laid over the record store."""

    def __init__(self) -> None:
        """Nothing is pending."""
        self._entries: deque[_Entry] = deque()
        self._keys: dict[tuple[str, str], int] = {}
        self._requests: dict[str, tuple[int, str]] = {}

    def judge(self, write: WriteRequest, found: Found) -> Verdict | None:
        """None if the write is new. A request id that was seen before decides first (rule 10)."""
        request = self._requests.get(write.request) or found.request
        if request is not None:
            index, fingerprint = request
            same = fingerprint == write.fingerprint
            return Verdict(Precedent.SAME_WRITE if same else Precedent.OTHER_WRITE, index)
        index = self._keys.get((write.collection, write.key), 0)
        if index or found.exists:
            return Verdict(Precedent.RECORD, index)
        return None

    def add(self, index: int, write: WriteRequest) -> None:
        """The entry at `index` holds this write."""
        self._entries.append(_Entry(index, write))
        self._keys[write.collection, write.key] = index
        self._requests[write.request] = (index, write.fingerprint)

    def forget_applied(self, applied: int) -> None:
        """The record store knows these now."""
        while self._entries and self._entries[0].at <= applied:
            self._forget(self._entries.popleft())

    def forget_from(self, first: int) -> None:
        """These were not appended after all."""
        while self._entries and self._entries[-1].at >= first:
            self._forget(self._entries.pop())

    def _forget(self, entry: _Entry) -> None:
        del self._keys[entry.write.collection, entry.write.key]
        del self._requests[entry.write.request]
