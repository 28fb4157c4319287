"""A replica that does not lead takes over the leader's log byte for byte (rules 1, 4, 7, 9)."""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Final, NamedTuple

from replicad.core.context import Context
from replicad.core.effects import (
    AnswerRead,
    AnswerWrites,
    AppendLines,
    FetchSnapshot,
    InstallSnapshot,
    Level,
    Refusal,
    Send,
    SyncLog,
    TruncateLog,
)
from replicad.core.entry import decode_head, split_lines, verify_line
from replicad.core.events import ReadArrived, WritesArrived
from replicad.core.messages import Ack, Append, Fetch, Leave, Offer, Point
from replicad.errors import MalformedEntryError

_ACKS_MAX: Final = 1000


class _Line(NamedTuple):
    at: int
    digest: bytes
    epoch: int
    time: str
    size: int
    """In bytes, with the newline."""

    @property
    def point(self) -> Point:
        return Point(self.at, self.digest)


class Follower:
    """Follows the leader of this replica's persisted epoch. Discarded when the epoch ends."""

    def __init__(self, context: Context) -> None:
        """Follow nobody yet."""
        self._context = context
        self.leader: str | None = None
        self.heard_at = context.now
        self._level_if: tuple[int, float] | None = None
        self._acked: deque[tuple[int, float]] = deque(maxlen=_ACKS_MAX)
        # What is known to equal the log of the leader of this epoch, synced or not.
        self._verified = Point(0, b"")
        self._commit = Point(0, b"")
        self._round = 0
        self._fetched_at = float("-inf")
        self._reported_at = float("-inf")
        self._reported = 0

    @property
    def leader_heard_at(self) -> float | None:
        """When the leader of this epoch was last heard; None if it never was."""
        return None if self.leader is None else self.heard_at

    def on_writes(self, arrived: WritesArrived) -> None:
        """Writes are for the leader."""
        refused = (Refusal.NOT_LEADER,) * len(arrived.writes)
        self._context.emit(AnswerWrites(arrived.token, refused, (), {}))

    def on_read(self, arrived: ReadArrived) -> None:
        """Strong reads are for the leader."""
        self._context.emit(AnswerRead(arrived.token, confirmed=False))

    def on_append(self, append: Append) -> None:
        """Check the chain, take over what is new, ack what is synced. Of this epoch only."""
        context = self._context
        self.heard_at = context.now
        if self.leader != append.leader:
            self.leader = append.leader
            context.report(Level.INFO, "following", leader=append.leader)
        if append.previous.index < context.log.base.index:
            self._fetch()  # Late, or for a log that begins earlier than this one.
            return
        if not context.log.holds(append.previous):
            self._ask_for_match(append.previous)
            return
        try:
            lines = _check(append)
        except MalformedEntryError as error:
            context.report_peer("bad entry from leader", append.leader, error=str(error))
            return
        self._note_commit(append)
        self._round = max(self._round, append.round)
        self._commit = append.commit
        self._take_over(append, lines)
        if context.log.last < append.last and context.disk_writable:
            self._fetch()

    def _note_commit(self, append: Append) -> None:
        """Find out as of when the commit index of a message was the newest.

        The message may have been under way for long. But it was sent after the acks that it names
        had come, and so after this replica had sent its own.
        """
        is_whole = append.previous.index + append.count == append.last
        acked = append.acked.get(self._context.me.node, 0)
        if append.round < self._round or not is_whole:
            return
        while len(self._acked) > 1 and self._acked[1][0] <= acked:
            self._acked.popleft()
        if self._acked and self._acked[0][0] <= acked:
            self._level_if = append.commit.index, self._acked[0][1]

    def on_synced(self) -> None:
        """Commit, apply and ack what is on the disk now."""
        context = self._context
        if self.leader is None:
            return
        if context.log.holds(self._commit):
            context.advance_commit(self._commit.index)
        if self._level_if is not None and self._knows_commit(self._level_if[0]):
            context.note_level(self._level_if[1])
        self._ack(self.leader)

    def _knows_commit(self, index: int) -> bool:
        """Whether this is applied, and was told by a leader that knew what is committed (rule 6).

        Until its epoch's first entry has committed, others may have committed more before.
        """
        context = self._context
        there = context.log.base.index <= index <= context.applied
        return there and context.log.epoch_at(index) == context.epoch

    def on_offer(self, offer: Offer) -> None:
        """The leader has no entries that follow what was asked for (rule 7)."""
        context = self._context
        if offer.base.index < context.log.base.index:
            return  # Late: this log has begun anew since it asked.
        if context.log.holds(offer.base):
            # The two logs part after the base, which was not among the points.
            self._verified = max(self._verified, offer.base)
            self._fetched_at = float("-inf")
            self._fetch()
        elif offer.base.index <= context.commit:
            self._halt_diverged(offer.base)
        elif not context.fetching_snapshot:
            context.fetching_snapshot = True
            context.report_sync(
                Level.WARNING,
                "snapshot needed",
                node=context.me.node,
                index=context.log.last,
                base=offer.base.index,
                leader=offer.leader,
            )
            context.emit(FetchSnapshot(offer.base.index))

    def on_snapshot(self, point: Point) -> None:
        """A snapshot is here: take it, unless this log has come that far by itself."""
        context = self._context
        if point.index > context.commit and not context.log.holds(point):
            context.report_sync(
                Level.WARNING,
                "snapshot taken",
                node=context.me.node,
                index=point.index,
                digest=point.digest.hex(),
            )
            context.emit(InstallSnapshot(point, context.commit))

    def on_installed(self) -> None:
        """What was verified before is gone; go on from the snapshot."""
        self._verified = self._commit = self._context.log.base
        self._fetched_at = float("-inf")
        self._fetch()

    def leave(self) -> None:
        """Ask not to be waited for any more."""
        if self.leader is not None:
            me = self._context.me.disk
            self._context.emit(Send(self.leader, Leave(self._context.epoch, me.node, me.disk_id)))

    def on_append_failed(self) -> None:
        """The new entries found no room: they will be fetched again."""
        last = self._context.log.last_point
        self._verified = min(self._verified, last)
        self._commit = min(self._commit, last)

    def _take_over(self, append: Append, lines: list[_Line]) -> None:
        context, log = self._context, self._context.log
        known: list[_Line] = []
        if append.previous.index < log.last:
            known = list(takewhile(lambda line: log.holds(line.point), lines))
        new = lines[len(known) :]
        if new and not context.disk_writable:
            # What room is left is kept for epochs and marks; the rest is fetched again later.
            lines, new = known, []
        if new and new[0].at <= log.last and not self._truncate(new[0].point):
            return
        last = lines[-1].point if lines else append.previous
        if last.index > self._verified.index:
            self._verified = last
            self._fetched_at = float("-inf")  # What was asked for has come.
        if not new:
            self.on_synced()
            return
        for line in new:
            log.append(line.epoch, line.size, line.digest)
        context.note_time(new[-1].time)
        # If there is no room these effects fail and what follows in the step is skipped: only
        # asking for more may follow, since it will be asked for again.
        context.emit(AppendLines(new[0].at, append.lines[sum(k.size for k in known) :]))
        context.emit(SyncLog())

    def _truncate(self, leaders: Point) -> bool:
        """Cut where this log's digest differs from the leader's. Never for any other reason."""
        context = self._context
        if leaders.index <= context.commit:
            self._halt_diverged(leaders)
            return False
        context.report_sync(
            Level.ERROR,
            "truncated",
            node=context.me.node,
            index=leaders.index,
            entries=context.log.last - leaders.index + 1,
            digest=context.log.digest_at(leaders.index).hex(),
            leader_digest=leaders.digest.hex(),
        )
        context.emit(TruncateLog(leaders.index))
        context.cut(leaders.index)
        return True

    def _ask_for_match(self, previous: Point) -> None:
        context = self._context
        if previous.index <= context.commit:
            self._halt_diverged(previous)
            return
        self._fetch()

    def _halt_diverged(self, leaders: Point) -> None:
        context = self._context
        fields = {
            "node": context.me.node,
            "index": leaders.index,
            "digest": context.log.digest_at(leaders.index).hex(),
            "leader_digest": leaders.digest.hex(),
        }
        context.report_sync(Level.ERROR, "committed entry differs from the leader's", **fields)
        context.halt(f"log differs from {self.leader}'s at committed index {leaders.index}")

    def _fetch(self) -> None:
        """Ask for what follows the last common point; once, until it comes or time is up."""
        context = self._context
        due = context.now - self._fetched_at >= context.settings.fetch_retry_s
        if self.leader is None or context.fetching_snapshot or not due:
            return
        self._fetched_at = context.now
        me = context.me.disk
        # What was verified in this epoch is among the points: it moves on with every message, even
        # while all that comes is known already, so a long divergent tail is reached in the end.
        verified = max(self._verified.index, context.log.base.index)
        points = {*context.log.points(), context.log.point(verified)}
        ordered = tuple(sorted(points, reverse=True))
        fetch = Fetch(context.epoch, me.node, me.disk_id, ordered)
        context.emit(Send(self.leader, fetch))

    def _ack(self, leader: str) -> None:
        context = self._context
        if context.left:
            return  # Else it might be admitted again, and commits wait for it.
        # All up to the base is committed, and so in the leader's log, too.
        matched = max(min(self._verified.index, context.synced), context.log.base.index)
        me = context.me.disk
        point = context.log.point(matched)
        self._report_match(leader, point)
        if not self._acked or self._acked[-1][0] < self._round:
            self._acked.append((self._round, context.now))
        context.emit(Send(leader, Ack(context.epoch, me.node, me.disk_id, point, self._round)))

    def _report_match(self, leader: str, point: Point) -> None:
        """Tell sync.log now and then that this log equals the leader's."""
        context = self._context
        due = context.now - self._reported_at >= context.settings.report_interval_s
        if due and point.index > self._reported:
            self._reported_at = context.now
            self._reported = point.index
            digest = point.digest.hex()
            context.report_sync(
                Level.INFO,
                "digest matched the leader's",
                node=context.me.node,
                index=point.index,
                digest=digest,
                leader_digest=digest,
                leader=leader,
            )


def _check(append: Append) -> list[_Line]:
    """Verify that the lines follow `previous` one by one.

    Raises:
        MalformedEntryError: They do not.
    """
    lines: list[_Line] = []
    at, digest = append.previous.index, append.previous.digest
    for text in split_lines(append.lines):
        digest = verify_line(text, digest)
        index, epoch, time, _ = decode_head(text)
        if index != at + 1 or epoch > append.epoch:
            raise MalformedEntryError(f"entry {index} of epoch {epoch} after {at}")
        at = index
        lines.append(_Line(at, digest, epoch, time, len(text) + 1))
    if len(lines) != append.count:
        raise MalformedEntryError(f"{len(lines)} entries where {append.count} were announced")
    return lines
