"""What clients ask for: records that come, change and go, alone or several at once."""

from __future__ import annotations

from collections import defaultdict
from random import Random

from replicad.core.effects import Committed, Reason, Rejected
from replicad.core.write import (
    DEFINITIONS,
    Condition,
    Operation,
    Wanted,
    WriteRequest,
    fingerprint_of,
)
from tests.simulation.reference import Name

BIG, SMALL = "c", "d"
"""Collections: one with many records, and one that is often empty."""
SMALL_KEYS = 2
RECENT = 30
"""Older keys and requests are not written again: what is written again is to meet."""


class Wishes:
    """Makes writes, and remembers what was heard of versions, as clients do.

    Attributes:
        definitions: The version of each collection's definition, as it was heard last.
    """

    def __init__(self, rng: Random) -> None:
        self.definitions: dict[str, int] = defaultdict(int)
        self._rng = rng
        self._versions: dict[Name, int] = {}
        self._keys = 0
        self._past: list[WriteRequest] = []

    @property
    def keys(self) -> int:
        """How many keys of the big collection were ever named: k1, k2 ..."""
        return self._keys

    def next(self, number: int) -> WriteRequest:
        """The next write; its call is `number`, which is not used again."""
        rng, call = self._rng, f"{number:x}"
        chance = rng.random()
        if chance < 0.04 and self._past:
            return self._again(rng.choice(self._past[-RECENT:]), number)
        if chance < 0.07:
            return self._define(number)
        collection = SMALL if chance < 0.12 else BIG
        count = rng.choice((1, 1, 1, 1, 1, 1, 1, 2, 3))
        operations = {}
        for position in range(count):
            operation = self._operation(collection, b"%d.%d" % (number, position))
            operations[operation.key] = operation
        write = _write(f"r{number}", collection, tuple(operations.values()), call)
        self._past.append(write)
        return write

    def learn(self, write: WriteRequest, result: Committed | Rejected) -> None:
        """Take what a write was told."""
        if isinstance(result, Committed):
            for operation, done in zip(write.operations, result.done, strict=True):
                version = 0 if done == "d" else result.index
                self._versions[write.collection, operation.key] = version
                if write.collection == DEFINITIONS:
                    self.definitions[operation.key] = version
        elif result.reason is Reason.DEFINITION:
            self.definitions[write.collection] = result.version
        elif result.reason in (Reason.EXISTS, Reason.CHANGED):
            operation = write.operations[result.position]
            self._versions[write.collection, operation.key] = result.version

    def _again(self, before: WriteRequest, number: int) -> WriteRequest:
        """The same once more, or another under the request id that was used before."""
        call = f"{number:x}"
        if self._rng.random() < 0.5:
            return _write(before.request, before.collection, before.operations, call)
        operation = self._operation(BIG, b"%d" % number)
        return _write(before.request, BIG, (operation,), call)

    def _define(self, number: int) -> WriteRequest:
        collection = self._rng.choice((BIG, SMALL, SMALL))
        value = b'{"n":%d}' % number if self._rng.random() < 0.6 else None
        write = _write(f"r{number}", DEFINITIONS, (Operation(collection, value),), f"{number:x}")
        return write._replace(if_empty=self._rng.random() < 0.3)

    def _operation(self, collection: str, unique: bytes) -> Operation:
        rng = self._rng
        if collection == BIG and (self._keys < 5 or rng.random() < 0.5):
            self._keys += 1
            key = f"k{self._keys}"
            return Operation(key, _value(key, unique), Wanted.ABSENT)
        if collection == BIG:
            key = f"k{rng.randint(max(1, self._keys - RECENT), self._keys)}"
        else:
            key = f"d{rng.randint(1, SMALL_KEYS)}"
        value = None if rng.random() < 0.35 else _value(key, unique)
        return Operation(key, value, self._condition(collection, key))

    def _condition(self, collection: str, key: str) -> Condition:
        chance = self._rng.random()
        if chance < 0.3:
            return Wanted.ANYTHING
        if chance < 0.5:
            return Wanted.ABSENT
        if chance < 0.6:
            return Wanted.PRESENT
        return (self._versions.get((collection, key), 0), self._rng.randint(1, 99))


def _value(key: str, unique: bytes) -> bytes:
    return b'{"id":"%b","n":%b}' % (key.encode(), unique)


def _write(
    request: str, collection: str, operations: tuple[Operation, ...], call: str
) -> WriteRequest:
    fingerprint = fingerprint_of(collection, [(o.key, o.value) for o in operations])
    return WriteRequest(request, fingerprint, collection, 0, operations, call)
