"""Damage to the last copies that count (catalogue 36): nothing is given up without an operator."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.conftest import Clusters
from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.logs import log_bytes
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def bare(clusters: Clusters) -> None:
    """The shared cluster makes room for one of the test's own."""
    clusters.discard()


def flip_middle(cluster: FaultCluster, name: str) -> None:
    """Damage a replica's log, or undo that damage."""
    (segment,) = cluster.disks[name].segments()
    # Always the same byte, however far the log has grown.
    cluster.disks[name].flip_bit(segment, 1_000)


@pytest.mark.usefixtures("bare")
async def test_the_only_replica_in_sync_is_damaged(tmp_path: Path) -> None:
    """It stays offline and says what can be done; nobody who holds less takes its place."""
    with FaultCluster.running(tmp_path, "--min-in-sync", "1") as cluster:
        async with cluster.load() as load:
            alone = await cluster.leader()
            others = [name for name in cluster.names if name != alone]
            await cluster.kill(*others)
            for name in others:
                await cluster.left_isr(name)
            await load.progress()
            await cluster.kill(alone)
            flip_middle(cluster, alone)
            before = log_bytes(cluster.data_dir(alone))

            await cluster.attempt(alone)
            await eventually(lambda: cluster.record.pid(alone) is None)
            assert "no other replica is in sync" in cluster.log(alone).splitlines()[-1]
            await asyncio.gather(*(cluster.start(name) for name in others))
            await eventually(lambda: 503 in load.statuses, RECOVERY_S)
            assert (await cluster.view())["leader"] is None
            assert log_bytes(cluster.data_dir(alone)) == before

            flip_middle(cluster, alone)
            await cluster.start(alone)
            await load.progress()


@pytest.mark.usefixtures("bare")
async def test_all_replicas_are_damaged(tmp_path: Path) -> None:
    """At the same moment: each could be repaired from another one, if that one were well."""
    with FaultCluster.running(tmp_path) as cluster:
        async with cluster.load() as load:
            await cluster.kill(*cluster.names)
            before = {}
            for name in cluster.names:
                flip_middle(cluster, name)
                before[name] = log_bytes(cluster.data_dir(name))

            await asyncio.gather(*(cluster.attempt(name) for name in cluster.names))
            for name in cluster.names:
                await cluster.says(name, "disk repair waits")
                assert log_bytes(cluster.data_dir(name)) == before[name], name

            await cluster.kill("n1")
            flip_middle(cluster, "n1")
            await cluster.start("n1")
            await load.progress()
            for name in ("n2", "n3"):
                await cluster.joined_isr(name)
