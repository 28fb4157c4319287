"""What goes wrong in a play: one fault after another, often before the last one has healed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Faults:
    """Chooses faults, mostly against whoever leads."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self.active = False

    def begin(self) -> None:
        """From now on things go wrong. How often is a matter of the seed."""
        rng = self._world.rng
        network, coordinator = self._simulation.network, self._simulation.coordinator
        network.loss = rng.choice((0.0, 0.0, 0.01, 0.1))
        network.doubling = rng.choice((0.0, 0.02))
        network.reordering = rng.choice((0.0, 0.02))
        coordinator.disconnects = rng.choice((0.0, 0.1, 0.3))
        coordinator.lag = rng.choice((0.0, 0.1, 0.3))
        self._simulation.crash_between_effects = rng.choice((0.0, 0.0005, 0.002))
        self._pause_s = rng.choice((0.3, 1.0, 2.5))
        self.active = True
        self._strike()

    def end(self) -> None:
        network, coordinator = self._simulation.network, self._simulation.coordinator
        network.loss = network.doubling = network.reordering = 0.0
        network.cut.clear()
        coordinator.disconnects = coordinator.lag = 0.0
        self._simulation.crash_between_effects = 0.0
        for disk in self._simulation.disks.values():
            disk.full = False
        self.active = False

    def _strike(self) -> None:
        if not self.active:
            return
        rng = self._world.rng
        name = rng.choice(self._simulation.names)
        leader = self._simulation.some_leader()
        if leader is not None and rng.random() < 0.5:
            name = leader.name
        fault = rng.choices(
            (
                self._kill,
                self._pause,
                self._cut_messages,
                self._cut_coordinator,
                self._isolate,
                self._isolate_and_bounce_others,
                self._expire,
                self._fill_disk,
                self._simulation.swap_disk,
            ),
            weights=(6, 3, 3, 3, 3, 1, 1, 1, 2),
        )[0]
        fault(name)
        self._world.after(rng.uniform(0.1, self._pause_s), self._strike)

    def _kill(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._simulation.crash(node, power=self._world.chance(0.5))

    def _bounce(self, name: str) -> None:
        if self.active:
            self._kill(name)

    def _pause(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None and not node.paused:
            self._world.log(f"pause {name}")
            node.pause(self._world.rng.choice((0.2, 1.5, 4.0)))

    def _cut_messages(self, name: str) -> None:
        """No messages to or from, or both, for a while."""
        self._world.log(f"cut {name}")
        direction = self._world.rng.choice(("to", "from", "both"))
        self._cut(name, direction, self._world.rng.uniform(0.2, 4.0))

    def _cut_coordinator(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"cut {name} from the coordinator")
            self._simulation.coordinator.cut(node.incarnation, self._world.rng.uniform(0.2, 4.0))

    def _isolate(self, name: str) -> None:
        """A network partition: no coordinator, and no messages or only those that it sends itself.

        Clients may be on either side of it.
        """
        node = self._simulation.nodes.get(name)
        if node is not None:
            direction = self._world.rng.choice(("to", "both"))
            self._world.log(f"isolate {name}: {direction}")
            seconds = self._world.rng.uniform(0.5, 4.0)
            self._cut(name, direction, seconds)
            self._simulation.coordinator.cut(node.incarnation, seconds)

    def _isolate_and_bounce_others(self, name: str) -> None:
        """A double failover while a deposed leader goes on talking."""
        self._isolate(name)
        for other in self._simulation.names:
            if other != name:
                self._world.after(self._world.rng.uniform(1.2, 3.0), partial(self._bounce, other))

    def _expire(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"session of {name} expires")
            self._simulation.coordinator.expire(node.incarnation)

    def _fill_disk(self, name: str) -> None:
        self._world.log(f"disk full {name}")
        disk = self._simulation.disks[name]
        disk.full = True
        self._world.after(1.0, lambda: setattr(disk, "full", False))

    def _cut(self, name: str, direction: str, seconds: float) -> None:
        others = [other for other in self._simulation.names if other != name]
        pairs = {(name, o) for o in others if direction != "to"}
        pairs |= {(o, name) for o in others if direction != "from"}
        cut = self._simulation.network.cut
        cut |= pairs
        self._world.after(seconds, lambda: cut.difference_update(pairs))
