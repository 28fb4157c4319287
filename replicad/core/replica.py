"""One replica: takes events, decides, and says what is to be done.

state in ZooKeeper names us ----> Leader   (leader.py)
anything else ------------------> Follower (follower.py), which may stand (election.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from replicad.core.cluster import ClusterState, View
from replicad.core.context import Context
from replicad.core.departure import Departure
from replicad.core.effects import (
    AnswerTransfer,
    Effect,
    Level,
    Refusal,
    Send,
)
from replicad.core.election import Election
from replicad.core.events import (
    AppendFailed,
    BrokerChanged,
    DiskChanged,
    Event,
    LogSynced,
    MessageReceived,
    ProbeFinished,
    ProposalFinished,
    ReadArrived,
    ReadFinished,
    SnapshotFetched,
    SnapshotInstalled,
    StopAsked,
    Tick,
    TransferAsked,
    ViewSeen,
    WritesArrived,
)
from replicad.core.follower import Follower
from replicad.core.leader import Leader
from replicad.core.messages import (
    Ack,
    Append,
    Echo,
    Fetch,
    HandOver,
    Leave,
    Message,
    Offer,
    Reject,
)
from replicad.core.transfer import Transfer

_NO_VIEW = View(config=None, state=None, version=-1, members=())


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """What a leader knows of one follower: see `Progress`."""

    matched: int
    last_contact_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot for people and for the gateway.

    Attributes:
        role: "leader", "follower" or "halted".
        refusal: Why a write would be refused now; None if it would be accepted.
        followers: By node; empty unless this replica leads.
        stale_s: Nothing that was committed longer ago than so many seconds is missing in the
            applied state; None if that is not known.
    """

    role: str
    epoch: int
    leader: str | None
    last_index: int
    synced_index: int
    commit_index: int
    applied_index: int
    digest: bytes
    isr: tuple[str, ...]
    refusal: Refusal | None
    followers: dict[str, FollowerStatus]
    stale_s: float | None


