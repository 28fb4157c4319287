"""Who stands, when, and above which epoch (rules 4 and 5)."""

from __future__ import annotations

import orjson
import pytest

from replicad.core.cluster import Disk
from replicad.core.effects import AppendLines, PersistEpoch, Probe, Propose, ReadState
from replicad.core.entry import decode_entry
from replicad.core.events import (
    BrokerChanged,
    DiskChanged,
    Event,
    MessageReceived,
    Outcome,
    ProbeFinished,
    ReadFinished,
    Tick,
)
from replicad.core.messages import HandOver, Reject
from tests.support.core import Stepper, append_of, context_of, disk, disks, state_of, view_of
from tests.support.entries import LogBuilder


def candidate(epoch: int = 3, *, min_in_sync: int = 2) -> Stepper:
    return Stepper(context_of("n1", epoch=epoch, min_in_sync=min_in_sync))


def stand(stepper: Stepper) -> Propose:
    stepper.step(Tick())
    return stepper.only(Propose)


def test_a_dead_leader_is_replaced_and_dropped_in_one_step() -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1", "n3"])
    proposal = stand(stepper)
    assert proposal.expected_version == 8
    assert (proposal.state.epoch, proposal.state.leader) == (4, "n1")
    assert proposal.state.isr == disks("n1", "n3")


def test_a_registered_leader_is_left_alone_however_silent() -> None:
    """It may be paused: nothing proves its death."""
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8)
    stepper.step(Tick(), after=9)
    probe = stepper.only(Probe)
    assert probe.node == "n2"
    stepper.step(ProbeFinished("n2", probe.asked_at, gone=False))
    stepper.step(Tick(), after=9)
    assert not stepper.every(Propose)


def silent(stepper: Stepper) -> Probe:
    """A registered leader that was heard once and then no more, until it is looked for."""
    stepper.see(state_of(4, "n2"), 8)
    stepper.step(MessageReceived(append_of(LogBuilder().index.last_point, epoch=4)), after=1)
    stepper.step(Tick(), after=stepper.context.settings.silence_s / 2)
    assert not stepper.every(Probe)
    stepper.step(Tick(), after=stepper.context.settings.silence_s)
    return stepper.only(Probe)


def test_a_leader_whose_queue_nobody_reads_is_replaced_at_once() -> None:
    stepper = candidate()
    probe = silent(stepper)
    stepper.step(ProbeFinished("n2", probe.asked_at, gone=True), after=0.01)
    proposal = stepper.only(Propose)
    assert (proposal.state.epoch, proposal.state.leader) == (5, "n1")
    assert proposal.state.isr == disks("n1", "n3")
    stepper.finish(proposal, Outcome.ACCEPTED)
    opening = orjson.loads(decode_entry(stepper.only(AppendLines).lines[:-1]).value)
    assert opening["reason"] == "the leader's connection to the broker is gone"
    assert (opening["previous_leader"], opening["previous_epoch"]) == ("n2", 4)
    assert opening["leaderless_ms"] == round(1500 * stepper.context.settings.silence_s + 10)


def test_an_answer_proves_nothing_once_the_leader_was_heard_again() -> None:
    stepper = candidate()
    probe = silent(stepper)
    stepper.step(MessageReceived(append_of(LogBuilder().index.last_point, epoch=4)), after=0.001)
    stepper.step(ProbeFinished("n2", probe.asked_at, gone=True))
    stepper.step(Tick())
    assert not stepper.every(Propose)


def test_an_answer_proves_nothing_if_the_own_connection_was_down_meanwhile() -> None:
    """A broker that restarts takes everybody's queues away."""
    stepper = candidate()
    probe = silent(stepper)
    stepper.step(BrokerChanged(up=False))
    stepper.step(BrokerChanged(up=True))
    stepper.step(ProbeFinished("n2", probe.asked_at, gone=True))
    stepper.step(Tick())
    assert not stepper.every(Propose)


def test_who_holds_all_of_the_leaders_log_stands_when_it_is_asked_to() -> None:
    stepper = candidate()
    stepper.see(state_of(4, "n2"), 8)
    end = stepper.context.log.last_point
    stepper.step(MessageReceived(HandOver(4, "n2", end, leaving=False)))
    proposal = stepper.only(Propose)
    assert (proposal.state.epoch, proposal.state.leader) == (5, "n1")
    assert proposal.state.isr == disks("n1", "n2", "n3")


def test_a_leader_that_leaves_is_dropped_with_the_election() -> None:
    stepper = candidate()
    stepper.see(state_of(4, "n2"), 8)
    end = stepper.context.log.last_point
    stepper.step(MessageReceived(HandOver(4, "n2", end, leaving=True)))
    assert stepper.only(Propose).state.isr == disks("n1", "n3")


def test_who_lacks_an_entry_does_not_take_over() -> None:
    stepper = candidate()
    stepper.see(state_of(4, "n2"), 8)
    longer = LogBuilder()
    longer.open_epoch(1)
    stepper.step(MessageReceived(HandOver(4, "n2", longer.index.last_point, leaving=True)))
    stepper.step(Tick())
    assert not stepper.every(Propose)


