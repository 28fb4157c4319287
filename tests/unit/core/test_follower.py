"""A follower takes over the leader's log, and cuts its own only where digests differ."""

from __future__ import annotations

from replicad.core.context import Context
from replicad.core.effects import AppendLines, Apply, Halt, PersistEpoch, Send, SyncLog, TruncateLog
from replicad.core.events import AppendFailed, DiskChanged, LogSynced, MessageReceived
from replicad.core.messages import Ack, Append, Fetch, Point, Reject
from tests.support.core import Stepper, append_of, context_of
from tests.support.entries import LogBuilder, write_of


def log_of(count: int, *, padding: int = 0) -> LogBuilder:
    builder = LogBuilder()
    builder.open_epoch(1)
    builder.inserts(count - 1, padding=padding)
    return builder


def follower_of(log: LogBuilder, *, commit: int = 0) -> Stepper:
    return Stepper(context_of("n1", log.index, epoch=1, commit=commit))


def receive(follower: Stepper, append: Append, *, synced: bool = True) -> None:
    follower.step(MessageReceived(append))
    if synced and follower.every(SyncLog):
        follower.step(LogSynced(follower.context.log.last))


def sent(follower: Stepper, kind: type) -> list[object]:
    return [s.message for s in follower.every(Send) if isinstance(s.message, kind)]


def matched(context: Context, round_: int = 1) -> Ack:
    return Ack(context.epoch, *context.me.disk, context.log.last_point, round_)


def test_new_entries_are_taken_over_verbatim_and_acked_once_synced() -> None:
    """Rule 1."""
    leader = log_of(2)
    follower = follower_of(log_of(2))
    before, lines = leader.index.last_point, leader.inserts(2)
    receive(follower, append_of(before, lines), synced=False)
    assert follower.only(AppendLines) == AppendLines(3, lines)
    assert not sent(follower, Ack)
    follower.step(LogSynced(3))
    assert sent(follower, Ack) == [Ack(1, *follower.context.me.disk, leader.index.point(3), 1)]
    follower.step(LogSynced(4))
    assert sent(follower, Ack) == [matched(follower.context)]


def test_known_entries_are_not_written_again() -> None:
    leader = LogBuilder()
    lines = leader.open_epoch(1) + leader.inserts(2)
    follower = follower_of(log_of(2))
    receive(follower, append_of(Point(0, leader.genesis), lines), synced=False)
    assert follower.only(AppendLines).first == 3


def test_a_gap_is_asked_for_once_until_it_is_time_to_ask_again() -> None:
    """Rule 7."""
    leader = log_of(9)
    follower = follower_of(log_of(2))
    receive(follower, append_of(leader.index.last_point))
    fetch = only_fetch(follower)
    assert fetch.points[0] == follower.context.log.last_point
    receive(follower, append_of(leader.index.last_point))
    assert not sent(follower, Fetch)
    follower.now += follower.context.settings.fetch_retry_s
    receive(follower, append_of(leader.index.last_point))
    assert sent(follower, Fetch)


def only_fetch(follower: Stepper) -> Fetch:
    (message,) = sent(follower, Fetch)
    assert isinstance(message, Fetch)
    return message


def diverged() -> tuple[LogBuilder, LogBuilder, bytes]:
    """Two logs that part after entry 2: the leader's, the follower's, the leader's tail."""
    leader, mine = log_of(2), log_of(2)
    mine.inserts(4, padding=1)
    return leader, mine, leader.open_epoch(2) + leader.inserts(1)


def test_a_diverging_log_is_cut_exactly_where_digests_differ() -> None:
    """Rule 7."""
    leader, mine, tail = diverged()
    follower = follower_of(mine)
    receive(follower, append_of(leader.index.point(2), tail, epoch=2), synced=False)
    assert [type(e) for e in follower.effects if isinstance(e, TruncateLog | AppendLines)] == [
        TruncateLog,
        AppendLines,
    ]
    assert follower.only(TruncateLog).first == 3
    assert follower.context.log.last_point == leader.index.last_point


def test_known_entries_before_the_difference_are_kept() -> None:
    leader = LogBuilder()
    lines = leader.open_epoch(1) + leader.inserts(1) + leader.open_epoch(2)
    _, mine, _ = diverged()
    follower = follower_of(mine)
    receive(follower, append_of(Point(0, leader.genesis), lines, epoch=2))
    assert follower.context.log.point(2) == leader.index.point(2)
    assert follower.context.log.last == 3


def test_a_shorter_message_or_log_cuts_nothing() -> None:
    """Rule 7: only a difference does."""
    short, follower = log_of(2), follower_of(log_of(6))
    receive(follower, append_of(short.index.last_point, epoch=2, last=2))
    assert not follower.every(TruncateLog)
    assert follower.context.log.last == 6
    (ack,) = sent(follower, Ack)
    assert isinstance(ack, Ack)
    assert ack.matched == short.index.last_point


