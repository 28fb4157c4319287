"""What a leader publishes, accepts, refuses and answers, and when."""

from __future__ import annotations

import pytest

from replicad.core.effects import (
    AnswerRead,
    AnswerWrites,
    AppendLines,
    Committed,
    ReadState,
    Reason,
    Refusal,
    Rejected,
    Send,
    SendFromLog,
    Unresolved,
)
from replicad.core.entry import decode_entry
from replicad.core.events import (
    AppendFailed,
    BrokerChanged,
    DiskChanged,
    Earlier,
    Event,
    Found,
    LogSynced,
    MessageReceived,
    ReadArrived,
    ReadFinished,
    Tick,
)
from replicad.core.messages import Ack, Append, Fetch, Reject
from tests.support.core import (
    Stepper,
    ack_from,
    arriving,
    context_of,
    disk,
    disks,
    every,
    leading,
    pass_time,
    state_of,
    view_of,
)
from tests.support.entries import LogBuilder, write_of

N2, N3 = disks("n2", "n3")
A, B = write_of("a"), write_of("b")


def write(leader: Stepper, token: int = 1, found: Found | None = None) -> int:
    leader.step(arriving(leader.context, A, token=token, found=found))
    return leader.context.log.last


def appends(leader: Stepper) -> list[Append]:
    return [s.message for s in leader.every(Send) if isinstance(s.message, Append)]


def ack(leader: Stepper, index: int, *, round_: int = 0) -> None:
    for follower in (N2, N3):
        leader.step(MessageReceived(ack_from(leader.context, follower, index, round_=round_)))


def committed(leader: Stepper, index: int, *, again: bool = False) -> Committed:
    context = leader.context
    return Committed(index, context.epoch, context.log.digest_at(index), "i", again)


def test_nothing_is_published_before_the_epochs_first_entry_is_synced() -> None:
    """Rule 4."""
    leader = leading(context_of(), opened=False)
    assert leader.every(AppendLines)
    assert not appends(leader)
    leader.step(Tick(), after=1)
    leader.step(MessageReceived(Fetch(1, *N2, (leader.context.log.point(0),))))
    assert not appends(leader)
    assert not leader.every(SendFromLog)
    leader.step(LogSynced(1))
    (opening,) = appends(leader)
    assert decode_entry(opening.lines[:-1]).operation == "epoch"


def test_nothing_is_served_before_the_epochs_first_entry_committed() -> None:
    """Rule 6."""
    leader = leading(context_of(), opened=False)
    leader.step(LogSynced(1))
    write(leader)
    assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER,)
    leader.step(ReadArrived(2, 1))
    assert leader.only(AnswerRead) == AnswerRead(2, confirmed=False)
    ack(leader, 1)
    write(leader)
    assert not leader.every(AnswerWrites)


def test_entries_of_earlier_epochs_commit_only_with_the_epochs_first() -> None:
    """Rule 1: acks of this epoch count, and they must reach its own entry."""
    log = LogBuilder()
    log.open_epoch(1)
    log.inserts(3)
    leader = leading(context_of(log=log.index, epoch=1, commit=1), opened=False)
    leader.step(LogSynced(5))
    ack(leader, 4)
    assert leader.context.commit == 1
    ack(leader, 5)
    assert leader.context.commit == 5


def test_a_write_is_answered_once_all_have_it_the_leader_included() -> None:
    """Rule 1."""
    leader = leading(context_of())
    index = write(leader)
    leader.step(MessageReceived(ack_from(leader.context, N2, index)))
    leader.step(MessageReceived(ack_from(leader.context, N3, index)))
    assert not leader.every(AnswerWrites)
    leader.step(LogSynced(index))
    answer = leader.only(AnswerWrites)
    assert answer.results == (committed(leader, index),)
    assert answer.acks == ("n1", "n2", "n3")
    assert set(answer.timing) == {"fsync", "ack_n2", "ack_n3"}


