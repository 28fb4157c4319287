from __future__ import annotations

from dataclasses import replace

import pytest

from replicad.core.bootstrap import (
    Beginning,
    Recovery,
    missing_replicas,
    plan_adoption,
    plan_first_start,
    plan_recovery,
)
from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member, View
from replicad.errors import ConfigurationError, ForeignClusterError, NotInitialisedError

REPLICAS = ("n1", "n2", "n3")


def empty(node: str) -> Member:
    return Member(node, f"run-{node}", f"http://{node}", f"disk-{node}", 0, 0, "", 0, "")


def full(node: str, last_epoch: int, last_index: int, *, epoch: int = 0) -> Member:
    return replace(
        empty(node),
        last_epoch=last_epoch,
        last_index=last_index,
        last_digest=f"{last_epoch}:{last_index}",
        epoch=epoch or last_epoch,
        cluster_id="c1",
    )


EMPTY = tuple(map(empty, REPLICAS))


def first_start(members: tuple[Member, ...], replicas: tuple[str, ...] = REPLICAS) -> Beginning:
    return plan_first_start(replicas, 2, members, cluster_id="c1", nonce="x")


def adoption(*members: Member) -> Beginning:
    return plan_adoption(REPLICAS, 2, members, nonce="x")


def disk(node: str) -> Disk:
    return Disk(node, f"disk-{node}")


def test_missing_replicas() -> None:
    assert missing_replicas(REPLICAS, (empty("n2"), empty("other"))) == ("n1", "n3")


def test_a_first_start_puts_every_replica_in_sync() -> None:
    strangers = (*EMPTY, full("n9", 3, 9))
    assert first_start(strangers, ("n3", "n1", "n2")) == Beginning(
        ClusterConfig("c1", REPLICAS, 2),
        ClusterState(0, None, None, None, (disk("n1"), disk("n2"), disk("n3")), "x"),
    )


def test_no_first_start_without_every_replica() -> None:
    with pytest.raises(ConfigurationError, match="not registered: n3"):
        first_start(EMPTY[:2])


@pytest.mark.parametrize(
    "held", [full("n2", 1, 1), replace(empty("n2"), cluster_id="c0")], ids=["entries", "identity"]
)
def test_no_first_start_on_top_of_data(held: Member) -> None:
    with pytest.raises(NotInitialisedError, match=r"n2 hold data.*replicad cluster adopt"):
        first_start((EMPTY[0], held, EMPTY[2]))


def test_two_directories_under_one_name() -> None:
    with pytest.raises(ConfigurationError, match="registered twice"):
        first_start((*EMPTY, replace(empty("n1"), incarnation="late", disk_id="other")))


def test_a_run_that_superseded_another_of_the_same_disk_counts_once() -> None:
    plan = first_start((*EMPTY, replace(empty("n1"), incarnation="later")))
    assert len(plan.state.isr) == 3


@pytest.mark.parametrize("min_in_sync", [0, 4])
def test_min_in_sync_must_fit(min_in_sync: int) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 3"):
        plan_first_start(REPLICAS, min_in_sync, EMPTY, cluster_id="c1", nonce="x")


@pytest.mark.parametrize("replicas", [(), ("n1", "n1")])
def test_replicas_must_be_different_names(replicas: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="different names"):
        plan_first_start(replicas, 1, EMPTY, cluster_id="c1", nonce="x")


def test_adoption_takes_the_longest_logs_of_the_highest_epoch() -> None:
    # n1's log is longer, but ends in an epoch that a later leader's log replaced.
    plan = adoption(full("n1", 4, 90), full("n2", 5, 80, epoch=6), full("n3", 5, 80))
    assert plan == Beginning(
        ClusterConfig("c1", REPLICAS, 2),
        ClusterState(6, None, None, None, (disk("n2"), disk("n3")), "x"),
    )


def test_adoption_with_one_replica_ahead() -> None:
    plan = adoption(full("n1", 5, 81), full("n2", 5, 80), full("n3", 5, 80))
    assert plan.state.isr == (disk("n1"),)


def test_adoption_knows_an_empty_replica_as_one_that_holds_nothing() -> None:
    plan = adoption(full("n1", 5, 80), full("n2", 5, 80), empty("n3"))
    assert plan.state.isr == (disk("n1"), disk("n2"))


