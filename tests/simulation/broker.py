"""RabbitMQ, simulated: in order as a rule; loses, doubles and delays when told to.

A queue belongs to one connection of one process and is gone with it. Either end may notice the loss
of a connection long before the other. A probe tells whether the broker holds a queue for a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.core.effects import Probe
from replicad.core.events import ProbeFinished
from replicad.core.messages import Message

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.simulation import Simulation

PROBE_TIMEOUT_S = 0.5


@dataclass(eq=False)
class Connection:
    """One connection of one process.

    Attributes:
        held: The broker has its queues.
    """

    node: Node
    held: bool = True


class Broker:
    """Carries messages between the processes' connections."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._busy_until: dict[tuple[str, str], float] = {}
        self._held: list[Connection] = []
        self._up = True
        self._stalled_until = 0.0
        self._blocked_until = 0.0
        self.loss = 0.0
        self.doubling = 0.0
        self.reordering = 0.0
        self.cut: set[tuple[str, str]] = set()
        """Pairs of sender and receiver between which nothing comes through."""
        self.severed: dict[str, float] = {}
        """Nodes that cannot reach the broker, until when; their connections stay."""

    # -- connections --------------------------------------------------------------------------

    def connect(self, node: Node) -> None:
        """Connect now, or as soon as it is possible."""
        if not node.alive or node.connection is not None:
            return
        if not self._up or self._is_severed(node.name):
            self._world.after(self._world.rng.uniform(0.05, 0.3), lambda: self.connect(node))
            return
        node.connection = Connection(node)
        self._held.append(node.connection)
        node.on_broker(up=not self._is_blocked())

    def end(self, node: Node, *, lingering_s: float = 0.0) -> None:
        """The process has ended; its machine may not have been able to say so."""
        if node.connection is not None:
            connection = node.connection
            self._world.after(lingering_s, lambda: self._drop(connection))
            if not lingering_s:
                self._drop(connection)

    def disconnect(self, node: Node, *, broker_after_s: float, process_after_s: float) -> None:
        """Break the connection. Each end notices in its own time; then the process reconnects."""
        connection = node.connection
        if connection is None:
            return

        def notice() -> None:
            if node.connection is connection and node.alive:
                node.connection = None
                node.on_broker(up=False)
                self._world.after(self._world.rng.uniform(0.02, 0.2), lambda: self.connect(node))

        if broker_after_s == 0.0:
            self._drop(connection)
        else:
            self._world.after(broker_after_s, lambda: self._drop(connection))
        self._world.after(process_after_s, notice)

    def restart(self, seconds: float) -> None:
        """Everybody's connection and queue are gone; for a while nobody can connect."""
        self._up = False
        for connection in list(self._held):
            later = self._world.rng.uniform(0.0, 0.1)
            self.disconnect(connection.node, broker_after_s=0.0, process_after_s=later)

        def rise() -> None:
            self._up = True

        self._world.after(seconds, rise)

    def sever(self, name: str, seconds: float) -> None:
        """Nothing passes between the node and the broker, which keeps its connection."""
        self.severed[name] = max(self.severed.get(name, 0.0), self._world.now + seconds)

    def stall(self, seconds: float) -> None:
        """The broker hangs: what it is to carry comes later, all of it."""
        self._stalled_until = max(self._stalled_until, self._world.now + seconds)

    def block(self, seconds: float) -> None:
        """The broker is short of memory: it takes nothing in, and says so."""
        self._blocked_until = max(self._blocked_until, self._world.now + seconds)
        self._tell_all()
        self._world.after(seconds, self._tell_all)

    def heal(self) -> None:
        self.loss = self.doubling = self.reordering = 0.0
        self.cut.clear()
        self.severed.clear()
        self._stalled_until = self._blocked_until = self._world.now
        self._up = True
        self._tell_all()

    def _tell_all(self) -> None:
        for node in list(self._simulation.nodes.values()):
            if node.connection is not None:
                node.on_broker(up=not self._is_blocked())

    def _drop(self, connection: Connection) -> None:
        if connection.held:
            connection.held = False
            self._held.remove(connection)

    def _is_blocked(self) -> bool:
        return self._world.now < self._blocked_until

    def _is_severed(self, name: str) -> bool:
        return self._world.now < self.severed.get(name, 0.0)

    # -- messages -----------------------------------------------------------------------------

    def send(self, sender: Node, to: str | None, message: Message) -> None:
        connection = sender.connection
        if connection is None or not connection.held or self._is_blocked():
            return
        nodes = self._simulation.nodes.values()
        receivers = [to] if to else [n.name for n in nodes if n is not sender and n.hears_all]
        for receiver in receivers:
            copies = 2 if self._world.chance(self.doubling) else 1
            for _ in range(copies):
                self._send_one(sender.name, receiver, message)

    def probe(self, sender: Node, probe: Probe) -> None:
        """Ask whether there is a queue for the node. Its own channel: it overtakes messages."""
        connection = sender.connection
        answered = False

        def answer(*, gone: bool) -> None:
            nonlocal answered
            if not answered:
                answered = True
                sender.feed(ProbeFinished(probe.node, probe.asked_at, gone), "prober")

        def look() -> None:
            if not self._answers(connection):
                return
            gone = all(other.node.name != probe.node for other in self._held)
            self._world.after(self._world.rng.uniform(0.0005, 0.01), lambda: answer(gone=gone))

        self._world.after(self._world.rng.uniform(0.0005, 0.01), look)
        self._world.after(PROBE_TIMEOUT_S, lambda: answer(gone=False))

    def _answers(self, connection: Connection | None) -> bool:
        if connection is None or not connection.held or self._is_severed(connection.node.name):
            return False
        return self._world.now >= max(self._stalled_until, self._blocked_until)

    def _send_one(self, sender: str, receiver: str, message: Message) -> None:
        if (sender, receiver) in self.cut or self._world.chance(self.loss):
            return
        target = self._simulation.nodes.get(receiver)
        connection = target.connection if target is not None else None
        if connection is None or self._is_severed(sender) or self._is_severed(receiver):
            return
        at = self._world.now + self._world.rng.uniform(0.0005, 0.005)
        if self._world.chance(self.reordering):
            at += self._world.rng.uniform(0, 0.5)
        else:
            at = max(at, self._busy_until.get((sender, receiver), 0.0))
            self._busy_until[sender, receiver] = at
        self._world.after(at - self._world.now, lambda: self._deliver(connection, message))

    def _deliver(self, connection: Connection, message: Message) -> None:
        node = connection.node
        if not connection.held or node.connection is not connection:
            return  # The queue is gone, or nobody reads it any more.
        if self._world.now < self._stalled_until:
            later = self._stalled_until - self._world.now
            self._world.after(later, lambda: self._deliver(connection, message))
            return
        node.receive(message)