class Replica:
    """The protocol's state machine. Not thread-safe; step it from one place."""

    def __init__(self, context: Context) -> None:
        """Start as a follower of nobody, whatever this replica was before (rule 4)."""
        self._context = context
        self._election = Election(context)
        self._departure = Departure(context)
        self._view = _NO_VIEW
        self._role: Leader | Follower = Follower(context)
        self._transfer: Transfer | None = None

    def step(self, event: Event, *, now: float, unix_ms: int) -> list[Effect]:
        """Apply one event.

        Args:
            event: What happened.
            now: When, in monotonic seconds.
            unix_ms: The wall clock in milliseconds; written into entries, decides nothing.

        Returns:
            Effects, to be run in list order before the next step.
        """
        context = self._context
        context.now, context.unix_ms = now, unix_ms
        if not context.halted:
            self._dispatch(event)
        return context.finish()

    @property
    def leads(self) -> bool:
        """Whether this replica leads, as far as it knows."""
        return isinstance(self._role, Leader)

    @property
    def epoch(self) -> int:
        """The highest epoch persisted."""
        return self._context.epoch

    @property
    def incarnation(self) -> str:
        """This run of the process; no other replica of any cluster has the same."""
        return self._context.me.incarnation

    @property
    def min_in_sync(self) -> int:
        """The cluster's setting."""
        return self._context.config.min_in_sync

    @property
    def _leader(self) -> str | None:
        """Who leads, as far as it knows."""
        return self._context.me.node if isinstance(self._role, Leader) else self._role.leader

    def status(self, now: float) -> Status:
        """What there is to tell about this replica."""
        context = self._context
        followers = {}
        refusal: Refusal | None = Refusal.NOT_LEADER
        isr = self._view.state.isr if self._view.state else ()
        if isinstance(self._role, Leader):
            isr = self._role.isr.confirmed.isr
            refusal = self._role.refusal()
            self._role.note_level()
            for disk, progress in self._role.followers.progress.items():
                followers[disk.node] = FollowerStatus(progress.matched, now - progress.heard_at)
        return Status(
            role="halted" if context.halted else "leader" if self.leads else "follower",
            epoch=context.epoch,
            leader=self._leader,
            last_index=context.log.last,
            synced_index=context.synced,
            commit_index=context.commit,
            applied_index=context.applied,
            digest=context.log.last_point.digest,
            isr=tuple(disk.node for disk in isr),
            refusal=refusal,
            followers=followers,
            stale_s=context.stale_s(now),
        )

    def _dispatch(self, event: Event) -> None:
        match event:
            case MessageReceived():
                self._on_message(event.message)
            case LogSynced():
                self._context.note_synced(event.index)
                self._role.on_synced()
            case WritesArrived():
                self._role.on_writes(event)
            case ReadArrived():
                self._role.on_read(event)
            case Tick():
                self._on_tick()
            case ViewSeen():
                self._on_view(event.view)
            case ReadFinished():
                self._on_read_finished(event)
            case ProposalFinished():
                self._on_proposal(event)
            case BrokerChanged():
                self._on_broker(up=event.up)
            case AppendFailed():
                self._on_append_failed(event.first)
            case DiskChanged():
                self._context.disk_writable = event.writable
            case ProbeFinished():
                self._on_probe(event)
            case TransferAsked():
                self._on_transfer(event)
            case SnapshotFetched():
                self._on_snapshot(event)
            case SnapshotInstalled():
                self._context.note_installed(event.base, event.time)
                if isinstance(self._role, Follower):
                    self._role.on_installed()
            case StopAsked():
                self._departure.begin()
                self._depart()
            case _:
                assert_never(event)

    def _on_message(self, message: Message) -> None:
        role, is_current = self._role, message.epoch == self._context.epoch
        leader = role if isinstance(role, Leader) and is_current else None
        match message:
            case Append():
                self._on_append(message)
            case Ack() if leader:
                leader.on_ack(message)
            case Fetch() if leader:
                leader.on_fetch(message)
            case Echo() if leader:
                leader.on_echo(message)
            case Leave() if leader:
                leader.on_leave(message)
            case Ack() | Fetch() | Echo() | Leave():
                pass  # An answer to a deposed leader: normal, messages may be late.
            case Reject():
                self._on_reject(message)
            case HandOver():
                self._on_hand_over(message)
            case Offer():
                if isinstance(role, Follower) and is_current:
                    role.on_offer(message)
            case _:
                assert_never(message)

    def _on_append(self, append: Append) -> None:
        context = self._context
        if append.epoch < context.epoch:
            context.emit(Send(append.leader, Reject(context.epoch, context.me.node)))
            return
        if append.epoch > context.epoch:
            self._follow(append.epoch, append.leader, "it sent entries")
        if isinstance(self._role, Follower):  # Else it is this leader's own stream.
            self._election.note_heard()
            self._role.on_append(append)

    def _on_hand_over(self, invitation: HandOver) -> None:
        context, role = self._context, self._role
        if invitation.epoch != context.epoch or not isinstance(role, Follower):
            return
        if context.log.holds(invitation.last) and context.synced >= invitation.last.index:
            self._election.on_hand_over(invitation, self._view, role.heard_at)

    def _on_snapshot(self, fetched: SnapshotFetched) -> None:
        self._context.fetching_snapshot = False
        if fetched.point is None or isinstance(self._role, Leader):
            return
        if fetched.epoch > self._context.epoch:
            # Before anything of that epoch is taken over (rule 4).
            self._follow(fetched.epoch, None, "a snapshot is of it")
        if isinstance(self._role, Follower):
            self._role.on_snapshot(fetched.point)

    def _on_probe(self, finished: ProbeFinished) -> None:
        if isinstance(self._role, Leader):
            self._role.on_probe(finished)
        else:
            self._election.on_probe(finished, self._view, self._role.heard_at)

    def _on_transfer(self, asked: TransferAsked) -> None:
        if isinstance(self._role, Leader):
            self._role.on_transfer(asked)
        else:
            reason = "this replica does not lead"
            self._context.emit(AnswerTransfer(asked.token, None, reason))

    def _depart(self) -> None:
        self._departure.advance(self._role, self._view.state)

    def _on_reject(self, reject: Reject) -> None:
        if reject.epoch <= self._context.epoch:
            return
        self._election.note_higher_epoch(reject.epoch)
        self._depose(f"{reject.node} has persisted epoch {reject.epoch}")

    def _on_tick(self) -> None:
        if isinstance(self._role, Leader):
            self._role.on_tick()
            if self._role.is_stuck():
                self._make_way("nothing was committed for too long")
        else:
            self._election.on_tick(self._view, self._role.heard_at)
        self._end_transfer(self._leader)
        self._depart()

    def _on_view(self, view: View) -> None:
        """Take what the coordinator holds; never go back to a lower version (a lagging server)."""
        if view.version < self._view.version or view.state is None:
            return
        self._view = view
        state = view.state
        if isinstance(self._role, Leader) and self._role.is_named_by(state):
            self._role.on_state(state, view.version)
        elif state.epoch > self._context.epoch:
            self._enter(state, view.version)
        self._depart()

    def _on_read_finished(self, finished: ReadFinished) -> None:
        if finished.view is not None:
            self._on_view(finished.view)
        if isinstance(self._role, Leader):
            self._role.on_read_finished(finished)

    def _on_proposal(self, finished: ProposalFinished) -> None:
        if isinstance(self._role, Leader):
            self._role.on_proposal(finished)
            return
        state = self._election.on_proposal(finished)
        if state is None:
            return
        if state.epoch <= self._context.epoch:
            return  # A late success below the persisted epoch: somebody else leads (rule 4).
        self._view = View(self._view.config, state, finished.version, self._view.members)
        self._enter(state, finished.version)

    def _on_broker(self, *, up: bool) -> None:
        if up and not self._context.broker_up:
            self._context.broker_up_since = self._context.now
        self._context.broker_up = up
        if up and isinstance(self._role, Leader):
            self._role.followers.grant_grace(self._context.now)

    def _on_append_failed(self, first: int) -> None:
        context = self._context
        context.disk_writable = False
        context.report(Level.ERROR, "disk full", index=first)
        context.cut(first)
        if isinstance(self._role, Follower):
            self._role.on_append_failed()
            return
        self._role.on_append_failed(first)
        if first == self._role.first:
            self._make_way("no room for the epoch's first entry")

    def _enter(self, state: ClusterState, version: int) -> None:
        """Take the role that the state of a new epoch gives to this replica."""
        if state.leader == self._context.me.node and self._election.is_own(state):
            self._lead(state, version)
        else:
            self._follow(state.epoch, state.leader, "state says so")

    def _make_way(self, reason: str) -> None:
        """Lead no more, and let another replica try; ZooKeeper is told by the election."""
        self._election.hold_back()
        self._depose(reason)

    def _lead(self, state: ClusterState, version: int) -> None:
        context = self._context
        heard_at = self._role.leader_heard_at if isinstance(self._role, Follower) else None
        opening = self._election.opening_of(state, heard_at)
        self._election.forget()
        context.persist_epoch(state.epoch)
        isr = [disk.node for disk in state.isr]
        context.report(Level.INFO, "leading", isr=isr, version=version, last=context.log.last)
        self._role = Leader(context, state, version, opening)

    def _follow(self, epoch: int, leader: str | None, reason: str) -> None:
        """A higher epoch than ours has begun, led by `leader` or, for the moment, by nobody."""
        self._context.persist_epoch(epoch)
        self._election.forget()
        self._depose(f"{leader or 'nobody'} leads epoch {epoch}: {reason}")
        self._role = Follower(self._context)
        self._end_transfer(leader)

    def _depose(self, reason: str) -> None:
        if isinstance(self._role, Leader):
            self._context.report(Level.WARNING, "deposed", reason=reason)
            self._role.resign()
            self._transfer = self._role.transfer
            self._role = Follower(self._context)
            self._departure.on_deposed()

    def _end_transfer(self, leader: str | None) -> None:
        """Who has taken over, which a deposed leader may learn only later."""
        if self._transfer is not None:
            self._transfer.end(leader)
