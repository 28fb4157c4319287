"""What is known is answered, even in a batch whose new writes are refused (rule 10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicad.core.context import Settings
from replicad.core.effects import (
    AnswerWrites,
    AppendLines,
    Committed,
    Reason,
    Refusal,
    Rejected,
    Unresolved,
)
from replicad.core.events import (
    AppendFailed,
    DiskChanged,
    Earlier,
    Found,
    LogSynced,
    MessageReceived,
    WritesArrived,
)
from replicad.core.write import WriteRequest
from tests.support.core import (
    SETTINGS,
    Stepper,
    ack_from,
    arriving,
    context_of,
    disks,
    leading,
    pass_time,
)
from tests.support.entries import write_of

A, B, C = write_of("a"), write_of("b"), write_of("c")
NEW = Found((0,), None)
TAKEN = Found((1,), None)


def leader_of(settings: Settings = SETTINGS) -> Stepper:
    return leading(context_of(settings=settings))


def stored(write: WriteRequest, index: int) -> Found:
    """What the record store says of a write that is committed at `index`."""
    return Found((index,), Earlier(index, write.fingerprint, "i"))


def batch(leader: Stepper, *items: tuple[WriteRequest, Found], token: int = 2) -> None:
    writes, found = zip(*items, strict=True)
    context = leader.context
    leader.step(WritesArrived(token, context.epoch, writes, found, context.applied))


def commit(leader: Stepper, index: int) -> dict[int, AnswerWrites]:
    """Sync and ack up to `index`; returns the answers, by token."""
    effects = list(leader.step(LogSynced(index)))
    for follower in disks("n2", "n3"):
        effects += leader.step(MessageReceived(ack_from(leader.context, follower, index)))
    assert leader.context.commit == index
    return {answer.token: answer for answer in effects if isinstance(answer, AnswerWrites)}


def committed(leader: Stepper, index: int, *, again: bool = False) -> Committed:
    context = leader.context
    return Committed(index, context.epoch, context.log.digest_at(index), "i", again)


def again(leader: Stepper, index: int) -> Committed:
    return committed(leader, index, again=True)


def test_a_full_disk_refuses_the_new_and_answers_the_stored() -> None:
    leader = leader_of()
    leader.step(DiskChanged(writable=False))
    batch(leader, (B, NEW), (A, stored(A, 1)), (C, NEW))
    assert leader.only(AnswerWrites).results == (
        Refusal.DISK_FULL,
        again(leader, 1),
        Refusal.DISK_FULL,
    )
    assert not leader.every(AppendLines)


def test_too_few_followers_refuse_the_new_and_nobody_waits_for_the_pending() -> None:
    """Rules 3 and 10: it may stay pending for long, and what rests on it is not known either."""
    leader = leader_of()
    leader.step(arriving(leader.context, A))
    pass_time(leader, 2.0)
    other = write_of("a", request="another request")
    batch(leader, (A, NEW), (other, NEW), (B, NEW))
    assert leader.only(AnswerWrites).results == (
        Unresolved.UNKNOWN,
        Refusal.NOT_ENOUGH_REPLICAS,
        Refusal.NOT_ENOUGH_REPLICAS,
    )
    assert not leader.every(AppendLines)
    assert commit(leader, 2)[1].results == (committed(leader, 2),)
    batch(leader, (A, stored(A, 2)))
    assert leader.only(AnswerWrites).results == (again(leader, 2),)


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (TAKEN, Rejected(Reason.EXISTS, 0, 1)),
        (Found((0,), Earlier(1, "other", "i")), Rejected(Reason.MISMATCH)),
    ],
)
def test_a_rejection_among_the_refused_still_waits_for_a_round(
    found: Found, result: Rejected
) -> None:
    """Rule 11."""
    leader = leader_of()
    pass_time(leader, 0.2, answering=disks("n2", "n3"))
    leader.step(DiskChanged(writable=False))
    batch(leader, (A, found), (B, NEW))
    assert not leader.every(AnswerWrites)
    effects = pass_time(leader, 0.3, answering=disks("n2", "n3"))
    answers = [effect for effect in effects if isinstance(effect, AnswerWrites)]
    assert [answer.results for answer in answers] == [(result, Refusal.DISK_FULL)]


def test_one_batch_may_hold_a_write_twice() -> None:
    leader = leader_of()
    other = write_of("a", request="another request")
    batch(leader, (A, NEW), (A, NEW), (other, NEW))
    assert leader.context.log.last == 2
    commit(leader, 2)
    effects = pass_time(leader, 0.3, answering=disks("n2", "n3"))
    answers = [effect for effect in effects if isinstance(effect, AnswerWrites)]
    assert [answer.results for answer in answers] == [
        (committed(leader, 2), again(leader, 2), Rejected(Reason.EXISTS, 0, 2))
    ]


def test_of_a_batch_that_found_no_room_the_pending_is_kept_and_the_new_refused() -> None:
    leader = leader_of()
    leader.step(arriving(leader.context, A))
    batch(leader, (A, NEW), (B, NEW), (C, stored(C, 1)))
    assert leader.only(AppendLines).first == 3
    leader.step(AppendFailed(3))
    assert not leader.every(AnswerWrites)
    answers = commit(leader, 2)
    assert answers[1].results == (committed(leader, 2),)
    assert answers[2].results == (again(leader, 2), Refusal.DISK_FULL, again(leader, 1))


def test_a_rejection_in_a_batch_that_found_no_room_is_not_told() -> None:
    """It may rest on what is gone now."""
    leader = leader_of()
    other = write_of("b", request="another request")
    batch(leader, (B, NEW), (other, NEW), (C, stored(C, 1)))
    leader.step(AppendFailed(2))
    assert leader.only(AnswerWrites).results == (
        Refusal.DISK_FULL,
        Refusal.DISK_FULL,
        again(leader, 1),
    )


def test_a_retry_that_waits_for_an_entry_that_found_no_room_is_refused_too() -> None:
    leader = leader_of()
    leader.step(arriving(leader.context, A, token=1))
    leader.step(arriving(leader.context, A, token=2))
    leader.step(AppendFailed(2))
    answers = {answer.token: answer.results for answer in leader.every(AnswerWrites)}
    assert answers == {1: (Refusal.DISK_FULL,), 2: (Refusal.DISK_FULL,)}


def test_too_much_pending_refuses_until_it_is_committed() -> None:
    leader = leader_of(replace(SETTINGS, pending_bytes_max=100))
    leader.step(arriving(leader.context, A, token=1))
    batch(leader, (B, NEW), token=2)
    assert leader.only(AnswerWrites).results == (Refusal.OVERLOADED,)
    assert commit(leader, 2)[1].results == (committed(leader, 2),)
    batch(leader, (B, NEW), token=3)
    assert leader.only(AppendLines).first == 3


def test_what_was_refused_is_accepted_once_there_is_room() -> None:
    leader = leader_of()
    leader.step(DiskChanged(writable=False))
    batch(leader, (A, NEW), token=1)
    assert leader.only(AnswerWrites).results == (Refusal.DISK_FULL,)
    leader.step(DiskChanged(writable=True))
    batch(leader, (A, NEW), token=2)
    assert commit(leader, 2)[2].results == (committed(leader, 2),)
