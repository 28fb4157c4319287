"""One play: a cluster under load and faults from a seed, then healed, then judged for progress."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from replicad.core.cluster import ClusterConfig, ClusterState, majority
from replicad.core.cluster import Disk as DiskName
from replicad.core.effects import AnswerTransfer
from replicad.core.repair import Verdict, judge_repair
from tests.simulation.broker import Broker
from tests.simulation.clients import Clients
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import CLUSTER_ID, GENESIS, DamagedError, Disk, Recovered
from tests.simulation.faults import Faults
from tests.simulation.judge import Judge
from tests.simulation.node import Node
from tests.simulation.world import World

FAULTY_S = 12.0
LIMPING_S = 30.0
CONVERGING_S = 60.0
# Longer than the daemon's: plays are made of faults, not of ticks.
TICK_S = 0.1


@dataclass(frozen=True)
class _Transfer:
    node: str
    epoch: int


class Simulation:
    """A cluster of three (sometimes one or five) replicas."""

    def __init__(
        self,
        seed: int,
        *,
        replicas: tuple[int, ...] = (1, 3, 3, 3, 3, 3, 3, 5),
        strict: bool = True,
        verbose: bool = False,
    ) -> None:
        """Start it. Everybody in sync must ack in some plays, unless it is not to be `strict`."""
        self.seed = seed
        self.world = World(seed, verbose=verbose)
        rng = self.world.rng
        count = rng.choice(replicas)
        self.names = tuple(f"n{number}" for number in range(1, count + 1))
        min_in_sync = (
            rng.choice((majority(count), majority(count), count)) if strict else majority(count)
        )
        self.judge = Judge()
        config = ClusterConfig(CLUSTER_ID, self.names, min_in_sync)
        self.coordinator = Coordinator(self.world, config)
        self.coordinator.on_change = self._on_state
        self.broker = Broker(self)
        self.clients = Clients(self)
        self.faults = Faults(self)
        self.tick_s = TICK_S
        self.skew = {name: rng.uniform(-3_600_000, 3_600_000) for name in self.names}
        self.crash_between_effects = 0.0
        self.slow_syncs = 0.02
        self.slow_disks: set[str] = set()
        self.hung_syncs = 0.0
        self.sync_failures = 0.0
        self.retention = dict.fromkeys(self.names, 0.0)
        """How often, of ticks, a log is looked at for what may be dropped."""
        self.torn_installs = 0.0
        self.disks = {name: Disk(name, self._new_id()) for name in self.names}
        self.shelf: dict[str, list[Disk]] = {name: [] for name in self.names}
        """Disks that were taken out of a machine and may be put back."""
        self.nodes: dict[str, Node] = {}
        self._down: set[str] = set()
        self._transfers: dict[int, _Transfer] = {}
        isr = tuple(DiskName(name, self.disks[name].disk_id) for name in self.names)
        self.coordinator.create(ClusterState(0, None, None, None, isr, "first"))
        for name in self.names:
            self.start(name)

    @property
    def simulation(self) -> Simulation:
        """As in a calm play."""
        return self

    def play(self) -> None:
        """All of it. Safety is judged at every step, before healing could hide a premature reply.

        Raises:
            AssertionError: The protocol broke a promise; `world.trace` tells how it came about.
        """
        self.run_faulty(FAULTY_S)
        self.limp(LIMPING_S)
        self.heal()
        self.run_until_converged(CONVERGING_S)
        for disk in self.disks.values():
            self.judge.check_rows(disk)

    def run_faulty(self, seconds: float) -> None:
        """Load and faults; every step is judged."""
        self.faults.begin()
        self._load()
        self.world.until(self.world.now + seconds)
        self.faults.end()

    def limp(self, seconds_max: float) -> None:
        """As many as may be down go down: the others settle every write without them; or fail."""
        may_lack = len(self.names) - self.coordinator.config.min_in_sync
        down = self._down
        for name in self.world.rng.sample(self.names, len(self.names)):
            electable = {disk.node for disk in self._electable()}
            if len(down) < may_lack and not electable <= {*down, name}:
                down.add(name)
        for node in list(self.nodes.values()):
            # A scrub would find what nobody has noticed; who is leaving must be started again.
            if node.name in down or node.leaving or node.disk.damaged:
                self.crash(node, power=self.world.chance(0.5))
        for name in self.names:
            self.start(name)
        self.world.log(f"no more faults; down: {sorted(down)}")
        deadline = self.world.now + seconds_max
        while self.clients.unsettled:
            self._bring_one_who_may_lead()
            assert self.world.now < deadline, f"no progress without {sorted(down)}"
            self.world.step()

    def heal(self) -> None:
        """What is down comes up."""
        self.world.log("heal")
        self._down.clear()
        for name in self.names:
            self.start(name)

    def run_until_converged(self, seconds_max: float) -> None:
        """Every replica in sync and all logs equal; or fail."""
        deadline = self.world.now + seconds_max
        while not self.converged():
            assert self.world.now < deadline, "no progress after healing"
            self.world.step()

    def converged(self) -> bool:
        """Chained digests: logs that end alike are alike."""
        disks = list(self.disks.values())
        if not self.judge.committed:
            return False
        last, digest = len(self.judge.committed), self.judge.committed[-1]
        return len(self._electable()) == len(disks) and all(
            disk.applied == disk.last == last and disk.holds(last, digest) for disk in disks
        )

    # -- processes ----------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start the process, or try again a moment later if its disk cannot be repaired yet."""
        if name in self.nodes or name in self._down:
            return
        recovered = self._recover(self.disks[name])
        if recovered is None:
            self.world.after(0.5, lambda: self.start(name))
            return
        self.world.log(
            f"start {name}: {recovered.log.last} entries, {recovered.commit} committed, "
            f"{recovered.torn} cut as torn"
        )
        node = self.nodes[name] = Node(self, self.disks[name], recovered, self._new_id())
        node.boot()
        self.check_electable()

    def crash(self, node: Node, *, power: bool) -> None:
        """The process ends without a word; with `power`, so does its machine."""
        if not node.alive:
            return
        self.world.log(f"{'power cut' if power else 'kill'} {node.name}")
        if power:
            node.disk.lose_power(self.world.rng)
        # The broker holds the connection of a machine that is gone until heartbeats are missing.
        self._end(node, lingering_s=self.world.rng.uniform(0.0, 3.0) if power else 0.0)
        self.coordinator.leave(node.incarnation)
        self.check_electable()

    def stopped(self, node: Node) -> None:
        """The process that was asked to stop does so, as soon as it is able to."""

        def stop() -> None:
            if node.is_behind:  # It answers first what it has read.
                self.world.after(0.001, lambda: self.stopped(node))
            elif node.alive:
                self.world.log(f"{node.name} stops")
                node.disk.sync()
                node.disk.mark_synced(node.context.log)
                self._end(node, lingering_s=0.0)
                self.coordinator.leave(node.incarnation, politely=True)

        node.do(stop, "itself")

    def _end(self, node: Node, *, lingering_s: float) -> None:
        node.end()
        del self.nodes[node.name]
        self.judge.ends(node.disk)
        self.broker.end(node, lingering_s=lingering_s)
        self.clients.on_end(node)
        delay = self.world.rng.choice((0.0, 0.05, 0.5, 3.0))
        self.world.after(delay, lambda: self._restart(node.name))

    def _restart(self, name: str) -> None:
        if self.faults.active:
            self.start(name)

    def some_leader(self) -> Node | None:
        """Whom a client would ask: whoever believes to lead, which may be a deposed one."""
        leaders = [node for node in self.nodes.values() if node.leads]
        return self.world.rng.choice(leaders) if leaders else None

    def ask_transfer(self, node: Node, to: str | None) -> None:
        token = -1 - len(self._transfers)
        self._transfers[token] = _Transfer(node.name, node.context.epoch)
        node.transfer(token, to)

    def on_transfer(self, node: Node, answer: AnswerTransfer) -> None:
        """Who is said to have taken over has done so."""
        asked = self._transfers[answer.token]
        self.world.log(f"{node.name}: transferred to {answer.leader} {answer.reason}")
        if answer.leader is not None and answer.leader != asked.node:
            led = [e for e, leader in self.coordinator.leaders.items() if leader == answer.leader]
            assert led, f"{answer.leader} never took over"
            assert max(led) > asked.epoch, f"{answer.leader} did not take over"

    # -- disks --------------------------------------------------------------------------------

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

    def may_lose(self, disk: Disk) -> bool:
        """Whether what is acknowledged survives the loss of this disk, whatever happens next.

        Everybody else in sync must be sound: then it is one disk that is lost at a time, and the
        next state, if a proposal is under way, still names a sound one.
        """
        state = self.coordinator.state
        others = {m.disk_id for m in state.isr} - {disk.disk_id} if state else set()
        sound = {d.disk_id for d in self._all_disks() if not (d.damaged or d.failed)}
        return bool(others) and others <= sound

    def may_fail_sync(self, node: Node) -> bool:
        return self.world.chance(self.sync_failures) and self.may_lose(node.disk)

    def fail_sync(self, node: Node) -> None:
        """The process ends; what was not synced before may never be."""
        self.world.log(f"a sync of {node.name} fails")
        node.disk.failed = True
        self.crash(node, power=self.world.chance(0.3))

    def _on_state(self) -> None:
        self.judge.check_state(self.coordinator.state, self.coordinator.config)
        self.faults.on_state()
        self.check_electable()

    def check_electable(self) -> None:
        self.judge.check_electable(self.coordinator.state, self._all_disks())

    def _all_disks(self) -> Iterator[Disk]:
        yield from self.disks.values()
        for shelf in self.shelf.values():
            yield from shelf

    def _electable(self) -> list[Disk]:
        """The sound disks in machines that the state names as in sync."""
        members = self._members()
        sound = (d for d in self.disks.values() if not (d.damaged or d.failed))
        return [disk for disk in sound if disk.disk_id in members]

    def _members(self) -> set[str]:
        state = self.coordinator.state
        return {member.disk_id for member in state.isr} if state else set()

    def _recover(self, disk: Disk) -> Recovered | None:
        """What the daemon does at its start. A damaged disk gets a new id and is repaired."""
        try:
            return disk.recover()
        except DamagedError as error:
            why = str(error)
        self.world.log(f"the disk of {disk.node} is suspect: {why}")
        lost = disk.damaged or disk.failed or disk.disk_id not in self._members()
        assert lost, f"a power cut alone looks like damage to {disk.node}: {why}"
        view = self.coordinator.view()
        verdict = judge_repair(view, DiskName(disk.node, disk.disk_id), CLUSTER_ID)
        if verdict is Verdict.WAIT:
            return None
        disk.replace(self._new_id(), view.state.epoch if view.state else 0)
        return self._repaired(disk)

    def _repaired(self, disk: Disk) -> Recovered:
        """Fill what is damaged from a peer, or cut there."""
        while True:
            try:
                return disk.recover()
            except DamagedError as error:
                at = error.at
            if at == 0:
                disk.begin_after(GENESIS)
                continue
            peers = [
                n.disk
                for n in self.nodes.values()
                if n.context.commit >= at > n.context.log.base.index
            ]
            if peers and self.world.chance(0.5):
                disk.fill(at, peers[0].line(at))
            else:
                disk.cut(at)

    def _bring_one_who_may_lead(self) -> None:
        """A proposal that arrived very late may leave in sync only who is down: an operator helps.

        That is no fault of the protocol's: more disks are gone than the cluster can do without.
        """
        electable = self._electable()
        if any(disk.node in self.nodes for disk in electable):
            return
        if not electable:
            members = self._members()
            shelved = (disk for shelf in self.shelf.values() for disk in shelf)
            self._put(next(disk for disk in shelved if disk.disk_id in members))
        for disk in self._electable():
            self._down.discard(disk.node)
            self.start(disk.node)

    def _put(self, disk: Disk) -> None:
        node = self.nodes.get(disk.node)
        if node is not None:
            self.crash(node, power=True)
        else:
            self.disks[disk.node].lose_power(self.world.rng)
            self.judge.ends(self.disks[disk.node])
        self.world.log(f"{disk.node} gets an {'old' if disk.last else 'empty'} disk")
        self.shelf[disk.node].remove(disk)
        self.shelf[disk.node].append(self.disks[disk.node])
        self.disks[disk.node] = disk

    def _load(self) -> None:
        if not self.faults.active:
            return
        if self.world.chance(0.7):
            self.clients.write()
        else:
            self.clients.read()
        self.world.after(self.world.rng.expovariate(20.0), self._load)

    def _new_id(self) -> str:
        return f"{self.world.rng.getrandbits(64):016x}"
