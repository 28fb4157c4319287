"""A leader that commits nothing for too long makes way, if another might do better (rule 5)."""

from __future__ import annotations

from replicad.core.effects import AnswerWrites, Propose, Refusal, RoleChanged, Unresolved
from replicad.core.events import BrokerChanged, LogSynced, Outcome, Tick
from tests.support.core import (
    Stepper,
    arriving,
    context_of,
    disks,
    every,
    leading,
    only,
    pass_time,
    state_of,
)
from tests.support.entries import write_of

FOLLOWERS = disks("n2", "n3")


def with_pending(*keys: str) -> Stepper:
    """A leader that has appended these records, and whose disk has synced none of them."""
    leader = leading(context_of())
    for token, key in enumerate(keys or ("a",), 1):
        leader.step(arriving(leader.context, write_of(key), token=token))
    return leader


def stuck() -> Stepper:
    """A leader that has just made way; its proposal of that is in `effects`."""
    leader = with_pending()
    pass_time(leader, leader.context.settings.resign_after_s + 0.1, answering=FOLLOWERS)
    assert not leader.replica.leads
    return leader


def test_a_leader_whose_disk_hangs_makes_way() -> None:
    leader = with_pending()
    resign_after_s = leader.context.settings.resign_after_s
    pass_time(leader, resign_after_s - 0.1, answering=FOLLOWERS)
    assert leader.replica.leads
    effects = pass_time(leader, 0.2, answering=FOLLOWERS)
    assert only(effects, RoleChanged) == RoleChanged(leading=False)
    assert only(effects, AnswerWrites).results == (Unresolved.UNKNOWN,)
    assert leader.replica.status(leader.now).role == "follower"


def test_who_makes_way_says_that_nobody_leads_and_does_not_stand_for_a_while() -> None:
    leader = with_pending()
    effects = pass_time(leader, 4.2, answering=FOLLOWERS)
    way = only(effects, Propose)
    named = (way.state.epoch, way.state.leader, way.state.incarnation, way.state.url)
    assert named == (2, None, None, None)
    assert way.state.isr == disks("n1", "n2", "n3")
    leader.finish(way, Outcome.ACCEPTED)
    assert leader.context.epoch == 2
    hold_back_s = leader.context.settings.hold_back_s
    assert not every(pass_time(leader, hold_back_s - 0.5), Propose)
    assert {p.state.leader for p in every(pass_time(leader, 0.7), Propose)} == {"n1"}


def test_another_stands_at_once_when_nobody_leads() -> None:
    other = Stepper(context_of("n2", epoch=1))
    other.see(state_of(2, None), 8)
    other.step(Tick())
    proposal = other.only(Propose)
    assert (proposal.state.epoch, proposal.state.leader) == (3, "n2")
    assert proposal.state.isr == disks("n1", "n2", "n3")


def test_an_idle_leader_is_not_stuck() -> None:
    leader = leading(context_of())
    pass_time(leader, 10.0, answering=FOLLOWERS)
    assert leader.replica.leads


def test_a_leader_that_commits_slowly_is_not_stuck() -> None:
    leader = with_pending("a", "b")
    pass_time(leader, 3.0, answering=FOLLOWERS)
    leader.step(LogSynced(2))
    assert leader.context.commit == 2
    pass_time(leader, 3.9, answering=FOLLOWERS)
    assert leader.replica.leads
    pass_time(leader, 0.3, answering=FOLLOWERS)
    assert not leader.replica.leads


def test_a_broker_that_is_down_is_not_the_leaders_fault() -> None:
    """Rule 12; when it is back, the time counts anew."""
    leader = with_pending()
    leader.step(BrokerChanged(up=False))
    pass_time(leader, 10.0)
    assert leader.replica.leads
    leader.step(BrokerChanged(up=True))
    pass_time(leader, 3.9, answering=FOLLOWERS)
    assert leader.replica.leads


def test_while_a_proposal_is_in_doubt_nobody_could_be_elected_either() -> None:
    """ZooKeeper is away and n3 is silent: once n3 is back, this leader goes on."""
    leader = with_pending()
    leader.step(LogSynced(2))
    effects = pass_time(leader, 10.0, answering=FOLLOWERS[:1])
    assert only(effects, Propose).state.isr == disks("n1", "n2")
    assert leader.replica.leads
    assert leader.context.commit == 1


def test_without_enough_followers_another_leader_would_do_no_better() -> None:
    leader = with_pending()
    leader.step(LogSynced(2))
    pass_time(leader, 10.0)
    assert leader.replica.leads
    assert leader.replica.status(leader.now).refusal is Refusal.NOT_ENOUGH_REPLICAS


def test_who_is_stuck_refuses_from_then_on() -> None:
    leader = stuck()
    leader.step(arriving(leader.context, write_of("b"), token=9))
    assert leader.only(AnswerWrites).results == (Refusal.NOT_LEADER,)
