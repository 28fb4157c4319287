"""When a replica that does not lead asks ZooKeeper for the lead (rules 4 and 5).

Usurping is safe at any time: the transaction checks the state's version, and the new epoch fences
the old leader. What is decided here is only when it is worth trying.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from replicad.core.cluster import ClusterState, Disk, View
from replicad.core.context import Context
from replicad.core.effects import NO_TOKEN, Level, Propose, ReadState
from replicad.core.entry import Opening
from replicad.core.events import Outcome, ProbeFinished, ProposalFinished
from replicad.core.messages import HandOver
from replicad.core.probing import Probes


@dataclass(frozen=True, slots=True)
class _Candidacy:
    """A proposal, and what it replaces.

    Attributes:
        reason: Why.
    """

    state: ClusterState
    before: ClusterState
    reason: str


class Election:
    """One replica's attempts to lead."""

    def __init__(self, context: Context) -> None:
        """No attempt is under way."""
        self._context = context
        self._probes = Probes(context)
        self._told_epoch = 0
        self._gone: str | None = None
        self._invitation: HandOver | None = None
        self._invited_at = float("-inf")
        self._stand_at: float | None = None
        self._in_flight: str | None = None
        self._retry_at = float("-inf")
        self._not_before = float("-inf")
        self._proposed: dict[str, _Candidacy] = {}

    def note_higher_epoch(self, epoch: int) -> None:
        """Someone has persisted an epoch above ours: our next one must be above it."""
        self._told_epoch = max(self._told_epoch, epoch)

    def hold_back(self) -> None:
        """This replica led and could not serve: let others try first."""
        self._not_before = self._context.now + self._context.settings.hold_back_s

    def on_hand_over(self, invitation: HandOver, view: View, heard_at: float) -> None:
        """The leader asks this replica, which holds its whole log, to take over."""
        self._invitation = invitation
        self._invited_at = self._context.now
        self._stand_at = self._context.now
        self.on_tick(view, heard_at)

    def on_probe(self, finished: ProbeFinished, view: View, heard_at: float) -> None:
        """The leader may have been found dead."""
        state = view.state
        if state is None or state.leader != finished.node:
            return
        if self._probes.proves_death(finished, heard_at):
            self._gone = state.incarnation
            self.on_tick(view, heard_at)

    def note_heard(self) -> None:
        """The leader lives."""
        self._gone = None

    def on_tick(self, view: View, heard_at: float) -> None:
        """Stand for election if the leader is gone and this replica may lead.

        `heard_at` is when the leader was last heard.
        """
        context, me = self._context, self._context.me
        state = view.state
        if state is None:
            return
        reason = self._why_stand(view, state)
        may_stand = self._may_stand(state)
        if not reason or not may_stand:
            self._stand_at = None
            if may_stand and state.leader is not None:
                self._probes.tend(state.leader, heard_at)
            elif reason and state.incarnation == me.incarnation and not context.leaving:
                next_ = self._next(state, leads=False, isr=state.isr)
                self._propose(_Candidacy(next_, state, reason), view.version)
            return
        if self._stand_at is None:
            delay = context.rng.uniform(0, context.settings.candidate_delay_max_s)
            self._stand_at = context.now + delay
        if context.now >= self._stand_at:
            next_ = self._next(state, leads=True, isr=self._isr_without_leader(view, state))
            self._propose(_Candidacy(next_, state, reason), view.version)

    def _propose(self, candidacy: _Candidacy, version: int) -> None:
        """Send it; if it was sent before and its outcome is unknown, the very same once more."""
        context = self._context
        if self._in_flight is not None or context.now < self._retry_at:
            return
        state = candidacy.state
        before = (
            c for c in self._proposed.values() if replace(c.state, nonce=state.nonce) == state
        )
        chosen = next(before, candidacy)
        self._in_flight = chosen.state.nonce
        if chosen is candidacy:
            self._proposed[state.nonce] = candidacy
            what = "standing for election" if state.leader else "making way"
            context.report(Level.INFO, what, epoch_proposed=state.epoch, reason=candidacy.reason)
        context.emit(Propose(chosen.state, version))

    def on_proposal(self, finished: ProposalFinished) -> ClusterState | None:
        """Take the answer to a proposal; returns the state if it was accepted."""
        if self._in_flight == finished.nonce:
            self._in_flight = None
        candidacy = self._proposed.get(finished.nonce)
        if candidacy is None:
            return None
        if finished.outcome is Outcome.ACCEPTED:
            return candidacy.state
        self._retry_at = self._context.now + self._context.settings.proposal_retry_s
        self._context.emit(ReadState(NO_TOKEN))
        return None

    def is_own(self, state: ClusterState) -> bool:
        """Whether this state is an own proposal, perhaps one whose reply was lost."""
        return state.nonce in self._proposed

    def opening_of(self, state: ClusterState, heard_at: float | None) -> Opening:
        """How the epoch of an own proposal came about, for the entry that opens it.

        `heard_at` is when the leader before was last heard, None if it never was.
        """
        candidacy = self._proposed[state.nonce]
        before, me = candidacy.before, self._context.me
        silent_ms = None if heard_at is None else round((self._context.now - heard_at) * 1000)
        return Opening(
            leader=me.node,
            incarnation=me.incarnation,
            reason=candidacy.reason,
            previous_leader=before.leader,
            previous_epoch=before.epoch,
            isr_before=tuple(disk.node for disk in before.isr),
            isr_after=tuple(disk.node for disk in state.isr),
            leaderless_ms=silent_ms,
        )

    def forget(self) -> None:
        """An epoch has begun: what was proposed before is settled."""
        self._proposed.clear()
        self._in_flight = None
        self._stand_at = None
        self._gone = None
        self._invitation = None

    def _may_stand(self, state: ClusterState) -> bool:
        context = self._context
        able = context.broker_up and context.disk_writable and not context.leaving
        return able and context.now >= self._not_before and context.me.disk in state.isr

    def _why_stand(self, view: View, state: ClusterState) -> str:
        """Why another leader is needed; "" if the one that `state` names may well live.

        This process is not leading, so that it never counts itself.
        """
        registered = any(
            (m.node, m.incarnation) == (state.leader, state.incarnation) for m in view.members
        )
        if state.leader is None:
            return "first election" if state.epoch == 0 else "the last leader made way"
        if state.incarnation == self._context.me.incarnation:
            return "deposed by a higher epoch"
        if self._invited(state) is not None:
            return "handed over"
        if not registered:
            return "the leader's registration is gone"
        if self._gone == state.incarnation:
            return "the leader's connection to the broker is gone"
        return ""

    def _invited(self, state: ClusterState) -> HandOver | None:
        """The invitation of the leader that `state` names, while it is fresh."""
        invitation = self._invitation
        until = self._invited_at + self._context.settings.hand_over_s
        if invitation is None or invitation.epoch != state.epoch or self._context.now >= until:
            return None
        return invitation

    def _isr_without_leader(self, view: View, state: ClusterState) -> tuple[Disk, ...]:
        """Drop the dead or leaving leader in the same step, if enough others remain.

        Not one whose process was restarted already, nor one that only hands over.
        """
        context = self._context
        invitation = self._invited(state)
        if invitation is not None and not invitation.leaving:
            return state.isr
        restarted = {
            Disk(member.node, member.disk_id)
            for member in view.members
            if member.incarnation != state.incarnation
        }
        isr = tuple(disk for disk in state.isr if disk.node != state.leader or disk in restarted)
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
