"""When a replica that does not lead asks ZooKeeper for the lead (rules 4 and 5).

Usurping is safe at any time: the transaction checks the state's version, and the new epoch fences
the old leader. What is decided here is only when it is worth trying.
"""

from __future__ import annotations

from replicad.core.cluster import ClusterState, Disk, View
from replicad.core.context import Context
from replicad.core.effects import Level, Propose, ReadState
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
        self._proposed: dict[str, ClusterState] = {}

    def note_higher_epoch(self, epoch: int) -> None:
        """Someone has persisted an epoch above ours: our next one must be above it."""
        self._told_epoch = max(self._told_epoch, epoch)

    def on_tick(self, view: View) -> None:
        """Stand for election if the leader is gone and this replica may lead."""
        context = self._context
        state = view.state
        if state is None or not self._may_stand(state) or self._leader_lives(view, state):
            self._stand_at = None
            return
        if self._stand_at is None:
            delay = context.rng.uniform(0, context.settings.candidate_delay_max_s)
            self._stand_at = context.now + delay
        if context.now < max(self._stand_at, self._retry_at) or self._in_flight is not None:
            return
        proposal = self._candidacy(view, state)
        self._in_flight = proposal.nonce
        self._proposed[proposal.nonce] = proposal
        context.report(Level.INFO, "standing for election", epoch_proposed=proposal.epoch)
        context.emit(Propose(proposal, view.version))

    def on_proposal(self, finished: ProposalFinished) -> ClusterState | None:
        """Take the answer to a candidacy; returns the state if it was accepted."""
        if self._in_flight == finished.nonce:
            self._in_flight = None
        proposal = self._proposed.get(finished.nonce)
        if proposal is None or finished.outcome is Outcome.ACCEPTED:
            return proposal
        if finished.outcome is Outcome.REFUSED:
            del self._proposed[finished.nonce]
        self._retry_at = self._context.now + self._context.settings.proposal_retry_s
        self._context.emit(ReadState(token=0))
        return None

    def is_own(self, state: ClusterState) -> bool:
        """Whether this state is an own candidacy whose reply was lost."""
        return state.nonce in self._proposed

    def forget(self) -> None:
        """An epoch has begun: what was proposed before is settled."""
        self._proposed.clear()
        self._in_flight = None
        self._stand_at = None

    def _may_stand(self, state: ClusterState) -> bool:
        context = self._context
        return context.me.disk in state.isr and context.broker_up and context.disk_writable

    def _leader_lives(self, view: View, state: ClusterState) -> bool:
        """Whether the named process is registered. This one is not leading, so it never counts."""
        if state.incarnation == self._context.me.incarnation:
            return False
        return any(
            (m.node, m.incarnation) == (state.leader, state.incarnation) for m in view.members
        )

    def _candidacy(self, view: View, state: ClusterState) -> ClusterState:
        """An epoch above every known one, without the dead leader if enough others remain."""
        context = self._context
        living = {Disk(m.node, m.disk_id) for m in view.members}
        isr = tuple(d for d in state.isr if d.node != state.leader or d in living)
        if context.me.disk not in isr or len(isr) < context.config.min_in_sync:
            isr = state.isr
        return ClusterState(
            epoch=max(state.epoch, context.epoch, self._told_epoch) + 1,
            leader=context.me.node,
            incarnation=context.me.incarnation,
            url=context.me.url,
            isr=isr,
            nonce=f"{context.rng.getrandbits(64):016x}",
        )