def bad_acks(leader: Stepper, index: int) -> list[Ack]:
    good = ack_from(leader.context, N3, index)
    point = good.matched
    return [
        Ack(good.epoch - 1, *N3, point, 0),
        Ack(good.epoch, *disk("n3", 2), point, 0),
        Ack(good.epoch, *N3, type(point)(index, b"another"), 0),
        Ack(good.epoch, *N3, type(point)(index + 1, point.digest), 0),
        Ack(good.epoch, *N2, point, 0),
    ]


@pytest.mark.parametrize("which", range(5), ids=["epoch", "disk", "digest", "beyond", "doubled"])
def test_an_ack_that_does_not_count(which: int) -> None:
    """Rule 1: of another epoch, another disk, another digest, or for what does not exist."""
    leader = leading(context_of())
    index = write(leader)
    leader.step(LogSynced(index))
    leader.step(MessageReceived(ack_from(leader.context, N2, index)))
    leader.step(MessageReceived(bad_acks(leader, index)[which]))
    assert leader.context.commit == index - 1
    assert not leader.every(AnswerWrites)


@pytest.mark.parametrize(
    ("event", "refusal"),
    [
        (BrokerChanged(up=False), Refusal.BROKER_DOWN),
        (DiskChanged(writable=False), Refusal.DISK_FULL),
    ],
)
def test_writes_are_refused_before_they_are_appended(event: Event, refusal: Refusal) -> None:
    leader = leading(context_of())
    leader.step(event)
    write(leader)
    assert leader.only(AnswerWrites).results == (refusal,)
    assert not leader.every(AppendLines)


def test_too_few_in_sync_refuse() -> None:
    """Rule 3."""
    leader = leading(context_of())
    pass_time(leader, 2.0)
    write(leader)
    assert leader.only(AnswerWrites).results == (Refusal.NOT_ENOUGH_REPLICAS,)


def test_a_write_for_another_epoch_is_refused() -> None:
    """Rule 10."""
    leader = leading(context_of())
    event = arriving(leader.context, A)
    leader.step(type(event)(1, event.epoch + 1, event.writes, event.found, event.applied))
    assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER,)


def test_a_retry_of_a_pending_write_gets_its_outcome() -> None:
    """Rule 10: one entry, two answers."""
    leader = leading(context_of())
    index = write(leader, token=1)
    assert write(leader, token=2) == index
    leader.step(LogSynced(index))
    ack(leader, index)
    answers = leader.every(AnswerWrites)
    assert [(a.token, a.results) for a in answers] == [
        (1, (committed(leader, index),)),
        (2, (committed(leader, index, again=True),)),
    ]


def test_a_retry_of_a_stored_write_gets_its_outcome_at_once() -> None:
    """Rule 10: also at a leader that did not write it."""
    leader = leading(context_of())
    assert write(leader, found=Found((1,), Earlier(1, A.fingerprint, "i"))) == 1
    assert leader.only(AnswerWrites).results == (committed(leader, 1, again=True),)


@pytest.mark.parametrize(
    ("found", "rejected"),
    [
        (Found((1,), None), Rejected(Reason.EXISTS, 0, 1)),
        (Found((0,), Earlier(1, "another write", "i")), Rejected(Reason.MISMATCH)),
        (Found((0,), None, definition=1), Rejected(Reason.DEFINITION, 0, 1)),
    ],
)
def test_a_rejection_waits_for_a_round_like_a_read(found: Found, rejected: Rejected) -> None:
    """Rule 11."""
    leader = leading(context_of())
    pass_time(leader, 0.2, answering=[N2, N3])
    write(leader, found=found)
    assert not leader.every(AnswerWrites)
    effects = pass_time(leader, 0.3, answering=[N2, N3])
    assert [a.results for a in every(effects, AnswerWrites)] == [(rejected,)]