def test_a_dead_leader_stays_in_the_isr_where_min_in_sync_needs_it() -> None:
    """Rule 3."""
    stepper = candidate(min_in_sync=3)
    stepper.see(state_of(3, "n2"), 8, ["n1", "n3"])
    assert stand(stepper).state.isr == disks("n1", "n2", "n3")


def test_a_leader_that_restarted_is_replaced_and_stays_in_sync() -> None:
    """Rule 4: a restarted process never resumes an epoch, but its disk is the same."""
    stepper = candidate()
    restarted = state_of(3, "n2")
    stepper.see(restarted, 8, ["n1", "n2", "n3"])
    assert not stepper.step(Tick())
    old = type(restarted)(3, "n2", "an earlier run", None, restarted.isr, "x")
    stepper.see(old, 9)
    assert stand(stepper).state.isr == restarted.isr


@pytest.mark.parametrize(
    "isr",
    [disks("n2", "n3"), (disk("n1", 2), *disks("n2", "n3")), ()],
    ids=["out", "wiped", "none"],
)
def test_only_a_disk_that_the_isr_names_stands(isr: tuple[Disk, ...]) -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2", isr), 8, ["n1"])
    assert not stepper.step(Tick())


@pytest.mark.parametrize("event", [BrokerChanged(up=False), DiskChanged(writable=False)])
def test_who_could_not_serve_does_not_stand(event: Event) -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    stepper.step(event)
    assert not stepper.step(Tick())


@pytest.mark.parametrize(("stored", "own", "told"), [(3, 3, 0), (3, 6, 0), (3, 3, 9)])
def test_the_new_epoch_is_above_every_known_one(stored: int, own: int, told: int) -> None:
    """Rule 4: above the stored one, its own persisted one, and any it was told of."""
    stepper = candidate(own)
    stepper.see(state_of(stored, "n2"), 8, ["n1"])
    stepper.step(MessageReceived(Reject(told, "n3")))
    assert stand(stepper).state.epoch == max(stored, own, told) + 1


def test_the_epoch_is_persisted_on_success_and_not_before() -> None:
    """Rule 4."""
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    proposal = stand(stepper)
    assert not stepper.every(PersistEpoch)
    stepper.finish(proposal, Outcome.ACCEPTED)
    assert stepper.effects[0] == PersistEpoch(4)
    assert stepper.replica.leads


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNKNOWN])
def test_after_a_failure_it_reads_waits_and_tries_again(outcome: Outcome) -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    stepper.finish(stand(stepper), outcome)
    assert stepper.every(ReadState)
    assert not stepper.step(Tick())
    assert stepper.step(Tick(), after=stepper.context.settings.proposal_retry_s)


def test_a_proposal_in_doubt_is_sent_once_more_as_it_was() -> None:
    """With a new nonce, its own success would be taken for somebody else's."""
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    proposal = stand(stepper)
    stepper.finish(proposal, Outcome.UNKNOWN)
    stepper.step(Tick(), after=stepper.context.settings.proposal_retry_s)
    assert stepper.only(Propose) == proposal


def test_another_state_takes_another_proposal() -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    first = stand(stepper)
    stepper.finish(first, Outcome.REFUSED)
    stepper.see(state_of(3, "n2", disks("n1", "n2")), 9, ["n1"])
    stepper.step(Tick(), after=stepper.context.settings.proposal_retry_s)
    second = stepper.only(Propose)
    assert second.expected_version == 9
    assert second.state.nonce != first.state.nonce


def test_a_late_success_below_the_persisted_epoch_is_ignored() -> None:
    """Rule 4."""
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    proposal = stand(stepper)
    stepper.step(MessageReceived(append_of(LogBuilder().index.last_point, epoch=5)))
    stepper.finish(proposal, Outcome.ACCEPTED)
    assert not stepper.replica.leads
    assert stepper.context.epoch == 5


def test_an_own_success_whose_reply_was_lost_is_recognised() -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    proposal = stand(stepper)
    stepper.finish(proposal, Outcome.UNKNOWN)
    stepper.step(ReadFinished(0, view_of(proposal.state, 9)))
    assert stepper.replica.leads
    assert stepper.context.epoch == 4


def test_the_state_of_an_earlier_run_is_not_taken_for_an_own_success() -> None:
    """Rule 4: it names this node, but another process."""
    stepper = candidate()
    stepper.see(state_of(7, "n1", nonce="not proposed by this run"), 8)
    assert not stepper.replica.leads
    assert stepper.context.epoch == 7
    assert stand(stepper).state.epoch == 8


def test_who_never_heard_the_old_leader_does_not_say_how_long_it_was_silent() -> None:
    stepper = candidate()
    stepper.see(state_of(3, "n2"), 8, ["n1"])
    stepper.finish(stand(stepper), Outcome.ACCEPTED)
    opening = orjson.loads(decode_entry(stepper.only(AppendLines).lines[:-1]).value)
    assert opening["reason"] == "the leader's registration is gone"
    assert opening["leaderless_ms"] is None
