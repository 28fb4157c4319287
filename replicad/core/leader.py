"""The leader of one epoch: orders writes, counts acks, commits, confirms reads.

It is created once the coordinator has accepted this replica for the epoch. It appends the entry
that opens the epoch and publishes nothing before that entry is synced (rule 4); it accepts
writes and reads once the entry is committed (rule 6). Every earlier entry is committed and
applied by then, so that only this epoch's own entries can be pending.
"""

from __future__ import annotations

from typing import Final

from replicad.core.attempts import REMEMBERED_S, Attempt, RejectedAttempts
from replicad.core.cluster import ClusterState, Disk
from replicad.core.context import Context
from replicad.core.effects import (
    AnswerRead,
    AnswerTransfer,
    AnswerWrites,
    AppendLines,
    Committed,
    Refusal,
    Rejected,
    RoleChanged,
    Send,
    SendFromLog,
    SyncLog,
    Unresolved,
    WriteResult,
)
from replicad.core.entry import Opening, encode_changes, encode_epoch
from replicad.core.events import (
    Earlier,
    Found,
    ProbeFinished,
    ProposalFinished,
    ReadArrived,
    ReadFinished,
    TransferAsked,
    WritesArrived,
)
from replicad.core.followers import Followers
from replicad.core.isr import InSyncSet
from replicad.core.membership import Membership
from replicad.core.messages import Ack, Append, Echo, Fetch, Leave, Offer, Point
from replicad.core.pending import Changes, PendingWrites
from replicad.core.rounds import Rounds
from replicad.core.transfer import Transfer
from replicad.core.waiting import Waiting, WaitingRoom
from replicad.core.write import WriteRequest
from replicad.errors import require

_NOTHING_NEW: Final = (Earlier, Rejected)
"""Outcomes of a write for which nothing is appended."""


