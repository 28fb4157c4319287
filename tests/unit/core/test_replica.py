"""How a replica changes its role."""

from __future__ import annotations

from replicad.core.effects import (
    AnswerRead,
    AnswerWrites,
    Halt,
    PersistEpoch,
    Propose,
    Refusal,
    RoleChanged,
)
from replicad.core.events import MessageReceived, ReadArrived, Tick
from replicad.core.messages import Reject
from tests.support.core import Stepper, append_of, arriving, context_of, leading, state_of
from tests.support.entries import LogBuilder, write_of


def test_a_rejected_leader_resigns_and_usurps_above() -> None:
    """Rule 5: one that is told of a higher persisted epoch usurps itself above it."""
    leader = leading(context_of(), isr=state_of(0, None).isr)
    leader.step(MessageReceived(Reject(7, "n3")))
    assert leader.only(RoleChanged) == RoleChanged(leading=False)
    leader.step(Tick(), after=1)
    assert leader.only(Propose).state.epoch == 8


def test_a_late_rejection_does_not_depose() -> None:
    leader = leading(context_of())
    assert not leader.step(MessageReceived(Reject(1, "n3")))
    assert leader.replica.leads


def test_a_higher_epoch_in_a_message_or_state_deposes() -> None:
    """Rule 4."""
    leader = leading(context_of())
    leader.step(MessageReceived(append_of(LogBuilder().index.last_point, epoch=2)))
    assert leader.effects[0] == PersistEpoch(2)
    assert not leader.replica.leads
    leader = leading(context_of())
    leader.see(state_of(2, "n3"), 9)
    assert leader.effects[0] == PersistEpoch(2)
    assert not leader.replica.leads


def test_an_expired_session_alone_does_not_depose() -> None:
    """Rule 4."""
    leader = leading(context_of())
    leader.see(state_of(1, "n1"), 1, ["n2", "n3"])
    assert leader.replica.leads


def test_a_state_of_a_lower_version_is_ignored() -> None:
    """Coordination state: a lagging server shows the past."""
    stepper = Stepper(context_of(epoch=3))
    stepper.see(state_of(3, "n2"), 8)
    stepper.see(state_of(2, "n3"), 7, ["n1"])
    assert not stepper.step(Tick())  # n3 is dead in that view, and would be replaced.
    assert stepper.replica.status(0.0).isr == ("n1", "n2", "n3")


def test_who_does_not_lead_refuses() -> None:
    stepper = Stepper(context_of())
    stepper.step(arriving(stepper.context, write_of("a"), write_of("b"), token=4))
    assert stepper.only(AnswerWrites) == AnswerWrites(4, (Refusal.NOT_LEADER,) * 2, (), {})
    stepper.step(ReadArrived(5, 0))
    assert stepper.only(AnswerRead) == AnswerRead(5, confirmed=False)


def test_a_halted_replica_does_nothing_more() -> None:
    stepper = Stepper(context_of())
    stepper.context.halt("test")
    assert stepper.step(Tick())[-1] == Halt("test")
    assert not stepper.step(ReadArrived(5, 0))
    assert stepper.replica.status(0.0).role == "halted"


def test_a_status_tells_who_leads_and_what_is_refused() -> None:
    leader = leading(context_of())
    status = leader.replica.status(0.0)
    assert (status.role, status.leader, status.epoch, status.refusal) == ("leader", "n1", 1, None)
    assert {node: f.matched for node, f in status.followers.items()} == {"n2": 1, "n3": 1}
