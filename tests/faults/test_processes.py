"""Replicas that are killed, paused or bounced (catalogue 1 to 11)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from replicad.stack.record import CLUSTER
from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.faults.coordinator import Coordination
from tests.support.faults.disks import killed_at_sync
from tests.support.history import Insert
from tests.support.logs import log_bytes, log_lines
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


async def test_the_leader_is_killed(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        await cluster.kill(before["leader"])
        await cluster.replaced(before)
        await load.progress()
        await cluster.start(before["leader"])
    assert not set(load.statuses) - {200, 404, 409}


async def test_the_leader_is_told_to_end(cluster: FaultCluster) -> None:
    """SIGTERM hands over: nobody's request fails."""
    async with cluster.load() as load:
        before = await cluster.view()
        pid = cluster.pid(before["leader"])
        os.kill(pid, signal.SIGTERM)
        await cluster.ended(pid)
        await cluster.replaced(before)
        await load.progress()
        await cluster.start(before["leader"])
    assert not set(load.statuses) - {200, 404, 409}


async def test_the_lead_is_transferred(cluster: FaultCluster) -> None:
    """From each to the next, and nobody's request fails."""
    hosts = cluster.stack.description["zookeeper"]["hosts"]
    async with cluster.load() as load:
        for name in cluster.names:
            done = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "replicad.cli", "transfer", name),
                *("--cluster", CLUSTER, "--zookeeper", hosts),
            )
            assert await done.wait() == 0
            assert await cluster.leader() == name
            await load.progress()
    assert not set(load.statuses) - {200, 404, 409}


async def test_replicas_are_restarted_one_by_one(cluster: FaultCluster) -> None:
    """As for an update: nobody's request fails."""
    async with cluster.load() as load:
        for name in cluster.names:
            pid = cluster.pid(name)
            os.kill(pid, signal.SIGTERM)
            await cluster.ended(pid)
            await cluster.start(name)
            await cluster.joined_isr(name)
        await load.progress()
    assert not set(load.statuses) - {200, 404, 409}


async def test_the_leader_is_killed_between_append_and_sync(
    cluster: FaultCluster, tmp_path: Path
) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        victim = before["leader"]
        async with killed_at_sync(cluster.pid(victim), tmp_path / "strace"):
            await cluster.replaced(before)
        await load.progress()
        await cluster.start(victim)


async def test_the_leader_is_killed_between_commit_and_answer(cluster: FaultCluster) -> None:
    """Its answers are lost first, so that something is committed that nobody was told of."""
    async with cluster.load() as load:
        before = await cluster.view()
        victim = before["leader"]

        def untold() -> list[Insert]:
            logs = [log_bytes(cluster.data_dir(name)) for name in cluster.names]
            waiting = (i for i in load.inserts if i.index is None and i.refused is None)
            return [i for i in waiting if all(f'"{i.value}"'.encode() in log for log in logs)]

        async def killed_with_untold() -> list[Insert]:
            """Which inserts; none if all clients happened to wait for something else."""
            async with cluster.firewall.mute(victim, cluster.record.ports[victim]):
                with suppress(AssertionError):
                    await eventually(lambda: bool(untold()), 2.0)
                    await cluster.kill(victim)
                    return untold()
            await load.progress(1)
            return []

        while not (untold_then := await killed_with_untold()):
            assert (await cluster.view())["leader"] == victim
        await cluster.replaced(before)
        # The gateway asks the new leader, with the same request id.
        await eventually(lambda: all(insert.index is not None for insert in untold_then))
        await cluster.start(victim)


async def test_the_leader_is_paused_for_long(cluster: FaultCluster) -> None:
    """Beyond its session: it is replaced, and what it does when it wakes is of an old epoch."""
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        before = await cluster.view()
        session = coordination.session(before["leader"])
        async with cluster.paused(before["leader"]):
            await cluster.replaced(before)
            await eventually(lambda: coordination.session(before["leader"]) != session, RECOVERY_S)
            await load.progress()
        await cluster.joined_isr(before["leader"])
        await load.progress()
    assert (await cluster.view())["leader"] != before["leader"]


async def test_the_leader_is_paused_for_a_moment(cluster: FaultCluster) -> None:
    """Nobody takes over from a leader that only paused."""
    async with cluster.load() as load:
        before = await cluster.view()
        read = asyncio.get_running_loop().time
        async with cluster.paused(before["leader"]):
            began = read()
            await eventually(lambda: read() - began > 0.5)
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - {200, 404, 409}


async def test_a_follower_is_paused(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        victim = await cluster.follower()
        async with cluster.paused(victim):
            await cluster.left_isr(victim)
            await load.progress()
        await cluster.joined_isr(victim)
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - {200, 404, 409}


@pytest.mark.slow
async def test_the_leader_is_killed_five_times(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        epochs = [(await cluster.view())["epoch"]]
        for _ in range(5):
            before = await cluster.view()
            await cluster.kill(before["leader"])
            epochs.append((await cluster.replaced(before))["epoch"])
            await load.progress()
            await cluster.start(before["leader"])
            await cluster.joined_isr(before["leader"])
    assert epochs == sorted(set(epochs))


async def test_two_leaders_are_killed_at_once(cluster: FaultCluster) -> None:
    """The second as soon as it leads. What only they hold is cut when they come back."""
    async with cluster.load() as load:
        before = await cluster.view()
        await cluster.kill(before["leader"])
        second = (await cluster.replaced(before))["leader"]
        await cluster.kill(second)
        await cluster.start(before["leader"])
        await load.progress()
        await cluster.start(second)


async def test_everybody_is_killed(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        await cluster.kill(*cluster.names)
        await asyncio.gather(*(cluster.start(name) for name in cluster.names))
        await load.progress()


async def test_a_tail_that_nobody_else_holds_is_kept_aside(cluster: FaultCluster) -> None:
    """A leader that appended alone comes back to a cluster that went on without it."""
    before = await cluster.view()
    victim = before["leader"]
    data_dir = cluster.data_dir(victim)
    kept = data_dir / "lost+found"
    already = set(kept.glob("*.jsonl"))
    async with cluster.client() as client, asyncio.TaskGroup() as tasks:
        async with cluster.firewall.cut(victim, cluster.record.ports["amqp"]):
            # The only one that writes: under load, the leader may be full of entries that the
            # followers hold and whose acks were dropped, and append no more.
            last = len(log_lines(data_dir))
            stored = tasks.create_task(client.store(f"sola-{before['epoch']}"))
            await eventually(lambda: len(log_lines(data_dir)) > last)
            await cluster.kill(victim)
            # Only then: what a dead process has sent, the kernel goes on trying to deliver.
            await cluster.replaced(before)
        await stored
    async with cluster.load() as load:
        await load.progress()
        await cluster.start(victim)
        await cluster.joined_isr(victim)
        await eventually(lambda: set(kept.glob("*.jsonl")) > already)
