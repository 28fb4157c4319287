"""How old what a replica shows may be, by its own clock alone (rule 11)."""

from __future__ import annotations

from replicad.core.effects import Propose
from replicad.core.events import LogSynced, MessageReceived, Outcome, Tick
from tests.support.core import (
    Stepper,
    ack_from,
    append_of,
    context_of,
    disk,
    disks,
    leading,
    state_of,
)
from tests.support.entries import LogBuilder


def opened() -> LogBuilder:
    """A log in which the first epoch was opened."""
    builder = LogBuilder()
    builder.open_epoch(1)
    return builder


def following() -> Stepper:
    stepper = Stepper(context_of("n1", opened().index, epoch=1, commit=1))
    stepper.see(state_of(1, "n2"), 1)
    return stepper


def hear(stepper: Stepper, round_: int, *, acked: int, after: float = 0.0) -> None:
    """A heartbeat; the leader has got our ack of round `acked`."""
    end = stepper.context.log.last_point
    append = append_of(end, commit=end, round_=round_, acked={"n1": acked})
    stepper.step(MessageReceived(append), after=after)


def stale_s(stepper: Stepper) -> float | None:
    return stepper.replica.status(stepper.now).stale_s


def test_it_is_not_known_before_the_leader_has_heard_this_replica() -> None:
    stepper = following()
    hear(stepper, 1, acked=0)
    assert stale_s(stepper) is None


def test_a_message_is_no_older_than_the_ack_that_it_answers() -> None:
    stepper = following()
    hear(stepper, 1, acked=0)
    hear(stepper, 2, acked=1, after=0.25)
    assert stale_s(stepper) == 0.25
    hear(stepper, 3, acked=2, after=0.5)
    assert stale_s(stepper) == 0.5


def test_messages_that_waited_do_not_pass_for_fresh() -> None:
    """After a pause of this process, for instance, or of the broker."""
    stepper = following()
    hear(stepper, 1, acked=0)
    hear(stepper, 2, acked=1, after=9.0)
    hear(stepper, 3, acked=1)
    assert stale_s(stepper) == 9.0


def test_what_is_committed_and_not_yet_here_counts() -> None:
    stepper = following()
    hear(stepper, 1, acked=0)
    hear(stepper, 2, acked=1, after=0.25)
    longer = opened()
    previous = longer.index.last_point
    line = longer.inserts(1)
    append = append_of(previous, line, commit=longer.index.last_point, round_=3, acked={"n1": 2})
    stepper.step(MessageReceived(append), after=0.25)
    assert stale_s(stepper) == 0.5
    stepper.step(LogSynced(2))
    assert stale_s(stepper) == 0.25


def test_a_leader_whose_epoch_is_not_open_does_not_know_what_is_committed() -> None:
    stepper = following()
    hear(stepper, 1, acked=0)
    hear(stepper, 2, acked=1, after=0.25)
    assert stale_s(stepper) == 0.25
    end = stepper.context.log.last_point
    for round_ in (1, 2):
        append = append_of(
            end, epoch=2, leader="n3", commit=end, round_=round_, acked={"n1": round_ - 1}
        )
        stepper.step(MessageReceived(append), after=0.25)
    assert stale_s(stepper) == 0.75


def test_a_leader_is_as_stale_as_its_last_confirmation() -> None:
    stepper = leading(context_of("n1"))
    context = stepper.context
    stepper.step(Tick(), after=0.5)
    stepper.step(Tick(), after=0.25)
    for other in disks("n2", "n3"):
        ack = ack_from(context, other, context.log.last, round_=3)
        stepper.step(MessageReceived(ack))
    assert stale_s(stepper) == 0.0
    stepper.step(Tick(), after=0.25)
    stepper.step(MessageReceived(ack_from(context, disk("n2"), context.log.last, round_=4)))
    assert stale_s(stepper) == 0.25


def test_a_deposed_leader_remembers_its_last_confirmation() -> None:
    stepper = leading(context_of("n1"))
    stepper.step(Tick(), after=0.5)
    for other in disks("n2", "n3"):
        ack = ack_from(stepper.context, other, stepper.context.log.last, round_=2)
        stepper.step(MessageReceived(ack), after=0.25)
    stepper.step(Tick())
    end = stepper.context.log.last_point
    stepper.step(MessageReceived(append_of(end, epoch=9, last=99)), after=0.25)
    assert not stepper.replica.leads
    assert stale_s(stepper) == 0.75


def test_a_new_leader_knows_no_more_than_it_did_before() -> None:
    """Until its own epoch is confirmed: what others have committed it may not know yet."""
    stepper = following()
    hear(stepper, 1, acked=0)
    hear(stepper, 2, acked=1, after=0.25)
    stepper.see(state_of(1, "n2"), 2, ("n1", "n3"))
    stepper.step(Tick(), after=0.25)
    stepper.finish(stepper.only(Propose), Outcome.ACCEPTED)
    assert stepper.replica.leads
    assert stale_s(stepper) == 0.5
    stepper.step(LogSynced(stepper.context.log.last))
    assert stale_s(stepper) == 0.5
    stepper.step(Tick(), after=0.25)
    assert stale_s(stepper) == 0.75
    ack = ack_from(stepper.context, disk("n3"), stepper.context.log.last, round_=1)
    stepper.step(MessageReceived(ack))
    assert stale_s(stepper) == 0.25
