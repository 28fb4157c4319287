"""ZooKeeper, simulated: one linearizable state, sessions, and connections that fail.

What the state does is exact; what a replica learns of it is late, old, or nothing at all. As in
production every proposal has one answer, and a request whose answer does not come in time has an
unknown outcome, although it may still arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from replicad.core.cluster import ClusterConfig, ClusterState, Member, View
from replicad.core.events import Outcome, ProposalFinished, ReadFinished, ViewSeen
from tests.simulation.world import World

T = TypeVar("T")

SESSION_S = 1.0
CALL_TIMEOUT_S = 0.8


@dataclass
class _Session:
    """One process's connection. It learns nothing while `cut`, and nothing new while `behind`."""

    member: Member
    feed: Callable[[ViewSeen], None]
    behind_until: float = 0.0
    cut: bool = False
    cuts: int = 0


class Coordinator:
    def __init__(self, world: World, config: ClusterConfig) -> None:
        self._world = world
        self.config = config
        self.state: ClusterState | None = None
        self.version = -1
        self.leaders: dict[int, str | None] = {}
        """Whom the state has ever named, by epoch."""
        self.members: dict[str, Member] = {}
        self._sessions: dict[str, _Session] = {}
        self._history: list[View] = []
        self.disconnects = 0.0
        """How often a connection breaks around a proposal, before or after it took effect."""
        self.slow = 0.02
        """How often an answer takes unusually long."""
        self.lag = 0.0
        """How often a replica is shown an old view, as by a server that lags."""
        self.on_change: Callable[[], None] = lambda: None
        self.on_doubt: Callable[[ClusterState], None] = lambda _: None
        """The outcome of a proposal will not be known in time."""

    def view(self) -> View:
        members = tuple(sorted(self.members.values(), key=lambda m: (m.node, m.incarnation)))
        return View(self.config, self.state, self.version, members)

    def create(self, state: ClusterState) -> None:
        self.state, self.version = state, 0
        self._notify()

    # -- sessions -----------------------------------------------------------------------------

    def connect(self, member: Member, feed: Callable[[ViewSeen], None]) -> None:
        session = self._sessions[member.incarnation] = _Session(member, feed)
        if self._history and self._world.chance(self.lag):
            session.behind_until = self._world.now + self._world.rng.uniform(0.0, 2.0)
            old = ViewSeen(self._world.rng.choice(self._history))

            def lag() -> None:
                session.feed(old)
                # Every view is followed by another until one is the last.
                self._show(member.incarnation, self._history[-1], 0.05)

            self._world.after(self._world.rng.uniform(0.0, 1.0), lag)
        self._register(member)

    def leave(self, incarnation: str, *, politely: bool = False) -> None:
        """The process stopped: its session ends at once if it says so, else after the timeout."""
        self._sessions.pop(incarnation, None)
        self._world.after(0.0 if politely else SESSION_S, lambda: self._expire(incarnation))

    def expire(self, incarnation: str) -> None:
        """The session of a living process ends; it registers again a moment later."""
        self._expire(incarnation)
        self._world.after(
            self._world.rng.uniform(0.01, 0.5), lambda: self._register_again(incarnation)
        )

    def cut(self, incarnation: str, seconds: float) -> None:
        """The process hears nothing for a while; its session ends if that is too long."""
        session = self._sessions.get(incarnation)
        if session is None:
            return
        session.cut = True
        session.cuts += 1
        cut = session.cuts

        def expire() -> None:
            if session.cut and session.cuts == cut:
                self._expire(incarnation)

        def mend() -> None:
            if session.cuts == cut:
                session.cut = False
                self._register_again(incarnation)

        self._world.after(SESSION_S, expire)
        self._world.after(seconds, mend)

    def show_old(self, incarnation: str) -> None:
        """The process is shown an old view, as by a server that lags, and later the newest one."""
        if self._history:
            old = self._world.rng.choice(self._history)
            self._show(incarnation, old, self._world.rng.uniform(0.0, 0.1))

    def _register(self, member: Member) -> None:
        for incarnation, other in list(self.members.items()):
            if other.node == member.node:
                del self.members[incarnation]
        self.members[member.incarnation] = member
        self._notify()

    def _register_again(self, incarnation: str) -> None:
        session = self._sessions.get(incarnation)
        if session is not None and not session.cut:
            self._register(session.member)

    def _expire(self, incarnation: str) -> None:
        if self.members.pop(incarnation, None) is not None:
            self._notify()

    # -- requests -----------------------------------------------------------------------------

    def propose(
        self,
        incarnation: str,
        state: ClusterState,
        expected: int,
        reply: Callable[[ProposalFinished], None],
    ) -> None:
        call = _Call(reply)
        unknown = ProposalFinished(state.nonce, Outcome.UNKNOWN, -1)
        self._world.after(CALL_TIMEOUT_S, lambda: call.answer(unknown))

        def arrive() -> None:
            finished = self._transact(state, expected)
            if self._world.chance(self.disconnects):
                # The client knows at once that it will not hear the outcome.
                self._world.after(self._world.rng.uniform(0.0, 0.1), lambda: call.answer(unknown))
                self.cut(incarnation, self._world.rng.choice((0.9, 4.0)) * self._world.rng.random())
                self.on_doubt(state)
            self._reply(incarnation, lambda: call.answer(finished))

        delay = self._delay()
        if self._is_cut(incarnation) or self._world.chance(self.disconnects):
            # It lies in some buffer, for ever or until long after the caller gave up.
            if self._world.chance(0.3):
                return
            delay = self._world.rng.uniform(0.5, 5.0)
        self._world.after(delay, arrive)

    def read(self, incarnation: str, token: int, reply: Callable[[ReadFinished], None]) -> None:
        call = _Call(reply)
        self._world.after(CALL_TIMEOUT_S, lambda: call.answer(ReadFinished(token, None)))

        def arrive() -> None:
            view = self.view()
            self._reply(incarnation, lambda: call.answer(ReadFinished(token, view)))

        if not self._is_cut(incarnation):
            self._world.after(self._delay(), arrive)

    def _transact(self, state: ClusterState, expected: int) -> ProposalFinished:
        if expected != self.version:
            return ProposalFinished(state.nonce, Outcome.REFUSED, -1)
        self.state, self.version = state, self.version + 1
        self.leaders.setdefault(state.epoch, state.leader)
        names = [d.node for d in state.isr]
        self._world.log(f"zk v{self.version} epoch {state.epoch} {state.leader} isr {names}")
        self.on_change()
        self._notify()
        return ProposalFinished(state.nonce, Outcome.ACCEPTED, self.version)

    # -- what is learnt -----------------------------------------------------------------------

    def _reply(self, incarnation: str, answer: Callable[[], None]) -> None:
        def deliver() -> None:
            if not self._is_cut(incarnation):
                answer()

        self._world.after(self._delay(), deliver)

    def _notify(self) -> None:
        view = self.view()
        self._history = [*self._history[-7:], view]
        for incarnation in self._sessions:
            self._show(incarnation, view, self._delay())
            if self._world.chance(self.lag):
                old = self._world.rng.choice(self._history)
                self._show(incarnation, old, self._world.rng.uniform(0.0, 2.0))

    def _show(self, incarnation: str, view: View, delay: float) -> None:
        def deliver() -> None:
            session = self._sessions.get(incarnation)
            if session is None or session.cut:
                return
            if self._world.now < session.behind_until:
                self._world.after(session.behind_until - self._world.now, deliver)
                return
            session.feed(ViewSeen(view))
            if view is not self._history[-1]:  # Views overtake each other; none is the last.
                self._show(incarnation, self._history[-1], self._world.rng.uniform(0.05, 0.5))

        self._world.after(delay, deliver)

    def _is_cut(self, incarnation: str) -> bool:
        session = self._sessions.get(incarnation)
        return session is None or session.cut

    def _delay(self) -> float:
        slow = self._world.chance(self.slow)
        return self._world.rng.uniform(0.1, 0.6) if slow else self._world.rng.uniform(0.0005, 0.01)


class _Call(Generic[T]):
    """A request: the first answer counts."""

    def __init__(self, reply: Callable[[T], None]) -> None:
        self._reply: Callable[[T], None] | None = reply

    def answer(self, outcome: T) -> None:
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply(outcome)
