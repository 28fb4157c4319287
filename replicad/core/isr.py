"""The in-sync replicas: what is confirmed, what is in doubt, who is joining (rules 2 and 3).

A commit needs the acks of the *effective* ISR, which is never smaller than what any other node
may read in ZooKeeper: the confirmed ISR, the ISR of every proposal whose outcome is not known,
and the followers that are about to be proposed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from replicad.core.cluster import ClusterState, Disk
from replicad.core.context import Context
from replicad.core.effects import NO_TOKEN, Level, Propose, ReadState
from replicad.core.events import Outcome, ProposalFinished


class InSyncSet:
    """The leader's view of the ISR for the length of one epoch.

    Attributes:
        effective: Whose acks a commit needs.
        others: The same without this replica itself.
    """

    def __init__(self, context: Context, state: ClusterState, version: int) -> None:
        """`state` names this replica as leader; `version` is the state's."""
        self._context = context
        self.confirmed = state
        self.version = version
        self._in_doubt: list[ClusterState] = []
        self._in_flight: str | None = None
        self._joining: dict[Disk, float] = {}
        self._rejoin_at: dict[Disk, float] = {}
        self._retry_at = 0.0
        self._recompute()

    @property
    def may_propose(self) -> bool:
        """One proposal at a time, with a pause after one that did not succeed."""
        return self._in_flight is None and self._context.now >= self._retry_at

    def propose_shrink(self, gone: tuple[Disk, ...]) -> None:
        """Ask to remove members. They count until the transaction has succeeded."""
        self._propose(tuple(disk for disk in self.confirmed.isr if disk not in gone))

    def propose_admission(self, disk: Disk) -> None:
        """Ask to admit a follower that is level with the commit index; it counts from now on.

        It takes the place of an older disk of its node.
        """
        others = tuple(member for member in self.confirmed.isr if member.node != disk.node)
        self._propose((*others, disk))
        self._joining.pop(disk, None)

    @property
    def in_doubt(self) -> bool:
        """Whether commits may wait for followers that only a proposal names."""
        return bool(self._in_doubt)

    def propose_settling(self) -> None:
        """Ask for what is confirmed once more: the answer tells what became of the doubts.

        Otherwise a follower that died while its admission was in doubt would be waited for until
        it is back, although nobody may ever have stored its name.
        """
        self._propose(self.confirmed.isr)

    def join(self, disk: Disk) -> None:
        """Let commits wait for a follower, so that it can get level under load.

        Not if it is joining already, nor soon after it was given up.
        """
        now = self._context.now
        if disk not in self._joining and now >= self._rejoin_at.get(disk, now):
            self._joining[disk] = now + self._context.settings.join_max_s
            self._recompute()

    def drop_joiners(self, is_lost: Callable[[Disk], bool]) -> None:
        """Give up on joiners that are lost, or that delayed commits for too long.

        Nothing in ZooKeeper names them.
        """
        now = self._context.now
        late = [disk for disk, until in self._joining.items() if now >= until or is_lost(disk)]
        for disk in late:
            del self._joining[disk]
            self._rejoin_at[disk] = now + self._context.settings.join_max_s
        if late:
            self._recompute()

    def on_proposal(self, finished: ProposalFinished) -> None:
        """Take the answer to a proposal of this epoch."""
        proposal = next((p for p in self._in_doubt if p.nonce == finished.nonce), None)
        if self._in_flight == finished.nonce:
            self._in_flight = None
        if proposal is None:
            return  # A higher version has resolved it meanwhile.
        if finished.outcome is Outcome.ACCEPTED:
            self.adopt(proposal, finished.version)
            return
        # Refused or not: an earlier attempt at the same may have happened. The state tells.
        self._retry_at = self._context.now + self._context.settings.proposal_retry_s
        self._context.emit(ReadState(NO_TOKEN))

    def adopt(self, state: ClusterState, version: int) -> None:
        """A version above every one seen: it resolves all proposals that expected a lower one."""
        if version <= self.version:
            return
        before, self.confirmed, self.version = self.confirmed, state, version
        self._in_doubt.clear()
        self._in_flight = None
        self._recompute()
        if before.isr != state.isr:
            self._context.report(
                Level.INFO,
                "isr changed",
                isr=[d.node for d in state.isr],
                before=[d.node for d in before.isr],
                commit=self._context.commit,
                version=version,
            )

    def _propose(self, isr: tuple[Disk, ...]) -> None:
        """Propose this ISR; for one that is in doubt already, the very same proposal once more.

        The version check lets at most one attempt happen, and the doubts stay few however long the
        coordinator is away.
        """
        state = next((p for p in self._in_doubt if p.isr == isr), None)
        if state is None:
            state = replace(self.confirmed, isr=isr, nonce=self._context.nonce())
            self._in_doubt.append(state)
            self._recompute()
            names = [disk.node for disk in isr]
            self._context.report(Level.INFO, "isr proposed", isr=names, version=self.version)
        self._in_flight = state.nonce
        self._context.emit(Propose(state, self.version))

    def _recompute(self) -> None:
        self.effective = self._counted()
        me = self._context.me.disk
        self.others = tuple(disk for disk in self.effective if disk != me)

    def _counted(self) -> tuple[Disk, ...]:
        # A dict keeps the order of insertion; the iteration order of a set would vary.
        members = dict.fromkeys(self.confirmed.isr)
        for state in self._in_doubt:
            members.update(dict.fromkeys(state.isr))
        members.update(dict.fromkeys(self._joining))
        return tuple(members)