def test_no_adoption_when_acknowledged_records_may_be_on_lost_disks_only() -> None:
    # In sync were perhaps n2 and n3 alone; n1 may lack what they acknowledged.
    with pytest.raises(ConfigurationError, match="n2, n3 are empty"):
        adoption(full("n1", 5, 80), empty("n2"), empty("n3"))


def test_no_adoption_without_every_replica() -> None:
    with pytest.raises(ConfigurationError, match="not registered: n1"):
        adoption(full("n2", 5, 80), full("n3", 5, 80))


def test_no_adoption_of_two_clusters() -> None:
    with pytest.raises(ConfigurationError, match="several clusters"):
        adoption(full("n1", 5, 80), full("n2", 5, 80), replace(full("n3", 5, 80), cluster_id="c2"))


def test_no_adoption_of_nothing() -> None:
    with pytest.raises(ConfigurationError, match="cluster init"):
        adoption(*EMPTY)


def test_no_adoption_of_logs_that_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="different digests"):
        adoption(full("n1", 5, 80), replace(full("n2", 5, 80), last_digest="y"), full("n3", 5, 80))


@pytest.mark.parametrize("name", ["all", "", "N1", "a.b", "n1\n", "-n", "x" * 33])
def test_names_that_would_not_fit_a_routing_key_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="replica's name"):
        plan_first_start((name,), 1, (), cluster_id="c", nonce="n")


# -- recovery -----------------------------------------------------------------------------------


def lost(*members: Member, isr: tuple[Disk, ...] = (Disk("n1", "gone"),)) -> View:
    """All that were in sync are away."""
    state = ClusterState(5, "n1", "run-n1", "http://n1", isr, "before")
    return View(ClusterConfig("c1", REPLICAS, 2), state, 9, members)


def test_a_recovery_lets_one_lead_above_every_epoch() -> None:
    plan = plan_recovery(lost(full("n2", 4, 7, epoch=8), full("n3", 4, 6)), "n2", nonce="x")
    state = ClusterState(9, None, None, None, (disk("n2"),), "x")
    assert plan == Recovery(state, (Disk("n1", "gone"),), 7)


def test_the_state_s_epoch_counts_too() -> None:
    assert plan_recovery(lost(full("n2", 4, 7)), "n2", nonce="x").state.epoch == 6


def test_a_repaired_or_emptied_disk_may_be_chosen() -> None:
    assert plan_recovery(lost(full("n1", 5, 9)), "n1", nonce="x").state.isr == (disk("n1"),)
    assert plan_recovery(lost(empty("n3")), "n3", nonce="x").last_index == 0


@pytest.mark.parametrize(
    ("view", "lead", "why"),
    [
        (lost(full("n2", 4, 7), isr=(disk("n1"), disk("n2"))), "n2", "n2 is in sync and running"),
        (lost(full("n2", 4, 7), full("n3", 4, 8), isr=(disk("n3"),)), "n2", "n3 is in sync"),
        (lost(full("n2", 4, 7)), "n3", "n3 is not registered"),
        (lost(full("n9", 4, 7)), "n9", "n9 is not registered"),
        (lost(full("n2", 4, 7), full("n3", 4, 8)), "n2", "the log of n3 ends at epoch 4, index 8"),
        (lost(full("n2", 4, 7), full("n3", 5, 1)), "n2", "let n3 lead, or stop it first"),
    ],
)
def test_a_recovery_that_loses_more_than_it_must_is_refused(
    view: View, lead: str, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        plan_recovery(view, lead, nonce="x")


def test_a_recovery_with_equal_logs_takes_the_one_that_was_named() -> None:
    view = lost(full("n2", 4, 7), full("n3", 4, 7))
    for lead in ("n2", "n3"):
        assert plan_recovery(view, lead, nonce="x").state.isr == (disk(lead),)


def test_a_recovery_needs_a_cluster() -> None:
    with pytest.raises(NotInitialisedError):
        plan_recovery(View(None, None, -1, (full("n2", 4, 7),)), "n2", nonce="x")


def test_a_stranger_s_data_are_not_led_with() -> None:
    stranger = replace(full("n2", 4, 7), cluster_id="other")
    with pytest.raises(ForeignClusterError, match="other"):
        plan_recovery(lost(stranger), "n2", nonce="x")
