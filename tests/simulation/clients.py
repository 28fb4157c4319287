"""Clients that write and read through whoever they believe to lead, and retry as gateways do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicad.core.effects import (
    AnswerRead,
    AnswerWrites,
    Committed,
    Reason,
    Rejected,
    Unresolved,
    WriteResult,
)
from replicad.core.write import WriteRequest
from tests.simulation.wishes import Wishes

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.simulation import Simulation

RETRY_S = 0.4
LATE_S = 2.0
"""An attempt may be on its way for as long, while later ones overtake it."""


@dataclass
class _Attempt:
    """Writes that were sent to one process once.

    Attributes:
        floor: What had been seen by then: see `Judge.floor`.
    """

    node: Node
    numbers: tuple[int, ...]
    writes: tuple[WriteRequest, ...]
    floor: int


@dataclass
class _Read:
    key: str
    floor: int


class Clients:
    """The load, and what became of it.

    Attributes:
        unsettled: Writes whose outcome is not known yet, by number; each with its last attempt.
        patient: Send again only when an attempt was refused or its process has ended.
        retry_s: After how long a write without an outcome is sent again.
        failed: Attempts that a client would have to call failed: without an answer, or unknown.
        rejected: How often which reason was heard.
        done: How often a letter of `entry.DONE` was, or "batch".
        settled_at: When writes were acknowledged.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._judge = simulation.judge
        self._tokens = 0
        self._attempts: dict[int, _Attempt] = {}
        self._reads: dict[int, _Read] = {}
        self._wishes = Wishes(simulation.world.rng)
        self._calls = 0
        self.unsettled: dict[int, WriteRequest] = {}
        self.patient = False
        self.retry_s = RETRY_S
        self.reads_served = 0
        self.rejected: Counter[Reason] = Counter()
        self.done: Counter[str] = Counter()
        self.failed = 0
        self.settled_at: list[float] = []

    def write(self) -> None:
        """A few writes at once, of different clients."""
        numbers = []
        for _ in range(self._world.rng.randint(1, 3)):
            write = self._wish()
            self.unsettled[self._calls] = write._replace(attempt=0)
            numbers.append(self._calls)
        self._send(tuple(numbers))

    def _wish(self) -> WriteRequest:
        """Patient clients do not use a request id again while its outcome is not known."""
        while True:
            self._calls += 1
            write = self._wishes.next(self._calls)
            used = self.patient and any(
                write.request == other.request for other in self.unsettled.values()
            )
            if not used:
                return write

    def read(self) -> None:
        """A strong read of a record that may exist; mostly one that has just become known."""
        node = self._simulation.some_leader()
        if node is None or not self._wishes.keys:
            return
        known = self._judge.known_keys
        key = f"k{self._world.rng.randint(1, self._wishes.keys)}"
        if known and self._world.chance(0.5):
            key = next(reversed(known))
        self._tokens += 1
        self._reads[self._tokens] = _Read(key, self._judge.floor)
        node.read(self._tokens, node.context.epoch)

    def on_writes(self, node: Node, answer: AnswerWrites) -> None:
        attempt = self._attempts.pop(answer.token)
        if self._world.verbose:
            self._world.log(f"  {node.name} answers {answer}")
        for number, write, result in zip(
            attempt.numbers, attempt.writes, answer.results, strict=True
        ):
            if number in self.unsettled:
                self._settle(node, attempt, number, write, result)
        if self.patient:
            self._world.after(self.retry_s, lambda: self._send(attempt.numbers))

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
                    self._world.after(self.retry_s, partial(self._send, attempt.numbers))

    def _settle(
        self, node: Node, attempt: _Attempt, number: int, write: WriteRequest, result: WriteResult
    ) -> None:
        match result:
            case Committed():
                self._judge.acknowledges(write, result, floor=attempt.floor)
                self.done[result.done if len(result.done) == 1 else "batch"] += 1
                self._wishes.learn(write, result)
                self.settled_at.append(self._world.now)
                del self.unsettled[number]
            case Rejected():
                self._judge.check_rejection(node.disk, write, result, floor=attempt.floor)
                self._wishes.learn(write, result)
                self.rejected[result.reason] += 1
                # Nobody is told what an attempt hears that was given up, or of a definition: that
                # the gateway reads again.
                is_last = write.attempt == self.unsettled[number].attempt
                if is_last and result.reason is not Reason.DEFINITION:
                    self._judge.rejects(write)
                    del self.unsettled[number]
            case Unresolved.UNKNOWN:
                self.failed += 1

    def _send(self, numbers: tuple[int, ...]) -> None:
        """Send, and send again what is not settled after a while, with the same request ids."""
        numbers = tuple(number for number in numbers if number in self.unsettled)
        if not numbers:
            return
        waits = self.patient and any(a.numbers == numbers for a in self._attempts.values())
        node = self._simulation.some_leader()
        if node is not None and not waits:
            self._tokens += 1
            writes = tuple(map(self._next_attempt, numbers))
            self._attempts[self._tokens] = _Attempt(node, numbers, writes, self._judge.floor)
            self._pass(node, self._tokens)
        if not self.patient or node is None:
            self._world.after(self.retry_s, lambda: self._send(numbers))

    def _next_attempt(self, number: int) -> WriteRequest:
        before = self.unsettled[number]
        definition = self._wishes.definitions[before.collection]
        write = before._replace(definition=definition, attempt=before.attempt + 1)
        self.unsettled[number] = write
        if write.attempt == 1 or definition != before.definition:
            self._judge.sent.setdefault(write.request, []).append(write)
        return write

    def _pass(self, node: Node, token: int) -> None:
        """Most attempts arrive at once, some late."""
        epoch = node.context.epoch

        def arrive() -> None:
            if token in self._attempts:  # Else the process has ended.
                node.write(token, self._attempts[token].writes, epoch)

        if not self.patient and self._world.chance(0.1):
            self._world.after(self._world.rng.uniform(0.0, LATE_S), arrive)
        else:
            arrive()
