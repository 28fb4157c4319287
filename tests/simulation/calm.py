"""Plays in which one single thing happens to a healthy cluster, and how well it copes.

What a storm of faults would excuse is demanded here: a polite stop or a transfer fails no request,
a dead leader is replaced long before its session ends, and nobody is replaced needlessly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from replicad.core.cluster import ClusterState
from tests.simulation.coordinator import SESSION_S
from tests.simulation.node import Node
from tests.simulation.simulation import Simulation

SETTLING_S = 1.5
WATCHED_S = 4.0
CONVERGING_S = 20.0
WRITES_PER_S = 40.0
# The daemon's own.
TICK_S = 0.02


@dataclass(frozen=True)
class Demand:
    """What must be true of the time after an event.

    Attributes:
        gap_s: The longest time without an acknowledged write.
        replaced_s: After how long another leader is named at the latest; None if it may stay.
        stays: The epoch is the same afterwards: nobody was elected.
        keeps_isr: Nobody has left the ISR.
        fails_nothing: No attempt ended without an answer or with an unknown outcome.
    """

    gap_s: float
    replaced_s: float | None = None
    stays: bool = False
    keeps_isr: bool = False
    fails_nothing: bool = False


class Calm:
    """One play: load, one event, more load, and a verdict."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.simulation = Simulation(seed, replicas=(3, 3, 5), strict=False, verbose=verbose)
        self.world = self.simulation.world
        self.simulation.tick_s = TICK_S
        self.simulation.slow_syncs = self.simulation.coordinator.slow = 0.0
        self.simulation.clients.patient = True
        self.simulation.clients.retry_s = TICK_S
        self._loaded = True

    def play(self) -> None:
        """All of it.

        Raises:
            AssertionError: The cluster coped badly, or broke a promise.
        """
        simulation, rng = self.simulation, self.world.rng
        self._load()
        self.world.until(SETTLING_S)
        leader = simulation.some_leader()
        assert leader is not None, "no leader in a healthy cluster"
        follower = rng.choice([node for node in simulation.nodes.values() if node is not leader])
        event = rng.choice(list(EVENTS))
        self.world.log(f"event: {event.__name__}; leader {leader.name}, follower {follower.name}")
        before, since = simulation.coordinator.state, self.world.now
        assert before is not None
        simulation.clients.failed = 0
        event(self, leader, follower)
        self._watch(event.__name__, EVENTS[event], before, since)
        self._loaded = False
        simulation.heal()
        deadline = self.world.now + CONVERGING_S
        while simulation.clients.unsettled or not simulation.converged():
            assert self.world.now < deadline, "no progress after healing"
            self.world.step()

    def _watch(self, event: str, demand: Demand, before: ClusterState, since: float) -> None:
        simulation = self.simulation
        if demand.replaced_s is not None:
            self.world.until(since + demand.replaced_s)
            now = simulation.coordinator.state
            assert now is not None
            assert now.epoch > before.epoch, f"{event}: nobody took over in time"
            assert now.leader not in (None, before.leader), f"{event}: nobody took over in time"
        self.world.until(since + WATCHED_S)
        after = simulation.coordinator.state
        assert after is not None
        if demand.stays:
            assert after.epoch == before.epoch, f"{event}: replaced needlessly"
        if demand.keeps_isr:
            assert set(after.isr) == set(before.isr), f"{event}: the ISR has changed"
        if demand.fails_nothing:
            assert not simulation.clients.failed, f"{event}: an attempt failed"
        times = [since, *(t for t in simulation.clients.settled_at if t > since), self.world.now]
        gap = max(later - earlier for earlier, later in pairwise(times))
        assert gap <= demand.gap_s, f"{event}: {gap:.3f} s without an acknowledged write"

    def _load(self) -> None:
        if self._loaded:
            self.simulation.clients.write()
            self.world.after(self.world.rng.uniform(0.0, 2.0 / WRITES_PER_S), self._load)

    # -- what happens -------------------------------------------------------------------------

    def stop_leader(self, leader: Node, _: Node) -> None:
        leader.ask_stop()

    def stop_follower(self, _: Node, follower: Node) -> None:
        follower.ask_stop()

    def transfer(self, leader: Node, follower: Node) -> None:
        self.simulation.ask_transfer(leader, self.world.rng.choice((None, follower.name)))

    def kill_leader(self, leader: Node, _: Node) -> None:
        self.simulation.crash(leader, power=False)

    def kill_follower(self, _: Node, follower: Node) -> None:
        self.simulation.crash(follower, power=False)

    def cut_power_of_leader(self, leader: Node, _: Node) -> None:
        self.simulation.crash(leader, power=True)

    def pause_leader(self, leader: Node, _: Node) -> None:
        leader.pause(self.world.rng.uniform(0.05, 0.95 * SESSION_S))

    def pause_follower(self, _: Node, follower: Node) -> None:
        follower.pause(self.world.rng.uniform(0.05, 0.8))

    def hang_disk_of_leader(self, leader: Node, _: Node) -> None:
        leader.block(self.world.rng.uniform(0.05, 3.0))

    def restart_broker(self, _: Node, __: Node) -> None:
        self.simulation.broker.restart(self.world.rng.uniform(0.05, 1.5))

    def stall_broker(self, _: Node, __: Node) -> None:
        self.simulation.broker.stall(self.world.rng.uniform(0.05, 2.0))

    def block_broker(self, _: Node, __: Node) -> None:
        self.simulation.broker.block(self.world.rng.uniform(0.05, 2.0))

    def disconnect_leader(self, leader: Node, _: Node) -> None:
        self.simulation.broker.disconnect(leader, broker_after_s=0.0, process_after_s=0.01)

    def disconnect_follower(self, _: Node, follower: Node) -> None:
        self.simulation.broker.disconnect(follower, broker_after_s=0.0, process_after_s=0.01)

    def expire_session_of_leader(self, leader: Node, _: Node) -> None:
        self.simulation.coordinator.expire(leader.incarnation)

    def expire_session_of_follower(self, _: Node, follower: Node) -> None:
        self.simulation.coordinator.expire(follower.incarnation)


