"""RabbitMQ, simulated: in order as a rule; loses, doubles and delays when told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from replicad.core.effects import Probe
from replicad.core.events import ProbeFinished
from replicad.core.messages import Message

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Network:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._busy_until: dict[tuple[str, str], float] = {}
        self.loss = 0.0
        self.doubling = 0.0
        self.reordering = 0.0
        self.cut: set[tuple[str, str]] = set()

    def send(self, sender: str, to: str | None, message: Message) -> None:
        receivers = [to] if to else [n for n in self._simulation.names if n != sender]
        for receiver in receivers:
            copies = 2 if self._world.chance(self.doubling) else 1
            for _ in range(copies):
                self._send_one(sender, receiver, message)

    def probe(self, sender: str, probe: Probe, reply: Callable[[ProbeFinished], None]) -> None:
        """The broker knows who reads a queue, whatever becomes of messages."""

        def look() -> None:
            gone = probe.node not in self._simulation.nodes
            finished = ProbeFinished(probe.node, probe.asked_at, gone)
            self._world.after(self._world.rng.uniform(0.0005, 0.01), lambda: reply(finished))

        self._world.after(self._world.rng.uniform(0.0005, 0.01), look)

    def _send_one(self, sender: str, receiver: str, message: Message) -> None:
        if (sender, receiver) in self.cut or self._world.chance(self.loss):
            return
        at = self._world.now + self._world.rng.uniform(0.0005, 0.005)
        if self._world.chance(self.reordering):
            at += self._world.rng.uniform(0, 0.5)
        else:
            at = max(at, self._busy_until.get((sender, receiver), 0.0))
            self._busy_until[sender, receiver] = at
        target = self._simulation.nodes.get(receiver)

        def deliver() -> None:
            # A queue belongs to one run of a process and dies with it.
            if target is not None and self._simulation.nodes.get(receiver) is target:
                target.receive(message)

        self._world.after(at - self._world.now, deliver)
