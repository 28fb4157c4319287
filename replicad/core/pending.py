"""What this epoch's entries hold while the record store does not know them yet."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from replicad.core.effects import Reason, Rejected
from replicad.core.entry import DELETE, DONE, INSERT, UPDATE, BareChange
from replicad.core.events import Earlier, Found
from replicad.core.write import DEFINITIONS, WriteRequest

_CODES = {operation: letter for letter, operation in DONE.items()}


class _Entry(NamedTuple):
    at: int
    write: WriteRequest
    changes: Changes


_Version = tuple[int, int]
"""Since which entry a record has which version; 0 stands for no record."""

Changes = tuple[BareChange, ...]


class Verdict(NamedTuple):
    """How a write stands to what was written before.

    Attributes:
        outcome: What it would do, or the entry that did it before, or why it cannot be.
        at: Index of the entry on which that rests; 0 if it is applied and does not matter.
    """

    outcome: Changes | Earlier | Rejected
    at: int = 0


class PendingWrites:
    """Versions and request ids of entries above the applied index, laid over the record store."""

    def __init__(self) -> None:
        """Nothing is pending."""
        self._entries: deque[_Entry] = deque()
        self._versions: dict[tuple[str, str], tuple[_Version, ...]] = {}
        self._requests: dict[str, Earlier] = {}

    def judge(self, write: WriteRequest, found: Found) -> Verdict:
        """Find out what a write would do. A known request id decides first (rule 10)."""
        earlier = self._requests.get(write.request) or found.earlier
        if earlier is not None:
            if earlier.fingerprint == write.fingerprint:
                return Verdict(earlier, earlier.at)
            return Verdict(Rejected(Reason.MISMATCH), earlier.at)
        if write.collection != DEFINITIONS:
            at, version = self._latest(DEFINITIONS, write.collection, found.definition)
            if version != write.definition:
                return Verdict(Rejected(Reason.DEFINITION, 0, version), at)
            return self._judge_operations(write, found, at)
        # Which of them makes up the number of records is not remembered: all that are pending.
        at = self._entries[-1].at if self._entries else 0
        if found.records + self._records_of(write) > 0:
            return Verdict(Rejected(Reason.NOT_EMPTY), at)
        return self._judge_operations(write, found, at)

    def _judge_operations(self, write: WriteRequest, found: Found, rests_on: int) -> Verdict:
        changes: list[BareChange] = []
        for operation, known in zip(write.operations, found.versions, strict=True):
            key, value, _ = operation
            at, version = self._latest(write.collection, key, known)
            if at > rests_on:
                rests_on = at  # That the ones before can be done is part of what is told.
            objection = operation.objection(version)
            if objection is not None:
                rejected = Rejected(Reason(objection.value), len(changes), version)
                return Verdict(rejected, rests_on)
            done = DELETE if value is None else UPDATE if version else INSERT
            changes.append((done, key, value))
        return Verdict(tuple(changes))

    def add(self, index: int, write: WriteRequest, changes: Changes) -> str:
        """The entry at `index` does this; returns what it does as letters of `entry.DONE`."""
        self._entries.append(_Entry(index, write, changes))
        done = "".join([_CODES[operation] for operation, _, _ in changes])
        self._requests[write.request] = Earlier(index, write.fingerprint, done)
        for _, key, value in changes:
            record = write.collection, key
            version = index, 0 if value is None else index
            self._versions[record] = (*self._versions.get(record, ()), version)
        return done

    def forget_applied(self, applied: int) -> None:
        """The record store knows these now."""
        while self._entries and self._entries[0].at <= applied:
            entry = self._entries.popleft()
            self._forget(entry, slice(1, None))

    def forget_from(self, first: int) -> None:
        """These were not appended after all."""
        while self._entries and self._entries[-1].at >= first:
            entry = self._entries.pop()
            self._forget(entry, slice(-1))

    def _latest(self, collection: str, key: str, applied: int) -> _Version:
        pending = self._versions.get((collection, key))
        return pending[-1] if pending else (0, applied)

    def _records_of(self, write: WriteRequest) -> int:
        """How many records are pending of the collections that must be empty for a write."""
        names, records = write.must_be_empty, 0
        for _, pending, _ in self._entries:
            if pending.collection in names:
                done = self._requests[pending.request].done
                records += done.count("i") - done.count("d")
        return records

    def _forget(self, entry: _Entry, left: slice) -> None:
        """Of the versions of its records, keep what is `left`."""
        del self._requests[entry.write.request]
        for _, key, _ in entry.changes:
            record = entry.write.collection, key
            versions = self._versions.pop(record)[left]
            if versions:
                self._versions[record] = versions
