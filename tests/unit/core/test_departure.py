"""A replica that stops politely: nobody waits for it afterwards (rules 2 and 5)."""

from __future__ import annotations

from replicad.core.effects import AnswerWrites, Left, Propose, Send
from replicad.core.events import MessageReceived, Outcome, StopAsked, Tick
from replicad.core.messages import Ack, HandOver, Leave, Reject
from tests.support.core import (
    Stepper,
    ack_from,
    append_of,
    arriving,
    context_of,
    disk,
    disks,
    leading,
    state_of,
)
from tests.support.entries import write_of


def following(*isr: str, min_in_sync: int = 2) -> Stepper:
    """n1 follows n2 in epoch 1, in sync with it."""
    stepper = Stepper(context_of("n1", min_in_sync=min_in_sync))
    stepper.see(state_of(1, "n2", disks(*isr)), 1)
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point)))
    assert isinstance(stepper.only(Send).message, Ack)
    return stepper


def test_a_follower_asks_not_to_be_waited_for_and_acks_until_then() -> None:
    stepper = following("n1", "n2", "n3")
    stepper.step(StopAsked())
    me = disk("n1")
    assert stepper.only(Send) == Send("n2", Leave(1, me.node, me.disk_id))
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point, round_=2)))
    assert isinstance(stepper.only(Send).message, Ack)
    stepper.see(state_of(1, "n2", disks("n2", "n3")), 2)
    assert stepper.every(Left)


def test_after_it_has_left_it_does_not_ack() -> None:
    """Else the leader would admit it again, and wait for it."""
    stepper = following("n1", "n2", "n3")
    stepper.step(StopAsked())
    stepper.see(state_of(1, "n2", disks("n2", "n3")), 2)
    stepper.step(MessageReceived(append_of(stepper.context.log.last_point, round_=2)))
    assert not stepper.every(Send)


def test_where_min_in_sync_needs_it_a_follower_does_not_wait() -> None:
    stepper = following("n1", "n2")
    stepper.step(StopAsked())
    assert stepper.every(Left)


def test_a_follower_does_not_wait_for_ever() -> None:
    stepper = following("n1", "n2", "n3")
    stepper.step(StopAsked())
    stepper.step(Tick(), after=stepper.context.settings.hand_over_s)
    assert stepper.every(Left)


def test_who_stops_does_not_stand_for_election() -> None:
    stepper = following("n1", "n2", "n3")
    stepper.step(StopAsked())
    stepper.see(state_of(1, "n2"), 2, ["n1", "n3"])
    stepper.step(Tick())
    assert not stepper.every(Propose)


def test_a_leader_hands_over_and_is_done_when_deposed() -> None:
    stepper = leading(context_of("n1"))
    stepper.step(StopAsked())
    invitation = stepper.only(Send).message
    assert isinstance(invitation, HandOver)
    assert invitation.leaving
    stepper.see(state_of(2, "n2", disks("n2", "n3")), 2)
    assert stepper.every(Left)


def test_a_leader_that_its_successor_has_deposed_does_not_ask_to_be_replaced() -> None:
    """What it has seen of ZooKeeper still names itself."""
    stepper = leading(context_of("n1"))
    stepper.step(StopAsked())
    stepper.step(MessageReceived(Reject(2, "n2")))
    stepper.step(Tick())
    assert not stepper.every(Propose)


def test_a_leader_without_anybody_to_take_over_is_done_at_once() -> None:
    stepper = leading(context_of("n1", min_in_sync=1), isr=(disk("n1"),))
    stepper.step(StopAsked())
    assert stepper.every(Left)


def test_a_leader_commits_without_a_follower_that_leaves() -> None:
    """At once, not after it has lagged for a while; until then its acks are needed."""
    stepper = leading(context_of("n1"))
    context = stepper.context
    n3 = disk("n3")
    stepper.step(MessageReceived(Leave(1, n3.node, n3.disk_id)))
    proposal = stepper.only(Propose)
    assert proposal.state.isr == disks("n1", "n2")
    stepper.step(arriving(context, write_of("a")))
    context.note_synced(context.log.last)
    stepper.step(MessageReceived(ack_from(context, disk("n2"), context.log.last)))
    assert not stepper.every(AnswerWrites)
    stepper.finish(proposal, Outcome.ACCEPTED)
    assert stepper.every(AnswerWrites)


def test_a_follower_that_left_is_not_admitted_again_at_once() -> None:
    stepper = leading(context_of("n1"))
    n3 = disk("n3")
    stepper.step(MessageReceived(Leave(1, n3.node, n3.disk_id)))
    stepper.finish(stepper.only(Propose), Outcome.ACCEPTED)
    late = ack_from(stepper.context, n3, stepper.context.log.last, round_=1)
    stepper.step(MessageReceived(late))
    stepper.step(Tick(), after=0.05)
    assert not stepper.every(Propose)