def test_a_divergence_at_a_committed_index_halts() -> None:
    """Rule 7: it can never come about, so nothing is trusted any more."""
    leader, mine, tail = diverged()
    follower = follower_of(mine, commit=3)
    receive(follower, append_of(leader.index.point(2), tail, epoch=2))
    assert follower.every(Halt)
    assert not follower.every(TruncateLog)
    assert not follower.step(MessageReceived(append_of(leader.index.point(2), epoch=3)))


def test_a_heartbeat_that_differs_at_a_committed_index_halts() -> None:
    leader, mine, _ = diverged()
    follower = follower_of(mine, commit=3)
    receive(follower, append_of(leader.index.point(3), epoch=2))
    assert follower.every(Halt)


def test_a_commit_point_counts_only_with_an_equal_digest() -> None:
    """Rule 9."""
    leader, mine, _ = diverged()
    follower = follower_of(mine)
    receive(follower, append_of(leader.index.point(2), epoch=2, commit=leader.index.point(3)))
    assert follower.context.commit == 0
    receive(follower, append_of(leader.index.point(2), epoch=2, commit=leader.index.point(2)))
    assert follower.context.commit == 2
    assert follower.only(Apply) == Apply(2)


def test_committed_entries_are_applied_only_when_synced_here() -> None:
    follower = follower_of(LogBuilder())
    leader = LogBuilder()
    lines = leader.open_epoch(1)
    commit = leader.index.last_point
    receive(follower, append_of(Point(0, leader.genesis), lines, commit=commit), synced=False)
    assert not follower.every(Apply)
    follower.step(LogSynced(1))
    assert follower.only(Apply) == Apply(1)


def test_entries_that_found_no_room_are_not_acked_and_come_again() -> None:
    leader, follower = log_of(2), follower_of(log_of(2))
    before, lines = leader.index.last_point, leader.inserts(1)
    receive(follower, append_of(before, lines), synced=False)
    follower.step(AppendFailed(3))
    assert follower.context.log.last == 2
    follower.step(LogSynced(2))
    assert sent(follower, Ack) == [matched(follower.context)]
    follower.step(DiskChanged(writable=True))
    receive(follower, append_of(before, lines))
    assert sent(follower, Ack) == [matched(follower.context)]


def test_a_full_disk_takes_nothing_new_and_is_truthful_about_what_it_has() -> None:
    """What it has is acked and applied; what comes after it is asked for once there is room."""
    leader = LogBuilder()
    known = leader.open_epoch(1) + leader.inserts(1)
    commit = leader.index.last_point
    follower = follower_of(log_of(2))
    follower.step(DiskChanged(writable=False))
    receive(follower, append_of(Point(0, leader.genesis), known, last=3))
    assert sent(follower, Ack) == [matched(follower.context)]
    lines = known + leader.inserts(1)
    follower.now += follower.context.settings.fetch_retry_s
    receive(follower, append_of(Point(0, leader.genesis), lines, commit=commit, round_=2))
    assert not follower.every(AppendLines)
    assert follower.context.log.last == 2
    assert sent(follower, Ack) == [matched(follower.context, 2)]
    assert follower.only(Apply) == Apply(2)
    assert not sent(follower, Fetch)
    follower.step(DiskChanged(writable=True))
    receive(follower, append_of(leader.index.last_point, round_=3))
    assert only_fetch(follower).points[0] == commit


def test_a_full_disk_keeps_a_tail_that_differs() -> None:
    """Cutting it takes room in lost+found."""
    leader, mine, tail = diverged()
    follower = follower_of(mine)
    follower.step(DiskChanged(writable=False))
    receive(follower, append_of(leader.index.point(2), tail, epoch=2))
    assert not follower.every(TruncateLog)
    assert all(isinstance(ack, Ack) and ack.matched.index <= 2 for ack in sent(follower, Ack))


def test_damaged_lines_are_neither_written_nor_acked() -> None:
    leader, follower = log_of(2), follower_of(log_of(2))
    before, lines = leader.index.last_point, leader.inserts(1)
    receive(follower, append_of(before, lines.replace(b'"3"', b'"4"')))
    assert not follower.every(AppendLines)
    assert not sent(follower, Ack)


def test_entries_of_an_epoch_above_the_leaders_are_refused() -> None:
    leader, follower = log_of(2), follower_of(log_of(2))
    before, lines = leader.index.last_point, leader.open_epoch(7)
    receive(follower, append_of(before, lines, epoch=6))
    assert not follower.every(AppendLines)


def test_a_higher_epoch_is_persisted_before_anything_else() -> None:
    """Rule 4."""
    leader, follower = log_of(2), follower_of(log_of(2))
    before, lines = leader.index.last_point, leader.insert(write_of("x"))
    follower.step(MessageReceived(append_of(before, lines, epoch=5)))
    assert follower.effects[0] == PersistEpoch(5)


def test_a_lower_epoch_is_rejected() -> None:
    """Rule 4: a deposed leader collects no acks."""
    leader, follower = log_of(2), follower_of(log_of(2))
    receive(follower, append_of(leader.index.last_point, epoch=5))
    receive(follower, append_of(leader.index.last_point, epoch=4, leader="n3"))
    assert follower.only(Send) == Send("n3", Reject(5, "n1"))