EVENTS: dict[Callable[[Calm, Node, Node], None], Demand] = {
    Calm.stop_leader: Demand(gap_s=0.2, replaced_s=0.2, fails_nothing=True),
    Calm.stop_follower: Demand(gap_s=0.2, stays=True, fails_nothing=True),
    Calm.transfer: Demand(gap_s=0.25, replaced_s=0.2, fails_nothing=True, keeps_isr=True),
    Calm.kill_leader: Demand(gap_s=0.35, replaced_s=0.35),
    Calm.kill_follower: Demand(gap_s=0.3, stays=True, fails_nothing=True),
    Calm.cut_power_of_leader: Demand(gap_s=SESSION_S + 0.3, replaced_s=SESSION_S + 0.3),
    Calm.pause_leader: Demand(gap_s=SESSION_S + 0.1, stays=True, keeps_isr=True),
    Calm.pause_follower: Demand(gap_s=0.9, stays=True, keeps_isr=True, fails_nothing=True),
    Calm.hang_disk_of_leader: Demand(gap_s=3.1, stays=True),
    Calm.restart_broker: Demand(gap_s=2.2, stays=True, keeps_isr=True, fails_nothing=True),
    Calm.stall_broker: Demand(gap_s=2.2, stays=True, keeps_isr=True, fails_nothing=True),
    Calm.block_broker: Demand(gap_s=2.2, stays=True, keeps_isr=True, fails_nothing=True),
    Calm.disconnect_leader: Demand(gap_s=0.4),
    Calm.disconnect_follower: Demand(gap_s=0.4, stays=True, fails_nothing=True),
    Calm.expire_session_of_leader: Demand(gap_s=0.3),
    Calm.expire_session_of_follower: Demand(gap_s=0.2, stays=True, keeps_isr=True),
}
