from __future__ import annotations

import pytest

from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member, View
from replicad.core.repair import Verdict, judge_repair
from replicad.errors import DamagedDiskError, ForeignClusterError

N1, N2, N3 = Disk("n1", "d1"), Disk("n2", "d2"), Disk("n3", "d3")


def view_of(isr: tuple[Disk, ...], *registered: Disk) -> View:
    members = tuple(
        Member(d.node, "i", "http://x", d.disk_id, 0, 0, "", 0, "c") for d in registered
    )
    config = ClusterConfig("c", ("n1", "n2", "n3"), 2)
    return View(config, ClusterState(3, "n2", "i", "http://x", isr, "n"), 7, members)


@pytest.mark.parametrize(
    ("view", "disk", "verdict"),
    [
        (view_of((N1, N2, N3), N2), N1, Verdict.REPAIR),
        (view_of((N1, N2), N2, N3), N1, Verdict.REPAIR),
        (view_of((N2, N3)), N1, Verdict.REPAIR),
        (view_of((Disk("n1", "other"),)), N1, Verdict.REPAIR),
        (view_of((N2, N3)), Disk("n1", ""), Verdict.REPAIR),
        (view_of((N1, N2), N2), Disk("n1", ""), Verdict.REPAIR),
        (view_of((N1, N2)), N1, Verdict.WAIT),
        (view_of((N1, N2), N3), N1, Verdict.WAIT),
        (view_of((N1, N2), Disk("n2", "new")), N1, Verdict.WAIT),
        (view_of((N1, N2), N3), Disk("n1", ""), Verdict.WAIT),
    ],
    ids=[
        "another in-sync replica is there",
        "one of two",
        "it is not in sync, nobody else is there",
        "its node is in sync with another disk",
        "unknown id, its node is not in sync",
        "unknown id, another is there",
        "the other one is away",
        "only one that is not in sync is there",
        "the other one has a new disk: it was damaged too",
        "unknown id, the other one is away",
    ],
)
def test_who_may_repair(view: View, disk: Disk, verdict: Verdict) -> None:
    assert judge_repair(view, disk, "c") is verdict
    assert judge_repair(view, disk, "") is verdict


@pytest.mark.parametrize("disk", [N1, Disk("n1", "")])
def test_the_only_in_sync_replica_changes_nothing(disk: Disk) -> None:
    with pytest.raises(DamagedDiskError, match="replicad disk quarantine"):
        judge_repair(view_of((N1,), N2, N3), disk, "c")


def test_without_a_state_nothing_is_changed() -> None:
    with pytest.raises(DamagedDiskError, match="cluster adopt"):
        judge_repair(View(None, None, -1, ()), N1, "c")


def test_a_disk_of_another_cluster_is_left_alone() -> None:
    with pytest.raises(ForeignClusterError):
        judge_repair(view_of((N2, N3), N2), N1, "another")
