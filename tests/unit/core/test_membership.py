from __future__ import annotations

from replicad.core.effects import Channel, Effect, Probe, Propose, Report
from replicad.core.events import (
    BrokerChanged,
    LogSynced,
    MessageReceived,
    Outcome,
    ProbeFinished,
)
from replicad.core.write import WriteRequest
from tests.support.core import (
    TICK_S,
    Stepper,
    ack_from,
    arriving,
    context_of,
    disk,
    disks,
    every,
    leading,
    only,
    pass_time,
)
from tests.support.entries import write_of

N2, N3 = disks("n2", "n3")
N3_WIPED = disk("n3", 2)


def sync_events(effects: list[Effect]) -> list[tuple[str, object]]:
    reports = [e for e in effects if isinstance(e, Report) and e.channel is Channel.SYNC]
    return [(report.event, report.fields["node"]) for report in reports]


def write(stepper: Stepper, request: WriteRequest) -> int:
    """Append one write at the leader and sync it; returns its index."""
    stepper.step(arriving(stepper.context, request))
    stepper.step(LogSynced(stepper.context.log.last))
    return stepper.context.log.last


def test_a_silent_follower_is_removed_and_counts_until_the_transaction_succeeded() -> None:
    """Rule 2, shrink."""
    leader = leading(context_of())
    index = write(leader, write_of("a"))
    proposal = only(pass_time(leader, 1.5, answering=[N2]), Propose)
    assert proposal.state.isr == disks("n1", "n2")
    assert leader.context.commit == index - 1
    leader.finish(proposal, Outcome.ACCEPTED)
    pass_time(leader, 0.1)
    assert leader.context.commit == index


def test_nobody_is_removed_when_too_few_would_remain() -> None:
    """Rule 3: not even the one of two dead members whose removal min_in_sync would allow."""
    leader = leading(context_of())
    assert not every(pass_time(leader, 3.0), Propose)


def test_a_proposal_in_doubt_does_not_block_commits_for_good_when_its_joiner_dies() -> None:
    """Rule 2: only a higher version resolves a doubt, so the leader must bring one about."""
    leader = leading(context_of(), isr=disks("n1", "n2"))
    admission = only(pass_time(leader, 0.3, answering=[N2, N3]), Propose)
    assert admission.state.isr == disks("n1", "n2", "n3")
    index = write(leader, write_of("a"))
    pass_time(leader, 2.0, answering=[N2])  # n3 has died, and ZooKeeper does not answer.
    leader.finish(admission, Outcome.UNKNOWN)
    settling = only(pass_time(leader, 0.5, answering=[N2]), Propose)
    assert settling.state.isr == disks("n1", "n2")
    assert leader.context.commit == index - 1
    leader.finish(settling, Outcome.ACCEPTED)
    pass_time(leader, 0.1)
    assert leader.context.commit == index


def test_a_silent_outsider_is_not_admitted() -> None:
    leader = leading(context_of(), isr=disks("n1", "n2"))
    assert not every(pass_time(leader, 3.0, answering=[N2]), Propose)


def test_an_outsider_below_the_commit_index_is_not_admitted() -> None:
    """Rule 2: not before its match has reached the commit index."""
    leader = leading(context_of(), isr=disks("n1", "n2"))
    index = write(leader, write_of("a"))
    leader.step(MessageReceived(ack_from(leader.context, N2, index)))
    assert leader.context.commit == index
    leader.step(MessageReceived(ack_from(leader.context, N3, index - 1)))
    assert not every(pass_time(leader, 0.2), Propose)


def test_a_wiped_member_is_admitted_in_place_once_it_matches() -> None:
    """Rule 2: also where min_in_sync forbids to remove its old disk first."""
    leader = leading(context_of(min_in_sync=3))
    proposal = only(pass_time(leader, 1.5, answering=[N2, N3_WIPED]), Propose)
    assert proposal.state.isr == (disk("n1"), N2, N3_WIPED)


def test_sync_log_tells_once_that_a_follower_is_missing_and_once_that_it_is_back() -> None:
    leader = leading(context_of())
    gone = sync_events(pass_time(leader, 3.0, answering=[N2]))
    assert gone.count(("follower missing", "n3")) == 1
    back = sync_events(pass_time(leader, 0.5, answering=[N2, N3]))
    assert back.count(("follower's digest matched", "n3")) == 1


def test_a_follower_whose_queue_nobody_reads_is_removed_at_once() -> None:
    """A killed one; a paused one keeps its queue and is removed when it lags."""
    leader = leading(context_of())
    probes = []
    for _ in range(4):
        probes += every(pass_time(leader, TICK_S, answering=[N2]), Probe)
    assert [probe.node for probe in probes[:1]] == ["n3"]
    leader.step(ProbeFinished("n3", probes[0].asked_at, gone=True))
    assert only(leader.effects, Propose).state.isr == disks("n1", "n2")


def test_a_probe_of_before_the_last_ack_proves_nothing() -> None:
    leader = leading(context_of())
    (probe, *_) = every(pass_time(leader, 0.3, answering=[N2]), Probe)
    leader.step(MessageReceived(ack_from(leader.context, N3, leader.context.log.last)))
    leader.step(ProbeFinished("n3", probe.asked_at, gone=True))
    assert not leader.every(Propose)


def test_a_broker_that_restarts_is_no_fault_of_a_follower() -> None:
    """Rule 12: it takes everybody's queues away."""
    leader = leading(context_of())
    (probe, *_) = every(pass_time(leader, 0.3, answering=[N2]), Probe)
    leader.step(BrokerChanged(up=False))
    leader.step(BrokerChanged(up=True))
    leader.step(ProbeFinished("n3", probe.asked_at, gone=True))
    assert not leader.every(Propose)
