"""What goes wrong in a play: one fault after another, often before the last one has healed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from replicad.core.cluster import ClusterState

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.simulation import Simulation


class Faults:
    """Chooses faults, mostly against whoever leads.

    Each play has only some kinds of them: what one kind hides another shows.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self.active = False
        self._pause_s = self._ambushes = 0.0
        self._kinds: list[Callable[[str], None]] = []

    def begin(self) -> None:
        """From now on things go wrong. How often is a matter of the seed."""
        rng = self._world.rng
        simulation = self._simulation
        broker, coordinator = simulation.broker, simulation.coordinator
        broker.loss = rng.choice((0.0, 0.0, 0.01, 0.1))
        broker.doubling = rng.choice((0.0, 0.02))
        broker.reordering = rng.choice((0.0, 0.02))
        coordinator.disconnects = rng.choice((0.0, 0.2, 0.4))
        coordinator.lag = rng.choice((0.0, 0.2, 0.5))
        coordinator.slow = rng.choice((0.02, 0.02, 0.2))
        simulation.crash_between_effects = rng.choice((0.0, 0.0005, 0.002))
        simulation.slow_disks = set(rng.sample(simulation.names, rng.choice((0, 0, 1))))
        simulation.hung_syncs = rng.choice((0.0, 0.0, 0.003))
        simulation.sync_failures = rng.choice((0.0, 0.0, 0.005))
        if rng.random() < 0.7:
            simulation.retention = {name: rng.choice((0.0, 0.5)) for name in simulation.names}
        simulation.torn_installs = 0.2
        self._ambushes = rng.choice((0.0, 0.0, 0.3))
        self._pause_s = rng.choice((0.3, 1.0, 2.5))
        kinds = (
            *(self._kill, self._kill, self._kill),
            *(self._pause, self._cut_messages, self._cut_coordinator, self._isolate),
            *(self._lag_behind, self._jump_clock),
            *(self._isolate_and_bounce_others, self._expire, self._fill_disk),
            *(simulation.swap_disk, simulation.swap_disk, self._damage_disk),
            *(self._stop, self._transfer, self._disconnect, self._sever),
            *(self._restart_broker, self._stall_broker, self._block_broker),
        )
        self._kinds = rng.sample(kinds, rng.randint(3, len(kinds)))
        coordinator.on_doubt = self._on_doubt
        self.active = True
        self._strike()

    def end(self) -> None:
        simulation = self._simulation
        simulation.broker.heal()
        simulation.coordinator.slow = 0.02
        simulation.slow_disks.clear()
        simulation.coordinator.disconnects = simulation.coordinator.lag = 0.0
        simulation.crash_between_effects = 0.0
        simulation.hung_syncs = simulation.sync_failures = simulation.torn_installs = 0.0
        for disk in simulation.disks.values():
            disk.full = False
        self.active = False

    def on_state(self) -> None:
        """The state has changed: somebody may die before all know it, or be shown the old one."""
        rng = self._world.rng
        if not self.active or rng.random() >= self._ambushes:
            return
        name = rng.choice(self._simulation.names)
        self._world.after(rng.uniform(0.0, 0.05), lambda: self._bounce(name))
        leader = self._simulation.some_leader()
        if leader is not None and leader.name != name:
            self._world.after(rng.uniform(0.0, 0.05), lambda: self._lag_behind(leader.name))

    def _strike(self) -> None:
        if not self.active:
            return
        rng = self._world.rng
        name = rng.choice(self._simulation.names)
        leader = self._simulation.some_leader()
        if leader is not None and rng.random() < 0.5:
            name = leader.name
        rng.choice(self._kinds)(name)
        self._world.after(rng.uniform(0.1, self._pause_s), self._strike)

    def _on_doubt(self, state: ClusterState) -> None:
        """Handling doubt badly shows when who was to join dies before it is resolved."""
        if self._world.chance(0.7):
            name = self._world.rng.choice((state.isr[-1].node, *self._simulation.names))
            delay = self._world.rng.choice((0.0, self._world.rng.uniform(0.0, 0.5)))
            self._world.after(delay, lambda: self._bounce(name))

    # -- processes and machines ---------------------------------------------------------------

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

    def _stop(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None and not node.leaving:
            self._world.log(f"ask {name} to stop")
            node.ask_stop()

    def _transfer(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            to = self._world.rng.choice((None, *self._simulation.names))
            self._world.log(f"ask {name} to hand over to {to or 'anybody'}")
            self._simulation.ask_transfer(node, to)

    def _jump_clock(self, name: str) -> None:
        self._world.log(f"the clock of {name} jumps")
        self._simulation.skew[name] = self._world.rng.uniform(-3_600_000, 3_600_000)

    def _fill_disk(self, name: str) -> None:
        self._world.log(f"disk full {name}")
        disk = self._simulation.disks[name]
        disk.full = True
        self._world.after(1.0, lambda: setattr(disk, "full", False))

    def _damage_disk(self, name: str) -> None:
        """Noticed when the process starts, or when it reads the line."""
        disk = self._simulation.disks[name]
        if disk.synced and not disk.damaged and self._simulation.may_lose(disk):
            self._world.log(f"damage the disk of {name}")
            disk.damage(self._world.rng)
            if self._world.chance(0.7):
                self._kill(name)

    # -- the coordinator ----------------------------------------------------------------------

    def _cut_coordinator(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"cut {name} from the coordinator")
            self._simulation.coordinator.cut(node.incarnation, self._world.rng.uniform(0.2, 4.0))

    def _expire(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"session of {name} expires")
            self._simulation.coordinator.expire(node.incarnation)

    def _lag_behind(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"the coordinator of {name} lags")
            self._simulation.coordinator.show_old(node.incarnation)

    # -- messages -----------------------------------------------------------------------------

    def _cut_messages(self, name: str) -> None:
        """No messages to or from, or both, for a while."""
        self._world.log(f"cut {name}")
        direction = self._world.rng.choice(("to", "from", "both"))
        self._cut(name, direction, self._world.rng.uniform(0.2, 4.0))

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
            if self._world.chance(0.3):
                self._lose_connection(node)

    def _isolate_and_bounce_others(self, name: str) -> None:
        """A double failover while a deposed leader goes on talking."""
        self._isolate(name)
        for other in self._simulation.names:
            if other != name:
                self._world.after(self._world.rng.uniform(1.2, 3.0), partial(self._bounce, other))

    def _cut(self, name: str, direction: str, seconds: float) -> None:
        others = [other for other in self._simulation.names if other != name]
        pairs = {(name, o) for o in others if direction != "to"}
        pairs |= {(o, name) for o in others if direction != "from"}
        cut = self._simulation.broker.cut
        cut |= pairs
        self._world.after(seconds, lambda: cut.difference_update(pairs))

    # -- the broker ---------------------------------------------------------------------------

    def _disconnect(self, name: str) -> None:
        node = self._simulation.nodes.get(name)
        if node is not None:
            self._world.log(f"{name} loses its connection to the broker")
            self._lose_connection(node)

    def _lose_connection(self, node: Node) -> None:
        """Either end may be late to notice."""
        rng = self._world.rng
        late = rng.uniform(0.0, 3.0)
        broker_after_s, process_after_s = rng.choice(((0.0, 0.01), (0.0, late), (late, 0.01)))
        self._simulation.broker.disconnect(
            node, broker_after_s=broker_after_s, process_after_s=process_after_s
        )

    def _sever(self, name: str) -> None:
        self._world.log(f"sever {name} from the broker")
        self._simulation.broker.sever(name, self._world.rng.uniform(0.2, 3.0))

    def _restart_broker(self, name: str) -> None:
        self._world.log("the broker restarts")
        self._simulation.broker.restart(self._world.rng.uniform(0.05, 1.5))

    def _stall_broker(self, name: str) -> None:
        self._world.log("the broker stalls")
        self._simulation.broker.stall(self._world.rng.uniform(0.1, 3.0))

    def _block_broker(self, name: str) -> None:
        self._world.log("the broker blocks")
        self._simulation.broker.block(self._world.rng.uniform(0.1, 3.0))
