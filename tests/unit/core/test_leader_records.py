"""What a leader does to records: versions, batches, definitions, and attempts that come late."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from replicad.core.attempts import REMEMBERED_S
from replicad.core.effects import (
    AnswerWrites,
    AppendLines,
    Committed,
    Reason,
    Refusal,
    Rejected,
    Unresolved,
    WriteResult,
)
from replicad.core.entry import Change, decode_entry
from replicad.core.events import (
    AppendFailed,
    Earlier,
    Found,
    LogSynced,
    MessageReceived,
)
from replicad.core.messages import Reject
from replicad.core.write import DEFINITIONS, Operation, Wanted, WriteRequest
from tests.support.core import (
    Stepper,
    ack_from,
    arriving,
    context_of,
    disks,
    every,
    leading,
    pass_time,
)
from tests.support.entries import batch_of, delete_of, put_of, write_of

FOLLOWERS = disks("n2", "n3")
A = write_of("a")
FIRST = 2
"""Where a write gets whose leader's opening entry is the log's first."""


@pytest.fixture
def leader() -> Stepper:
    return leading(context_of())


def send(leader: Stepper, *writes: WriteRequest, token: int = 1) -> None:
    leader.step(arriving(leader.context, *writes, token=token))


def settled(leader: Stepper, index: int) -> list[AnswerWrites]:
    """What is answered once the log is synced and acked up to `index`, and a round later."""
    effects = list(leader.step(LogSynced(index)))
    for follower in FOLLOWERS:
        effects += leader.step(MessageReceived(ack_from(leader.context, follower, index)))
    effects += pass_time(leader, 0.3, answering=FOLLOWERS)
    return every(effects, AnswerWrites)


def results(answers: Iterable[AnswerWrites]) -> list[WriteResult]:
    return [result for answer in answers for result in answer.results]


def done(results: Iterable[WriteResult]) -> list[object]:
    """What was done, in letters, or why not."""
    return [
        result.done if isinstance(result, Committed) else getattr(result, "reason", result)
        for result in results
    ]


# -- records and batches ------------------------------------------------------------------------


def test_versions_follow_from_what_is_pending(leader: Stepper) -> None:
    send(
        leader,
        A,
        put_of("a", request="u1", condition=(FIRST,)),
        put_of("a", request="u2", condition=(FIRST,)),
        delete_of("a", request="d", condition=(FIRST + 1,)),
        write_of("a", request="again"),
    )
    answers = settled(leader, FIRST + 3)
    assert done(results(answers)) == ["i", "u", Reason.CHANGED, "d", "i"]
    assert results(answers)[2] == Rejected(Reason.CHANGED, 0, FIRST + 1)


def test_a_batch_is_one_entry(leader: Stepper) -> None:
    send(leader, A)
    send(leader, batch_of(Operation("a", None), Operation("b", b"{}"), request="batch"), token=2)
    entry = decode_entry(leader.only(AppendLines).lines[:-1])
    assert entry.changes == (Change("delete", "a", None), Change("insert", "b", b"{}"))
    assert done(results(settled(leader, FIRST + 1))) == ["i", "di"]


def test_a_batch_of_which_one_cannot_be_does_nothing(leader: Stepper) -> None:
    send(leader, A)
    batch = batch_of(Operation("b", b"{}"), Operation("a", b"{}", Wanted.ABSENT), request="batch")
    send(leader, batch, write_of("b"), token=2)
    assert leader.context.log.last == FIRST + 1
    answers = settled(leader, FIRST + 1)
    assert results(answers)[1] == Rejected(Reason.EXISTS, 1, FIRST)
    assert done(results(answers)) == ["i", Reason.EXISTS, "i"]


def test_a_write_checked_by_another_definition_is_rejected_with_the_one_there_is(
    leader: Stepper,
) -> None:
    define = put_of("forms", request="define", collection=DEFINITIONS)
    send(leader, define, A, A._replace(definition=FIRST))
    answers = settled(leader, FIRST + 1)
    assert done(results(answers)) == ["i", Reason.DEFINITION, "i"]
    assert results(answers)[1] == Rejected(Reason.DEFINITION, 0, FIRST)


def test_a_deletion_that_found_no_room_did_not_happen(leader: Stepper) -> None:
    found = Found((1,), None)
    delete = delete_of("a", request="d")
    leader.step(arriving(leader.context, delete, found=found))
    leader.step(AppendFailed(FIRST))
    assert leader.only(AnswerWrites).results == (Refusal.DISK_FULL,)
    leader.step(arriving(leader.context, A, token=2, found=found))
    effects = pass_time(leader, 0.3, answering=FOLLOWERS)
    assert results(every(effects, AnswerWrites)) == [Rejected(Reason.EXISTS, 0, 1)]


def test_a_retry_at_another_leader_is_told_what_was_done(leader: Stepper) -> None:
    """Rule 10: the record has been deleted since; the request id is what counts."""
    found = Found((0,), Earlier(1, A.fingerprint, "u"))
    leader.step(arriving(leader.context, A, found=found))
    context = leader.context
    assert leader.only(AnswerWrites).results == (
        Committed(1, context.epoch, context.log.digest_at(1), "u", again=True),
    )


# -- attempts (rule 10) -------------------------------------------------------------------------


def attempt(number: int, *, call: str = "c1") -> WriteRequest:
    """Of a call that updates a record which is not there."""
    update = put_of("a", request="u", condition=Wanted.PRESENT)
    return update._replace(attempt=number, call=call)


def told(leader: Stepper, write: WriteRequest) -> object:
    """What one write is told, and its reason if it is rejected."""
    send(leader, write)
    answers = leader.every(AnswerWrites) or settled(leader, leader.context.log.last)
    (result,) = done(results(answers))
    return result


def test_an_earlier_attempt_than_the_rejected_one_is_late(leader: Stepper) -> None:
    """Although it could be done by now: the client has been told that it was not."""
    assert told(leader, attempt(2)) is Reason.MISSING
    assert told(leader, A) == "i"
    stored = Found((FIRST,), None)
    for late in (1, 2):
        leader.step(arriving(leader.context, attempt(late), found=stored))
        assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER,)
    leader.step(arriving(leader.context, attempt(1, call="c2"), found=stored))
    assert done(results(settled(leader, FIRST + 1))) == ["u"]


def test_an_earlier_attempt_is_late_before_the_rejection_is_told(leader: Stepper) -> None:
    send(leader, attempt(2), token=1)
    assert not leader.every(AnswerWrites)
    send(leader, attempt(1), token=2)
    send(leader, A, token=3)
    answers = [*leader.every(AnswerWrites), *settled(leader, FIRST)]
    assert done(results(sorted(answers, key=lambda answer: answer.token))) == [Reason.MISSING, "i"]


def test_an_earlier_attempt_is_late_though_it_comes_in_the_same_request(leader: Stepper) -> None:
    send(leader, attempt(2), A, attempt(1))
    answers = done(results(settled(leader, FIRST)))
    assert answers == [Reason.MISSING, "i", Refusal.NOT_LEADER]


def test_a_rejection_that_nobody_was_told_of_leaves_nothing(leader: Stepper) -> None:
    send(leader, attempt(2))
    give_up_s = leader.context.settings.give_up_s
    assert done(results(every(pass_time(leader, give_up_s + 0.1), AnswerWrites))) == [
        Refusal.NOT_LEADER
    ]
    pass_time(leader, 1.0, answering=FOLLOWERS)
    assert told(leader, attempt(1)) is Reason.MISSING


def test_what_is_told_of_a_late_attempt_takes_nothing_back(leader: Stepper) -> None:
    """It shared its request with a write that waited in vain."""
    assert told(leader, attempt(3)) is Reason.MISSING
    send(leader, attempt(1), A, token=2)
    leader.step(AppendFailed(FIRST))
    assert leader.only(AnswerWrites).results == (Refusal.DISK_FULL, Refusal.DISK_FULL)
    leader.step(arriving(leader.context, attempt(2), found=Found((1,), None)))
    assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER,)


def test_rejected_attempts_are_not_remembered_for_ever(leader: Stepper) -> None:
    assert told(leader, attempt(2)) is Reason.MISSING
    leader.now += REMEMBERED_S
    pass_time(leader, 0.2, answering=FOLLOWERS)
    assert told(leader, attempt(1)) is Reason.MISSING


def test_a_deposed_leader_tells_no_rejection(leader: Stepper) -> None:
    send(leader, attempt(2), A)
    leader.step(MessageReceived(Reject(9, "n3")))
    assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER, Unresolved.UNKNOWN)
