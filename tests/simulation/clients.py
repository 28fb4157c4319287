"""Clients that write and read through whoever they believe to lead, and retry as gateways do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.core.effects import (
    AnswerRead,
    AnswerWrites,
    Committed,
    Rejected,
    Unresolved,
    WriteResult,
)
from replicad.core.entry import WriteRequest, fingerprint_of

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.simulation import Simulation

RETRY_S = 0.4


@dataclass
class _Attempt:
    """Writes that were sent to one process once.

    Attributes:
        floor: What had been seen by then: see `Judge.floor`.
    """

    node: Node
    operations: tuple[int, ...]
    floor: int


@dataclass
class _Read:
    key: str
    floor: int


class Clients:
    """The load, and what became of it.

    Attributes:
        unsettled: Writes whose outcome is not known yet, by operation.
        patient: Send again only when an attempt was refused or its process has ended.
        retry_s: After how long a write without an outcome is sent again.
        failed: Attempts that a client would have to call failed: without an answer, or unknown.
        settled_at: When writes were acknowledged.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._judge = simulation.judge
        self._tokens = 0
        self._attempts: dict[int, _Attempt] = {}
        self._reads: dict[int, _Read] = {}
        self._keys = 0
        self._operations = 0
        self.unsettled: dict[int, WriteRequest] = {}
        self.patient = False
        self.retry_s = RETRY_S
        self.reads_served = 0
        self.rejected = 0
        self.failed = 0
        self.settled_at: list[float] = []

    def write(self) -> None:
        """A few new records at once; now and then an id or a request id that was used before."""
        operations = []
        for _ in range(self._world.rng.randint(1, 3)):
            self._keys += 1
            again = self._keys > 5 and self._world.chance(0.1)
            number = self._world.rng.randint(1, self._keys) if again else self._keys
            abused = self._keys > 5 and self._world.chance(0.02)
            request = self._world.rng.randint(1, self._keys) if abused else self._keys
            operations.append(self._make(f"r{request}", f"k{number}"))
        self._send(tuple(operations))

    def read(self) -> None:
        """A strong read of a record that may exist; mostly one that has just become known."""
        node = self._simulation.some_leader()
        if node is None or not self._keys:
            return
        known = self._judge.known_keys
        key = f"k{self._world.rng.randint(1, self._keys)}"
        if known and self._world.chance(0.5):
            key = next(reversed(known))
        self._tokens += 1
        self._reads[self._tokens] = _Read(key, self._judge.floor)
        node.read(self._tokens, node.context.epoch)

    def on_writes(self, node: Node, answer: AnswerWrites) -> None:
        attempt = self._attempts.pop(answer.token)
        if self._world.verbose:
            self._world.log(f"  {node.name} answers {answer}")
        for operation, result in zip(attempt.operations, answer.results, strict=True):
            if operation in self.unsettled:
                self._settle(node, attempt, operation, result)
        if self.patient:
            self._world.after(self.retry_s, lambda: self._send(attempt.operations))

    def on_read(self, node: Node, answer: AnswerRead) -> None:
        read = self._reads.pop(answer.token)
        if answer.confirmed:
            self.reads_served += 1
            self._judge.check_read(node.disk, read.key, floor=read.floor)

    def on_end(self, node: Node) -> None:
        """The process has ended: nobody will answer."""
        for token, attempt in list(self._attempts.items()):
            if attempt.node is node:
                del self._attempts[token]
                self.failed += 1
                if self.patient:
                    self._world.after(self.retry_s, partial(self._send, attempt.operations))

    def _make(self, request: str, key: str) -> int:
        self._operations += 1
        value = b'{"id":"%b","n":%d}' % (key.encode(), self._operations)
        write = WriteRequest(request, fingerprint_of("c", key, value), "c", key, value)
        self._judge.sent.setdefault(request, []).append(write)
        self.unsettled[self._operations] = write
        return self._operations

    def _settle(self, node: Node, attempt: _Attempt, operation: int, result: WriteResult) -> None:
        write = self.unsettled[operation]
        match result:
            case Committed():
                self._judge.acknowledges(write, result)
                self.settled_at.append(self._world.now)
                del self.unsettled[operation]
            case Rejected():
                self._judge.check_rejection(node.disk, write, result, floor=attempt.floor)
                self.rejected += 1
                del self.unsettled[operation]
            case Unresolved.UNKNOWN:
                self.failed += 1

    def _send(self, operations: tuple[int, ...]) -> None:
        """Send, and send again what is not settled after a while, with the same request ids."""
        operations = tuple(o for o in operations if o in self.unsettled)
        if not operations:
            return
        waits = self.patient and any(a.operations == operations for a in self._attempts.values())
        node = self._simulation.some_leader()
        if node is not None and not waits:
            self._tokens += 1
            self._attempts[self._tokens] = _Attempt(node, operations, self._judge.floor)
            writes = tuple(self.unsettled[operation] for operation in operations)
            node.write(self._tokens, writes, node.context.epoch)
        if not self.patient or node is None:
            self._world.after(self.retry_s, lambda: self._send(operations))
