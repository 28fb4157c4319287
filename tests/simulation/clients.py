"""Clients that write and read through whoever they believe to lead, and retry as gateways do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.effects import AnswerRead, AnswerWrites, Committed, Rejected
from replicad.core.entry import WriteRequest, fingerprint_of

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.simulation import Simulation

RETRY_S = 0.4


@dataclass
class _Read:
    key: str
    known: bool
    """Whether it was acknowledged, or seen by another strong read, before this one began."""


class Clients:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._tokens = 0
        self._writes: dict[int, tuple[WriteRequest, ...]] = {}
        self._reads: dict[int, _Read] = {}
        self._keys = 0
        self.unsettled: dict[str, WriteRequest] = {}
        self.reads_served = 0
        self.rejected = 0

    def write(self) -> None:
        """A few new records at once; now and then an id that was used before."""
        writes = []
        for _ in range(self._world.rng.randint(1, 3)):
            self._keys += 1
            again = self._keys > 5 and self._world.chance(0.1)
            number = self._world.rng.randint(1, self._keys) if again else self._keys
            key = f"k{number}"
            value = b'{"id":"%b","n":%d}' % (key.encode(), self._keys)
            print_ = fingerprint_of("c", key, value)
            writes.append(WriteRequest(f"r{self._keys}", print_, "c", key, value))
        for write in writes:
            self.unsettled[write.request] = write
        self._send(tuple(writes))

    def read(self) -> None:
        """A strong read of a record that may exist; mostly one that has just become known."""
        node = self._simulation.some_leader()
        if node is None or not self._keys:
            return
        known = self._simulation.judge.known_keys
        key = f"k{self._world.rng.randint(1, self._keys)}"
        if known and self._world.chance(0.7):
            key = next(reversed(known))
        self._tokens += 1
        self._reads[self._tokens] = _Read(key, key in known)
        node.read(self._tokens, node.context.epoch)

    def on_writes(self, node: Node, answer: AnswerWrites) -> None:
        writes = self._writes.pop(answer.token)
        for write, result in zip(writes, answer.results, strict=True):
            if isinstance(result, Committed):
                self._simulation.judge.acknowledges(write.request, write.key, result)
                self.unsettled.pop(write.request, None)
            elif isinstance(result, Rejected):
                assert result is Rejected.DUPLICATE
                assert write.request not in self._simulation.judge.acknowledged
                self._simulation.judge.check_duplicate(node.disk, write.key)
                self.unsettled.pop(write.request, None)
                self.rejected += 1
        self._simulation.check_electable()

    def on_read(self, node: Node, answer: AnswerRead) -> None:
        read = self._reads.pop(answer.token)
        if answer.confirmed:
            self.reads_served += 1
            found = ("c", read.key) in node.disk.records
            self._simulation.judge.check_read(read.key, found=found, known=read.known)

    def _send(self, writes: tuple[WriteRequest, ...]) -> None:
        """Send, and send again what is not settled after a while, with the same request ids."""
        writes = tuple(w for w in writes if w.request in self.unsettled)
        if not writes:
            return
        node = self._simulation.some_leader()
        if node is not None:
            self._tokens += 1
            self._writes[self._tokens] = writes
            node.write(self._tokens, writes, node.context.epoch)
        self._world.after(RETRY_S, lambda: self._send(writes))