def test_a_duplicate_of_a_pending_record_waits_for_its_commit() -> None:
    """Rule 11: nobody hears of a record that may yet be lost."""
    leader = leading(context_of())
    index = write(leader, token=1)
    leader.step(LogSynced(index))
    other = write_of("a", request="another request")
    leader.step(arriving(leader.context, other, token=2))
    current = appends(leader)
    round_ = current[-1].round if current else 9
    for follower in (N2, N3):  # All rounds are confirmed, and the entry is not matched.
        heard = ack_from(leader.context, follower, index - 1, round_=round_)
        leader.step(MessageReceived(heard))
    assert not leader.every(AnswerWrites)
    effects = pass_time(leader, 0.3, answering=[N2, N3])
    assert {a.token: a.results for a in every(effects, AnswerWrites)}[2] == (
        Rejected(Reason.EXISTS, 0, 2),
    )


def test_a_read_waits_for_a_round_that_begins_after_it() -> None:
    """Rule 11: acks of the round under way were perhaps sent before the read arrived."""
    leader = leading(context_of())
    leader.step(Tick(), after=1)
    under_way = appends(leader)[-1].round
    leader.step(ReadArrived(5, 1))
    ack(leader, 1, round_=under_way)
    assert not leader.every(AnswerRead)
    ack(leader, 1, round_=under_way + 1)
    assert leader.only(AnswerRead) == AnswerRead(5, confirmed=True)


@pytest.mark.parametrize("named", [True, False])
def test_the_coordinator_may_stand_for_a_round(named: bool) -> None:
    """Rule 11: reads go on although a dead member at min_in_sync confirms nothing."""
    leader = leading(context_of())
    stored = state_of(1, "n1") if named else state_of(1, "n9")
    leader.step(ReadArrived(5, 1))
    effects = pass_time(leader, leader.context.settings.read_fallback_s + 0.1)
    (token,) = [read.token for read in every(effects, ReadState)]
    leader.step(ReadFinished(token, view_of(stored, 1)))
    assert [a.token for a in leader.every(AnswerRead)] == ([5] if named else [])


def test_entries_that_found_no_room_are_taken_back() -> None:
    leader = leading(context_of())
    index = write(leader)
    leader.step(AppendFailed(index))
    assert leader.only(AnswerWrites).results == (Refusal.DISK_FULL,)
    assert leader.context.log.last == index - 1
    assert leader.replica.leads
    leader.step(DiskChanged(writable=True))
    assert write(leader) == index  # And not taken for a retry of what was taken back.
    assert leader.every(AppendLines)


def test_a_leader_without_room_for_its_first_entry_makes_way() -> None:
    leader = leading(context_of(), opened=False)
    leader.step(AppendFailed(1))
    assert not leader.replica.leads
    assert leader.context.log.last == 0


def test_a_deposed_leader_says_only_what_it_knows() -> None:
    leader = leading(context_of())
    write(leader, token=1)
    leader.step(arriving(leader.context, B, token=2, found=Found((1,), None)))
    leader.step(ReadArrived(3, 1))
    leader.step(MessageReceived(Reject(9, "n3")))
    answers = {a.token: a.results for a in leader.every(AnswerWrites)}
    assert answers == {1: (Unresolved.UNKNOWN,), 2: (Refusal.NOT_LEADER,)}
    assert leader.only(AnswerRead) == AnswerRead(3, confirmed=False)


def test_catch_up_follows_the_last_common_point() -> None:
    """Rule 7."""
    leader = leading(context_of())
    for _ in range(2):
        write(leader)
        leader.step(LogSynced(leader.context.log.last))
    log = leader.context.log
    foreign = type(log.point(1))(2, b"another")
    leader.step(MessageReceived(Fetch(1, *N3, (foreign, log.point(1), log.point(0)))))
    sent = leader.only(SendFromLog)
    assert (sent.to, sent.append.previous, sent.append.count) == ("n3", log.point(1), log.last - 1)


def test_a_log_of_another_cluster_is_sent_nothing() -> None:
    leader = leading(context_of())
    foreign = LogBuilder("another").index.point(0)
    leader.step(MessageReceived(Fetch(1, *N3, (foreign,))))
    assert not leader.every(SendFromLog)
