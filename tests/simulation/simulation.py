"""One play: a cluster under load and faults from a seed, then healed, then judged for progress."""

from __future__ import annotations

from replicad.core.cluster import ClusterConfig, ClusterState, majority
from replicad.core.cluster import Disk as DiskName
from tests.simulation.clients import Clients
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import CLUSTER_ID, Disk
from tests.simulation.faults import Faults
from tests.simulation.judge import Judge
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.world import World

FAULTY_S = 12.0
LIMPING_S = 30.0
CONVERGING_S = 60.0


class Simulation:
    """A cluster of three (sometimes one or five) replicas."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        rng = self.world.rng
        replicas = rng.choice((1, 3, 3, 3, 3, 3, 3, 5))
        self.names = tuple(f"n{number}" for number in range(1, replicas + 1))
        min_in_sync = rng.choice((majority(replicas), majority(replicas), replicas))
        self.judge = Judge()
        config = ClusterConfig(CLUSTER_ID, self.names, min_in_sync)
        self.coordinator = Coordinator(self.world, config)
        self.coordinator.on_change = self.check_electable
        self.network = Network(self)
        self.clients = Clients(self)
        self.faults = Faults(self)
        self.skew = {name: rng.uniform(-3_600_000, 3_600_000) for name in self.names}
        self.crash_between_effects = 0.0
        self.disks = {name: Disk(name, self._new_id()) for name in self.names}
        self.shelf: dict[str, list[Disk]] = {name: [] for name in self.names}
        """Disks that were taken out of a machine and may be put back."""
        self.nodes: dict[str, Node] = {}
        for name in self.names:
            self.start(name)
        isr = tuple(DiskName(name, self.disks[name].disk_id) for name in self.names)
        self.coordinator.create(ClusterState(0, None, None, None, isr, "first"))

    def play(self) -> None:
        """All of it. Safety is judged at every step, before healing could hide a premature reply.

        Raises:
            AssertionError: The protocol broke a promise; `world.trace` tells how it came about.
        """
        self.run_faulty(FAULTY_S)
        self.limp(LIMPING_S)
        self.heal()
        self.run_until_converged(CONVERGING_S)

    def run_faulty(self, seconds: float) -> None:
        """Load and faults; every step is judged."""
        self.faults.begin()
        self._load()
        self._until(self.world.now + seconds)
        self.faults.end()

    def limp(self, seconds_max: float) -> None:
        """As many as may be down go down: the others settle every write without them; or fail."""
        may_lack = len(self.names) - self.coordinator.config.min_in_sync
        down: list[str] = []
        for name in self.world.rng.sample(self.names, len(self.names)):
            electable = {disk.node for disk in self._electable()}
            if len(down) < may_lack and not electable <= {*down, name}:
                down.append(name)
        for name in self.names:
            if name not in down:
                self.start(name)
            elif name in self.nodes:
                self.crash(self.nodes[name], power=self.world.chance(0.5))
        self.world.log(f"no more faults; down: {down}")
        deadline = self.world.now + seconds_max
        while self.clients.unsettled:
            self._bring_one_who_may_lead()
            assert self.world.now < deadline, f"no progress without {down}"
            self.world.step()

    def heal(self) -> None:
        """What is down comes up."""
        self.world.log("heal")
        for name in self.names:
            self.start(name)

    def run_until_converged(self, seconds_max: float) -> None:
        """Every replica in sync and all logs equal; or fail."""
        deadline = self.world.now + seconds_max
        while not self.converged():
            assert self.world.now < deadline, "no progress after healing"
            self.world.step()

    def converged(self) -> bool:
        disks = list(self.disks.values())
        last = len(disks[0].lines)
        if any(disk.applied != last or len(disk.lines) != last for disk in disks):
            return False
        return len(self._electable()) == len(disks) and all(
            d.lines == disks[0].lines for d in disks
        )

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
        delay = self.world.rng.choice((0.0, 0.05, 0.5, 3.0))
        self.world.after(delay, lambda: self._restart(node.name))

    def swap_disk(self, name: str) -> None:
        """Another disk under the name: an empty one, or one that was there before.

        Only if an electable disk remains elsewhere: without any the play would stand still.
        """
        if all(disk.node == name for disk in self._electable()):
            return
        shelf = self.shelf[name]
        if not shelf or self.world.chance(0.5):
            shelf.append(Disk(name, self._new_id()))
        self._put(self.world.rng.choice(shelf))

    def some_leader(self) -> Node | None:
        """Whom a client would ask: whoever believes to lead, which may be a deposed one."""
        leaders = [node for node in self.nodes.values() if node.leads]
        return self.world.rng.choice(leaders) if leaders else None

    def check_electable(self) -> None:
        for disks in (self.disks.values(), *self.shelf.values()):
            self.judge.check_electable(self.coordinator.state, disks)

    def _electable(self) -> list[Disk]:
        """The disks in machines that the state names as in sync."""
        state = self.coordinator.state
        members = {member.disk_id for member in state.isr} if state else set()
        return [disk for disk in self.disks.values() if disk.disk_id in members]

    def _bring_one_who_may_lead(self) -> None:
        """A proposal that arrived very late may leave in sync only who is down: an operator helps.

        That is no fault of the protocol's: more disks are gone than the cluster can do without.
        """
        electable = self._electable()
        if any(disk.node in self.nodes for disk in electable):
            return
        if not electable:
            state = self.coordinator.state
            members = {member.disk_id for member in state.isr} if state else set()
            shelved = (disk for shelf in self.shelf.values() for disk in shelf)
            self._put(next(disk for disk in shelved if disk.disk_id in members))
        for disk in self._electable():
            self.start(disk.node)

    def _put(self, disk: Disk) -> None:
        node = self.nodes.get(disk.node)
        if node is not None:
            self.crash(node, power=True)
        self.world.log(f"{disk.node} gets an {'old' if disk.lines else 'empty'} disk")
        self.shelf[disk.node].remove(disk)
        self.shelf[disk.node].append(self.disks[disk.node])
        self.disks[disk.node] = disk

    def _restart(self, name: str) -> None:
        if self.faults.active:
            self.start(name)

    def _load(self) -> None:
        if not self.faults.active:
            return
        if self.world.chance(0.7):
            self.clients.write()
        else:
            self.clients.read()
        self.world.after(self.world.rng.expovariate(20.0), self._load)

    def _until(self, time: float) -> None:
        while self.world.now < time:
            self.world.step()

    def _new_id(self) -> str:
        return f"{self.world.rng.getrandbits(64):016x}"
