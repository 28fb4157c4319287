"""ZooKeeper, simulated: one linearizable state, sessions, delays, lost replies, lagging readers."""

from __future__ import annotations

from collections.abc import Callable

from replicad.core.cluster import ClusterConfig, ClusterState, Member, View
from replicad.core.events import Outcome, ProposalFinished, ReadFinished, ViewSeen
from tests.simulation.world import World

SESSION_S = 1.0


class Coordinator:
    def __init__(self, world: World, config: ClusterConfig) -> None:
        self._world = world
        self.config = config
        self.state: ClusterState | None = None
        self.version = -1
        self.members: dict[str, Member] = {}
        self.watchers: dict[str, Callable[[ViewSeen], None]] = {}
        self.reply_loss = 0.0
        self.on_change: Callable[[], None] = lambda: None

    def view(self) -> View:
        members = tuple(sorted(self.members.values(), key=lambda m: (m.node, m.incarnation)))
        return View(self.config, self.state, self.version, members)

    def create(self, state: ClusterState) -> None:
        self.state, self.version = state, 0
        self._notify()

    def register(self, member: Member, watcher: Callable[[ViewSeen], None]) -> None:
        for incarnation, other in list(self.members.items()):
            if other.node == member.node:
                del self.members[incarnation]
        self.members[member.incarnation] = member
        self.watchers[member.incarnation] = watcher
        self._notify()

    def expire_later(self, incarnation: str) -> None:
        """The process stopped: its session ends after the timeout."""
        self.watchers.pop(incarnation, None)
        self._world.after(SESSION_S, lambda: self._expire(incarnation))

    def expire_now(self, incarnation: str) -> None:
        """The session of a living process ends; it registers again a moment later."""
        member = self.members.get(incarnation)
        watcher = self.watchers.get(incarnation)
        self._expire(incarnation)
        if member is not None and watcher is not None:

            def again() -> None:
                if incarnation in self.watchers:
                    self.register(member, watcher)

            self._world.after(self._world.rng.uniform(0.01, 0.5), again)

    def propose(
        self, state: ClusterState, expected: int, reply: Callable[[ProposalFinished], None]
    ) -> None:
        self._world.after(self._delay(), lambda: self._transact(state, expected, reply))
        if self._world.chance(self.reply_loss / 2):
            # The client gives up first; the request may still arrive, much later.
            unknown = ProposalFinished(state.nonce, Outcome.UNKNOWN, -1)
            self._world.after(0.001, lambda: reply(unknown))

    def read(self, token: int, reply: Callable[[ReadFinished], None]) -> None:
        def answer() -> None:
            view = None if self._world.chance(self.reply_loss) else self.view()
            self._world.after(self._delay(), lambda: reply(ReadFinished(token, view)))

        self._world.after(self._delay(), answer)

    def _transact(
        self, state: ClusterState, expected: int, reply: Callable[[ProposalFinished], None]
    ) -> None:
        outcome = Outcome.REFUSED
        if expected == self.version:
            self.state, self.version = state, self.version + 1
            outcome = Outcome.ACCEPTED
            names = [d.node for d in state.isr]
            self._world.log(f"zk v{self.version} epoch {state.epoch} {state.leader} isr {names}")
            self.on_change()
            self._notify()
        if self._world.chance(self.reply_loss):
            outcome = Outcome.UNKNOWN
        finished = ProposalFinished(state.nonce, outcome, self.version)
        self._world.after(self._delay(), lambda: reply(finished))

    def _expire(self, incarnation: str) -> None:
        if self.members.pop(incarnation, None) is not None:
            self._notify()

    def _notify(self) -> None:
        seen = ViewSeen(self.view())
        for incarnation in list(self.watchers):

            def deliver(incarnation: str = incarnation) -> None:
                if incarnation in self.watchers:
                    self.watchers[incarnation](seen)

            self._world.after(self._delay(), deliver)

    def _delay(self) -> float:
        slow = self._world.chance(0.02)
        return self._world.rng.uniform(0.1, 0.6) if slow else self._world.rng.uniform(0.0005, 0.01)
