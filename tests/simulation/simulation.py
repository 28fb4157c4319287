"""One play: a cluster under load and faults from a seed, then healed, then judged for progress."""

from __future__ import annotations

from replicad.core.cluster import ClusterConfig, ClusterState, majority
from replicad.core.cluster import Disk as DiskName
from tests.simulation.clients import Clients
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import CLUSTER_ID, Disk
from tests.simulation.judge import Judge
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.world import World


class Simulation:
    """A cluster of three (sometimes one or five) replicas."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        rng = self.world.rng
        replicas = rng.choice((1, 3, 3, 3, 3, 5))
        self.names = tuple(f"n{number}" for number in range(1, replicas + 1))
        min_in_sync = rng.choice((majority(replicas), majority(replicas), replicas))
        self.judge = Judge()
        config = ClusterConfig(CLUSTER_ID, self.names, min_in_sync)
        self.coordinator = Coordinator(self.world, config)
        self.coordinator.on_change = self.check_electable
        self.network = Network(self)
        self.clients = Clients(self)
        self.skew = {name: rng.uniform(-3_600_000, 3_600_000) for name in self.names}
        self.crash_between_effects = 0.0
        self.disks = {name: Disk(name, self._new_id()) for name in self.names}
        self.nodes: dict[str, Node] = {}
        for name in self.names:
            self.start(name)
        isr = tuple(DiskName(name, self.disks[name].disk_id) for name in self.names)
        self.coordinator.create(ClusterState(0, None, None, None, isr, "first"))

    # -- the play -----------------------------------------------------------------------------

    def run_faulty(self, seconds: float) -> None:
        """Load and faults; every step is judged."""
        rng = self.world.rng
        self.network.loss = rng.choice((0.0, 0.0, 0.01, 0.1))
        self.network.doubling = rng.choice((0.0, 0.02))
        self.network.reordering = rng.choice((0.0, 0.02))
        self.coordinator.reply_loss = rng.choice((0.0, 0.1, 0.3))
        self.crash_between_effects = rng.choice((0.0, 0.0005, 0.002))
        self._faults = True
        self._load()
        self._misfortune()
        self._until(self.world.now + seconds)

    def heal(self) -> None:
        """No more faults; what is down comes up."""
        self._faults = False
        self.network.loss = self.network.doubling = self.network.reordering = 0.0
        self.network.cut.clear()
        self.coordinator.reply_loss = 0.0
        self.crash_between_effects = 0.0
        for name in self.names:
            self.disks[name].full = False
            if name not in self.nodes:
                self.start(name)

    def run_until_converged(self, seconds_max: float) -> None:
        """Every replica in sync, every write settled, all logs equal; or fail."""
        deadline = self.world.now + seconds_max
        while not self.converged():
            assert self.world.now < deadline, "no progress after healing"
            self.world.step()

    def converged(self) -> bool:
        state = self.coordinator.state
        if state is None or len(state.isr) != len(self.names) or self.clients.unsettled:
            return False
        logs = [tuple(disk.lines) for disk in self.disks.values()]
        level = {disk.applied for disk in self.disks.values()} == {len(logs[0])}
        return level and all(log == logs[0] for log in logs)

    # -- faults -------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        if name not in self.nodes:
            self.world.log(f"start {name}")
            self.nodes[name] = Node(self, self.disks[name], self._new_id())

    def crash(self, node: Node, *, power: bool) -> None:
        if not node.alive:
            return
        self.world.log(f"{'power cut' if power else 'kill'} {node.name}")
        node.stop()
        del self.nodes[node.name]
        if power:
            node.disk.lose_power(self.world.rng)
        self.check_electable()
        if self._faults:
            delay = self.world.rng.choice((0.05, 0.5, 3.0))
            self.world.after(delay, lambda: self.start(node.name))

    def wipe(self, name: str) -> None:
        """A new disk under an old name, if enough electable replicas remain to lose one."""
        state = self.coordinator.state
        if state is None:
            return
        whole = [d for d in state.isr if self.disks[d.node].disk_id == d.disk_id]
        if len(whole) < 2 and any(d.node == name for d in whole):
            return
        node = self.nodes.get(name)
        if node is not None:
            self.crash(node, power=True)
        self.world.log(f"wipe {name}")
        self.disks[name] = Disk(name, self._new_id())

    def some_leader(self) -> Node | None:
        """Whom a client would ask: whoever believes to lead, which may be a deposed one."""
        leaders = [node for node in self.nodes.values() if node.leads]
        return self.world.rng.choice(leaders) if leaders else None

    def check_electable(self) -> None:
        self.judge.check_electable(self.coordinator, self.disks.values())

    def _load(self) -> None:
        if not self._faults:
            return
        if self.world.chance(0.7):
            self.clients.write()
        else:
            self.clients.read()
        self.world.after(self.world.rng.expovariate(20.0), self._load)

    def _misfortune(self) -> None:
        if not self._faults:
            return
        rng = self.world.rng
        name = rng.choice(self.names)
        node = self.nodes.get(name)
        leaders = [n for n in self.nodes.values() if n.leads]
        if leaders and rng.random() < 0.4:
            node = leaders[0]
            name = node.name
        choice = rng.random()
        if choice < 0.3 and node is not None:
            self.crash(node, power=rng.random() < 0.5)
        elif choice < 0.45 and node is not None:
            self.world.log(f"pause {name}")
            node.pause(rng.choice((0.2, 1.5, 4.0)))
        elif choice < 0.6:
            self._cut_off(name)
        elif choice < 0.7 and node is not None:
            self.world.log(f"session of {name} expires")
            self.coordinator.expire_now(node.incarnation)
        elif choice < 0.8:
            self.world.log(f"disk full {name}")
            disk = self.disks[name]
            disk.full = True
            self.world.after(1.0, lambda: setattr(disk, "full", False))
        elif choice < 0.85:
            self.wipe(name)
        self.world.after(rng.uniform(0.3, 3.0), self._misfortune)

    def _cut_off(self, name: str) -> None:
        """No messages to, from, or both, for a while."""
        self.world.log(f"cut {name}")
        others = [other for other in self.names if other != name]
        direction = self.world.rng.choice(("to", "from", "both"))
        pairs = {(name, o) for o in others if direction != "to"}
        pairs |= {(o, name) for o in others if direction != "from"}
        self.network.cut |= pairs
        self.world.after(
            self.world.rng.uniform(0.2, 4.0), lambda: self.network.cut.difference_update(pairs)
        )

    def _until(self, time: float) -> None:
        while self.world.now < time:
            self.world.step()

    def _new_id(self) -> str:
        return f"{self.world.rng.getrandbits(64):016x}"