class Leader:
    """Leads one epoch. Discarded when deposed."""

    def __init__(
        self, context: Context, state: ClusterState, version: int, opening: Opening
    ) -> None:
        """Open the epoch that `state` names; this replica has persisted it."""
        self._context = context
        self.isr = InSyncSet(context, state, version)
        self.followers = Followers(context.settings, self.isr.others, context.now)
        self._membership = Membership(context, self.isr, self.followers)
        self._rounds = Rounds(context)
        self.transfer = Transfer(context, self.isr, self.followers)
        self.first = context.log.last + 1
        self._pending = PendingWrites()
        self._waiting = WaitingRoom()
        self._rejected = RejectedAttempts()
        self._published = 0
        self._sent_at = context.now
        self._echo_at = float("-inf")
        self._commit_seen = 0
        self._commit_moved_at = context.now
        context.emit(RoleChanged(leading=True))
        self._opening = self._append_opening(opening)

    # -- status -------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the epoch's first entry has committed (rule 6)."""
        return self._context.commit >= self.first

    def refusal(self) -> Refusal | None:
        """Why a write would not be accepted now, or None."""
        context = self._context
        if not self.ready or self.transfer.active:
            return Refusal.NOT_LEADER
        if not context.disk_writable:
            return Refusal.DISK_FULL
        if not context.broker_up:
            return Refusal.BROKER_DOWN
        if not self._enough_present():
            return Refusal.NOT_ENOUGH_REPLICAS
        pending_bytes = context.log.end - context.log.end_of(context.commit)
        if pending_bytes > context.settings.pending_bytes_max:
            return Refusal.OVERLOADED
        return None

    def is_stuck(self) -> bool:
        """Whether another leader might do better (rule 5).

        For too long nothing of what was appended has been committed, although the broker works and
        enough followers seem to be there: this leader no longer hears them, for instance.
        """
        context = self._context
        idle = context.commit == context.log.last
        # While ZooKeeper leaves a proposal in doubt nobody could be elected either.
        excused = not context.broker_up or self.isr.in_doubt
        if idle or excused or context.commit != self._commit_seen:
            self._commit_seen = context.commit
            self._commit_moved_at = context.now
        waited = context.now - self._commit_moved_at
        return waited >= context.settings.resign_after_s and self._enough_present()

    def _enough_present(self) -> bool:
        isr, me = self.isr.confirmed.isr, self._context.me.disk
        present = 0
        for disk in isr:
            if disk == me or not self.followers.lags(disk):
                present += 1
        return present >= self._context.config.min_in_sync

    # -- requests -----------------------------------------------------------------------------

    def on_writes(self, arrived: WritesArrived) -> None:
        """Validate against the applied state and what is pending, then append and publish."""
        context = self._context
        if arrived.epoch != context.epoch or not self.ready:
            refused = (Refusal.NOT_LEADER,) * len(arrived.writes)
            context.emit(AnswerWrites(arrived.token, refused, (), {}))
            return
        require(arrived.applied == context.applied, "writes are looked up in the latest state")
        before = context.log.last_point
        refusal, time = self.refusal(), context.wall_time()
        results: list[WriteResult] = []
        rejected: list[Attempt] = []
        lines: list[bytes] = []
        index = 0
        for write, found in zip(arrived.writes, arrived.found, strict=True):
            result, at, line = self._decide(write, found, refusal, time)
            results.append(result)
            if at > index:
                index = at
            if line:
                lines.append(line)
            elif isinstance(result, Rejected):
                rejected.append(Attempt(write.call, write.attempt))
        round_ = self._rounds.current + 1 if rejected else 0
        self._waiting.add(
            Waiting(arrived.token, tuple(results), index, round_, context.now, tuple(rejected))
        )
        if not lines:
            self._settle()
            return
        # Nothing may follow these effects in the step: if there is no room, they are skipped.
        blob = b"".join(lines)
        context.emit(AppendLines(before.index + 1, blob))
        self._publish(before, len(lines), blob)
        context.emit(SyncLog())

    def _decide(
        self, write: WriteRequest, found: Found, refusal: Refusal | None, time: str
    ) -> tuple[WriteResult, int, bytes]:
        """What a write will be told, once which index is committed; and its line if it is new."""
        if self._rejected.is_late(write):
            return Refusal.NOT_LEADER, 0, b""  # Nobody waits for this attempt any more.
        outcome, at = self._pending.judge(write, found)
        if not isinstance(outcome, _NOTHING_NEW):
            return (refusal, 0, b"") if refusal else self._append(write, outcome, time)
        if refusal is not None and at > self._context.commit:
            # It may stay pending for long; its companions are not to wait for it.
            return Unresolved.UNKNOWN if isinstance(outcome, Earlier) else refusal, 0, b""
        if isinstance(outcome, Earlier):
            return self._repeat(outcome), at, b""
        # At once: an earlier attempt may arrive before this rejection is told.
        self._rejected.note(write, self._context.now)
        return outcome, at, b""

    def _append(
        self, write: WriteRequest, changes: Changes, time: str
    ) -> tuple[WriteResult, int, bytes]:
        context, log = self._context, self._context.log
        index = log.last + 1
        line, digest = encode_changes(
            changes,
            collection=write.collection,
            request=write.request,
            fingerprint=write.fingerprint,
            index=index,
            epoch=context.epoch,
            time=time,
            commit=context.commit,
            previous=log.last_digest,
        )
        log.append(context.epoch, len(line), digest)
        done = self._pending.add(index, write, changes)
        return Committed(index, context.epoch, digest, done), index, line

    def _repeat(self, earlier: Earlier) -> Committed:
        """What was told of the entry that carries the request id, or would have been."""
        log, at = self._context.log, earlier.at
        if at < log.first:
            return Committed(at, 0, b"", earlier.done, again=True)
        return Committed(at, log.epoch_at(at), log.digest_at(at), earlier.done, again=True)

    def on_read(self, arrived: ReadArrived) -> None:
        """Serve a strong read after a round that begins now or later (rule 11)."""
        context = self._context
        if arrived.epoch != context.epoch or not self.ready:
            context.emit(AnswerRead(arrived.token, confirmed=False))
            return
        round_ = self._rounds.current + 1
        self._waiting.add(Waiting(arrived.token, None, context.commit, round_, context.now))
        self._settle()

    # -- followers ----------------------------------------------------------------------------

    def on_ack(self, ack: Ack) -> None:
        """Count an ack of this epoch, by disk, if its digest equals the leader's (rule 1)."""
        log = self._context.log
        if ack.matched.index < log.base.index:
            self.followers.note_heard(Disk(ack.node, ack.disk_id), self._context.now)
            return
        if not log.holds(ack.matched):
            self._report_mismatch(ack)
            return
        progress = self.followers.note_ack(ack, self._context.now)
        self._waiting.note_time(f"ack_{ack.node}", progress.matched, self._context.now)
        self._membership.report_match(ack, progress)
        self._settle()

    def _report_mismatch(self, ack: Ack) -> None:
        log = self._context.log
        at = ack.matched.index
        self._context.report_peer(
            "follower's digest differs",
            ack.node,
            index=at,
            digest=ack.matched.digest.hex(),
            leader_digest=log.digest_at(at).hex() if at <= log.last else None,
        )

    def on_fetch(self, fetch: Fetch) -> None:
        """Send what follows the last common point (rule 7)."""
        context = self._context
        self.followers.note_heard(Disk(fetch.node, fetch.disk_id), context.now)
        common = next((p for p in fetch.points if context.log.holds(p)), None)
        if common is None:
            self._offer_snapshot(fetch)
            return
        # Not published yet, or the follower holds all of it: the next heartbeat is its answer.
        if common.index >= self._published:
            return
        chunk_bytes = context.settings.chunk_bytes_max
        last = context.log.fit(common.index + 1, self._published, chunk_bytes)
        context.emit(SendFromLog(fetch.node, self._message(common, last - common.index, b"")))

    def _offer_snapshot(self, fetch: Fetch) -> None:
        context = self._context
        if context.log.base.index == 0:
            context.report_peer("follower of another cluster", fetch.node)
            return
        context.emit(Send(fetch.node, Offer(context.epoch, context.me.node, context.log.base)))

    def on_leave(self, leave: Leave) -> None:
        """A follower is about to stop: commit without it as soon as ZooKeeper has agreed."""
        self.followers.note_leaving(Disk(leave.node, leave.disk_id), self._context.now)
        self._membership.tend(self.first)

    def on_probe(self, finished: ProbeFinished) -> None:
        """A silent follower may have been found dead."""
        self._membership.on_probe(finished)
        self._membership.tend(self.first)

    # -- handing over -------------------------------------------------------------------------

    def on_transfer(self, asked: TransferAsked) -> None:
        """An operator wants another leader."""
        if self.ready:
            self.transfer.ask(asked)
        else:
            self._context.emit(AnswerTransfer(asked.token, None, "the leader is not ready yet"))

    # -- time, disk, coordinator ----------------------------------------------------------------

    def on_tick(self) -> None:
        """Heartbeat, echo, membership, and reads that no round confirms."""
        context = self._context
        if self._published and context.now - self._sent_at >= context.settings.heartbeat_s:
            self._send_all(context.log.point(self._published), 0, b"")
        if context.now - self._echo_at >= context.settings.heartbeat_s:
            self._echo_at = context.now
            echo = Echo(context.epoch, context.me.incarnation, context.now)
            context.emit(Send(context.me.node, echo))
        self._membership.tend(self.first)
        self._rounds.ask_coordinator(self._waiting)
        self._dismiss(self._waiting.take_before(context.now - context.settings.give_up_s))
        self._rejected.forget_before(context.now - REMEMBERED_S)
        self._settle()
        self.note_level()

    def on_echo(self, echo: Echo) -> None:
        """The broker carries messages: followers' lag may be judged up to when this was sent."""
        if (echo.epoch, echo.incarnation) == (self._context.epoch, self._context.me.incarnation):
            self.followers.note_echo(echo.sent_at, self._context.now)

    def on_synced(self) -> None:
        """The leader's own sync is its ack; the first one of the epoch lets it publish."""
        context = self._context
        if self._published == 0 and context.synced >= self.first:
            self._publish(context.log.point(self.first - 1), 1, self._opening)
        self._waiting.note_time("fsync", context.synced, context.now)
        self._settle()

    def on_append_failed(self, first: int) -> None:
        """Take back entries that found no room; they were not published."""
        self._pending.forget_from(first)
        self._published = min(self._published, first - 1)
        self._sent_at = float("-inf")  # What was to be sent was skipped: a heartbeat is due.
        for waiting in self._waiting.take_from(first):
            # Rejections may rest on what is gone now; they were not applied either.
            kept = {
                r for r in waiting.results or () if isinstance(r, Committed) and r.index < first
            }
            waiting.results = tuple(
                result if result in kept else Refusal.DISK_FULL for result in waiting.results or ()
            )
            self._rejected.forget(waiting.rejected)
            waiting.index = max((r.index for r in kept), default=0)
            waiting.round = 0
            self._waiting.add(waiting)
        self._settle()

    def on_proposal(self, finished: ProposalFinished) -> None:
        """Take the answer to a proposal; a smaller ISR may commit what waited for who left."""
        self.isr.on_proposal(finished)
        self._settle()

    def on_state(self, state: ClusterState, version: int) -> None:
        """Take a state that names this leader."""
        self.isr.adopt(state, version)
        self._settle()

    def on_read_finished(self, finished: ReadFinished) -> None:
        """A read of ZooKeeper that was to stand for a round has ended."""
        state = finished.view.state if finished.view else None
        self._rounds.on_coordinator_read(
            finished.token, named=state is not None and self.is_named_by(state)
        )
        self._settle()

    def is_named_by(self, state: ClusterState) -> bool:
        """Whether the state names this leader in this epoch."""
        me = self._context.me
        return (state.epoch, state.leader, state.incarnation) == (
            self._context.epoch,
            me.node,
            me.incarnation,
        )

    def note_level(self) -> None:
        """Find out as of when nothing that was committed is missing here (rule 11).

        Asked for by whoever wants to know, and at every tick, to be remembered after this reign.
        Nobody who could have been elected since had seen another epoch by the time when the
        newest message was sent with which every member has confirmed this one.
        """
        if self.ready:
            progress = self.followers.progress
            confirmed_at = [progress[disk].confirmed_at for disk in self.isr.others]
            self._context.note_level(min(confirmed_at, default=self._context.now))

    def resign(self) -> None:
        """Deposed: tell everyone who waits."""
        self._dismiss(self._waiting.take_all())
        self._context.emit(RoleChanged(leading=False))

    def _dismiss(self, everyone: list[Waiting]) -> None:
        """Say what is known to those who wait, which for pending writes is nothing."""
        for waiting in everyone:
            if waiting.results is None:
                self._context.emit(AnswerRead(waiting.token, confirmed=False))
            else:
                self._rejected.forget(waiting.rejected)  # A later attempt is judged anew.
                results = tuple(self._unconfirmed(result) for result in waiting.results)
                self._context.emit(AnswerWrites(waiting.token, results, (), {}))

    def _unconfirmed(self, result: WriteResult) -> WriteResult:
        if isinstance(result, Committed) and result.index > self._context.commit:
            return Unresolved.UNKNOWN
        if isinstance(result, Rejected):
            return Refusal.NOT_LEADER  # Not confirmed by a round: to be judged anew.
        return result

    # -- inner workings -----------------------------------------------------------------------

    def _append_opening(self, opening: Opening) -> bytes:
        context = self._context
        line, digest = encode_epoch(
            opening,
            index=self.first,
            epoch=context.epoch,
            time=context.wall_time(),
            commit=context.commit,
            previous=context.log.last_digest,
        )
        context.log.append(context.epoch, len(line), digest)
        context.emit(AppendLines(self.first, line))
        context.emit(SyncLog())
        return line

    def _publish(self, previous: Point, count: int, lines: bytes) -> None:
        self._published = previous.index + count
        self._send_all(previous, count, lines)

    def _send_all(self, previous: Point, count: int, lines: bytes) -> None:
        self._rounds.begin()
        self._sent_at = self._context.now
        self.followers.note_sent(self._rounds.current, self._published, self._context.now)
        self._context.emit(Send(None, self._message(previous, count, lines)))

    def _message(self, previous: Point, count: int, lines: bytes) -> Append:
        context = self._context
        return Append(
            epoch=context.epoch,
            leader=context.me.node,
            incarnation=context.me.incarnation,
            previous=previous,
            count=count,
            lines=lines,
            commit=context.log.point(min(context.commit, previous.index + count)),
            last=self._published,
            round=self._rounds.current,
            acked=self.followers.acked(),
        )

    def _settle(self) -> None:
        """Commit what every member of the effective ISR holds, and answer who waited for it."""
        context, progress = self._context, self.followers.progress
        level = context.synced
        for disk in self.isr.others:
            matched = progress[disk].matched
            if matched < level:
                level = matched
        if level >= self.first and level > context.commit:
            context.advance_commit(level)
            self._pending.forget_applied(context.applied)
        # Most often nobody waits for a round, only for a commit.
        confirmed = self._confirm() if self._waiting.highest_round else 0
        for waiting in self._waiting.release(context.commit, confirmed):
            self._answer(waiting)
        if self.transfer.begun:
            self.transfer.advance()

    def _confirm(self) -> int:
        """The newest confirmed round; a new one begins if one is wanted and none is under way."""
        rounds = self._rounds
        confirmed = self._confirmed()
        wanted = self._waiting.highest_round > rounds.current
        if wanted and confirmed >= rounds.current and self._published:
            self._send_all(self._context.log.point(self._published), 0, b"")
            confirmed = self._confirmed()
        return confirmed

    def _confirmed(self) -> int:
        progress = self.followers.progress
        return self._rounds.confirmed([progress[disk].round for disk in self.isr.others])

    def _answer(self, waiting: Waiting) -> None:
        context = self._context
        if waiting.results is None:
            context.emit(AnswerRead(waiting.token, confirmed=True))
        else:
            acks = tuple(sorted(self.followers.holders(waiting.index) | {context.me.node}))
            context.emit(AnswerWrites(waiting.token, waiting.results, acks, waiting.timing))
