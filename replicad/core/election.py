"""When a replica that does not lead asks ZooKeeper for the lead (rules 4 and 5).

Usurping is safe at any time: the transaction checks the state's version, and the new epoch fences
the old leader. What is decided here is only when it is worth trying.
"""

from __future__ import annotations

from dataclasses import replace

from replicad.core.cluster import ClusterState, Disk, View
from replicad.core.context import Context
from replicad.core.effects import NO_TOKEN, Level, Propose, ReadState
from replicad.core.events import Outcome, ProposalFinished


class Election:
    """One replica's attempts to lead."""

    def __init__(self, context: Context) -> None:
        """No attempt is under way."""
        self._context = context
        self._told_epoch = 0
        self._stand_at: float | None = None
        self._in_flight: str | None = None
        self._retry_at = float("-inf")
        self._not_before = float("-inf")
        self._proposed: dict[str, ClusterState] = {}

    def note_higher_epoch(self, epoch: int) -> None:
        """Someone has persisted an epoch above ours: our next one must be above it."""
        self._told_epoch = max(self._told_epoch, epoch)

    def hold_back(self) -> None:
        """This replica led and could not serve: let others try first."""
        self._not_before = self._context.now + self._context.settings.hold_back_s

    def on_tick(self, view: View) -> None:
        """Stand for election if the leader is gone and this replica may lead."""
        context = self._context
        state = view.state
        if state is None or self._leader_lives(view, state):
            self._stand_at = None
            return
        if not self._may_stand(state):
            self._stand_at = None
            if state.incarnation == context.me.incarnation:
                self._propose(self._next(state, leads=False, isr=state.isr), view.version)
            return
        if self._stand_at is None:
            delay = context.rng.uniform(0, context.settings.candidate_delay_max_s)
            self._stand_at = context.now + delay
        if context.now >= self._stand_at:
            isr = self._isr_without_dead_leader(view, state)
            self._propose(self._next(state, leads=True, isr=isr), view.version)

    def _propose(self, state: ClusterState, version: int) -> None:
        """Send it; if it was sent before and its outcome is unknown, the very same once more."""
        context = self._context
        if self._in_flight is not None or context.now < self._retry_at:
            return
        before = (p for p in self._proposed.values() if replace(p, nonce=state.nonce) == state)
        proposal = next(before, state)
        self._in_flight = proposal.nonce
        if proposal is state:
            self._proposed[proposal.nonce] = proposal
            what = "standing for election" if proposal.leader else "making way"
            context.report(Level.INFO, what, epoch_proposed=proposal.epoch)
        context.emit(Propose(proposal, version))

    def on_proposal(self, finished: ProposalFinished) -> ClusterState | None:
        """Take the answer to a proposal; returns the state if it was accepted."""
        if self._in_flight == finished.nonce:
            self._in_flight = None
        proposal = self._proposed.get(finished.nonce)
        if proposal is None or finished.outcome is Outcome.ACCEPTED:
            return proposal
        self._retry_at = self._context.now + self._context.settings.proposal_retry_s
        self._context.emit(ReadState(NO_TOKEN))
        return None

    def is_own(self, state: ClusterState) -> bool:
        """Whether this state is an own proposal, perhaps one whose reply was lost."""
        return state.nonce in self._proposed

    def forget(self) -> None:
        """An epoch has begun: what was proposed before is settled."""
        self._proposed.clear()
        self._in_flight = None
        self._stand_at = None

    def _may_stand(self, state: ClusterState) -> bool:
        context = self._context
        able = context.broker_up and context.disk_writable and context.now >= self._not_before
        return able and context.me.disk in state.isr

    def _leader_lives(self, view: View, state: ClusterState) -> bool:
        """Whether the named process is registered. This one is not leading, so it never counts."""
        if state.incarnation == self._context.me.incarnation:
            return False
        return any(
            (m.node, m.incarnation) == (state.leader, state.incarnation) for m in view.members
        )

    def _isr_without_dead_leader(self, view: View, state: ClusterState) -> tuple[Disk, ...]:
        """Drop the dead leader in the same step, if enough others remain."""
        context = self._context
        living = {Disk(member.node, member.disk_id) for member in view.members}
        isr = tuple(disk for disk in state.isr if disk.node != state.leader or disk in living)
        enough = context.me.disk in isr and len(isr) >= context.config.min_in_sync
        return isr if enough else state.isr

    def _next(self, state: ClusterState, *, leads: bool, isr: tuple[Disk, ...]) -> ClusterState:
        """An epoch above every known one, led by this replica or, for the moment, by nobody."""
        context = self._context
        me = context.me
        return ClusterState(
            epoch=max(state.epoch, context.epoch, self._told_epoch) + 1,
            leader=me.node if leads else None,
            incarnation=me.incarnation if leads else None,
            url=me.url if leads else None,
            isr=isr,
            nonce=context.nonce(),
        )
