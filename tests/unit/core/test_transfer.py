"""A leader that hands over: on request, and when it stops (rule 5)."""

from __future__ import annotations

import pytest

from replicad.core.effects import AnswerTransfer, AnswerWrites, Refusal, Send
from replicad.core.events import MessageReceived, Tick, TransferAsked
from replicad.core.messages import HandOver, Reject
from tests.support.core import (
    Stepper,
    ack_from,
    append_of,
    arriving,
    context_of,
    disk,
    disks,
    every,
    leading,
)
from tests.support.entries import write_of


def invitations(stepper: Stepper) -> list[Send]:
    return [send for send in stepper.every(Send) if isinstance(send.message, HandOver)]


def leader() -> Stepper:
    return leading(context_of("n1"))


def test_the_one_who_is_wanted_is_invited() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n3"))
    (invitation,) = invitations(stepper)
    end = stepper.context.log.last_point
    assert invitation == Send("n3", HandOver(1, "n1", end, leaving=False))


def test_new_writes_are_for_the_successor() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, None))
    stepper.step(arriving(stepper.context, write_of("a")))
    assert stepper.only(AnswerWrites).results == (Refusal.NOT_LEADER,)


def test_what_was_taken_is_committed_first() -> None:
    """Otherwise the successor would not know what its clients were told."""
    stepper = leader()
    stepper.step(arriving(stepper.context, write_of("a")))
    stepper.step(TransferAsked(7, "n2"))
    assert not invitations(stepper)
    context = stepper.context
    context.note_synced(context.log.last)
    for other in disks("n2", "n3"):
        stepper.step(MessageReceived(ack_from(context, other, context.log.last)))
    assert [send.to for send in invitations(stepper)] == ["n2"]
    assert every(stepper.effects, AnswerWrites)


def test_it_is_done_when_the_successor_leads() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point, epoch=2, leader="n2")))
    assert stepper.only(AnswerTransfer) == AnswerTransfer(7, "n2", "")
    assert not stepper.replica.leads


def test_who_took_over_may_be_told_later_than_that_somebody_did() -> None:
    """The successor rejects a message of the old epoch before it publishes its own."""
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(MessageReceived(Reject(2, "n2")))
    assert not stepper.replica.leads
    assert not stepper.every(AnswerTransfer)
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point, epoch=2, leader="n2")))
    assert stepper.only(AnswerTransfer) == AnswerTransfer(7, "n2", "")


def test_who_took_over_may_stay_unknown() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(MessageReceived(Reject(2, "n2")))
    stepper.step(Tick(), after=stepper.context.settings.hand_over_s)
    assert stepper.only(AnswerTransfer).reason == "this replica leads no more"


def test_another_one_may_be_quicker() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point, epoch=2, leader="n3")))
    assert stepper.only(AnswerTransfer) == AnswerTransfer(7, None, "n3 leads now")


def test_without_a_successor_it_leads_on() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(Tick(), after=stepper.context.settings.hand_over_s)
    answer = stepper.only(AnswerTransfer)
    assert (answer.leader, answer.reason) == (None, "no follower took over in time")
    assert stepper.replica.status(stepper.now).refusal is None


def test_an_invitation_that_was_lost_is_sent_again() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, None))
    (first,) = invitations(stepper)
    stepper.step(Tick(), after=stepper.context.settings.hand_over_retry_s)
    (second,) = invitations(stepper)
    assert first.to != second.to  # The first may be unable to.


@pytest.mark.parametrize(
    ("to", "reason"),
    [("n9", "n9 is not in sync"), ("n3", "n3 is not in sync")],
)
def test_who_is_not_in_sync_cannot_take_over(to: str, reason: str) -> None:
    stepper = leading(context_of("n1"), isr=disks("n1", "n2"))
    stepper.step(TransferAsked(7, to))
    assert stepper.only(AnswerTransfer) == AnswerTransfer(7, None, reason)
    assert stepper.replica.status(stepper.now).refusal is None


def test_only_one_transfer_at_a_time() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n2"))
    stepper.step(TransferAsked(8, "n3"))
    answer = stepper.only(AnswerTransfer)
    assert answer == AnswerTransfer(8, None, "another transfer is under way")


def test_alone_in_sync_it_has_nobody_to_hand_over_to() -> None:
    stepper = leading(context_of("n1", min_in_sync=1), isr=(disk("n1"),))
    stepper.step(TransferAsked(7, None))
    assert stepper.only(AnswerTransfer).reason == "no other replica is in sync"


def test_to_itself_there_is_nothing_to_do() -> None:
    stepper = leader()
    stepper.step(TransferAsked(7, "n1"))
    assert stepper.only(AnswerTransfer) == AnswerTransfer(7, "n1", "")


def test_a_follower_says_that_it_does_not_lead() -> None:
    stepper = Stepper(context_of("n1"))
    stepper.step(TransferAsked(7, "n2"))
    assert stepper.only(AnswerTransfer).reason == "this replica does not lead"
