"""What every write must do to what was committed before it: the plain truth, and how it was.

Written apart from the core's own rules (`replicad/core/write.py`, `replicad/core/pending.py`):
what is wrong there is to be seen here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from replicad.core.effects import Reason, Rejected
from replicad.core.entry import Entry
from replicad.core.events import Earlier
from replicad.core.write import DEFINITIONS, Operation, Wanted, WriteRequest

Name = tuple[str, str]
"""A collection and a key."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the record store; `index` is its version."""

    index: int
    value: bytes


class _Since(NamedTuple):
    at: int
    record: Record | None


class Reference:
    """The records and requests as of every committed entry."""

    def __init__(self) -> None:
        self.requests: dict[str, Earlier] = {}
        self._records: dict[Name, list[_Since]] = defaultdict(list)
        self._counts: dict[str, list[tuple[int, int]]] = defaultdict(lambda: [(0, 0)])
        self._totals = [0]

    @property
    def last(self) -> int:
        """The newest committed entry."""
        return len(self._totals) - 1

    def extend(self, entry: Entry) -> None:
        """One more entry is committed. That it may be is for others to look at."""
        at = entry.index
        change_of_total = 0
        for change in entry.changes:
            name = entry.collection or "", change.key
            before = self.record(name, at)
            record = None if change.value is None else Record(at, change.value)
            self._records[name].append(_Since(at, record))
            change_of_total += (record is not None) - (before is not None)
        if entry.request is not None and entry.collection is not None:
            done = "".join(change.operation[0] for change in entry.changes)
            self.requests[entry.request] = Earlier(at, entry.fingerprint or "", done)
            count = self.count(entry.collection, at) + change_of_total
            self._counts[entry.collection].append((at, count))
        self._totals.append(self._totals[-1] + change_of_total)

    def record(self, name: Name, at: int) -> Record | None:
        """The record as of an entry."""
        since = self._records.get(name, ())
        for each in reversed(since):
            if each.at <= at:
                return each.record
        return None

    def total(self, at: int) -> int:
        """How many records there were as of an entry."""
        return self._totals[at]

    def count(self, collection: str, at: int) -> int:
        """How many of them in a collection."""
        counts = self._counts[collection]
        return counts[bisect_right(counts, (at, 1 << 60)) - 1][1]

    def outcome(self, write: WriteRequest, at: int) -> str | Earlier | Rejected:
        """What the write would do after the entry `at`, in letters; or why it would not."""
        earlier = self.requests.get(write.request)
        if earlier is not None and earlier.at <= at:
            same = earlier.fingerprint == write.fingerprint
            return earlier if same else Rejected(Reason.MISMATCH)
        if write.collection != DEFINITIONS:
            definition = self._version((DEFINITIONS, write.collection), at)
            if definition != write.definition:
                return Rejected(Reason.DEFINITION, 0, definition)
        elif any(
            self.count(o.key, at) and (o.value is None or write.if_empty) for o in write.operations
        ):
            return Rejected(Reason.NOT_EMPTY)
        done = ""
        for position, operation in enumerate(write.operations):
            version = self._version((write.collection, operation.key), at)
            reason = _objection(operation, version)
            if reason is not None:
                return Rejected(reason, position, version)
            done += "d" if operation.value is None else "u" if version else "i"
        return done

    def moments(self, write: WriteRequest, floor: int) -> Iterator[int]:
        """After which entries from `floor` on the outcome may be another than before."""
        names = [(write.collection, operation.key) for operation in write.operations]
        ats = {since.at for name in names for since in self._records.get(name, ())}
        if write.collection == DEFINITIONS:
            ats |= {at for o in write.operations for at, _ in self._counts[o.key]}
        else:
            defined = self._records.get((DEFINITIONS, write.collection), ())
            ats |= {since.at for since in defined}
        if write.request in self.requests:
            ats.add(self.requests[write.request].at)
        yield floor
        yield from sorted(at for at in ats if at > floor)

    def _version(self, name: Name, at: int) -> int:
        record = self.record(name, at)
        return record.index if record else 0


def _objection(operation: Operation, version: int) -> Reason | None:
    match operation.condition:
        case Wanted.ABSENT if version:
            return Reason.EXISTS
        case Wanted.PRESENT if not version:
            return Reason.MISSING
        case tuple(versions) if version not in versions or not version:
            return Reason.CHANGED if version else Reason.MISSING
    return Reason.MISSING if operation.value is None and not version else None
