"""Disks that are full, slow, failing, without power, damaged or wiped (catalogue 12, 30 to 37)."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.faults.coordinator import Coordination
from tests.support.faults.disks import fail_syncs, slow_syncs
from tests.support.logs import log_bytes
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180)
SERVED = {200, 404, 409}
ROLES = pytest.mark.parametrize("role", ["leader", "follower"])
_MIB = 1 << 20


async def one(cluster: FaultCluster, role: str) -> str:
    return await (cluster.leader() if role == "leader" else cluster.follower())


def disk_id(cluster: FaultCluster, name: str) -> str:
    found: str = json.loads((cluster.data_dir(name) / "replica.json").read_bytes())["disk_id"]
    return found


@ROLES
async def test_a_sync_fails(cluster: FaultCluster, role: str) -> None:
    """The process ends at once. Its disk is suspect: another id until it is repaired."""
    async with cluster.load() as load:
        victim = await one(cluster, role)
        before, pid = disk_id(cluster, victim), cluster.pid(victim)
        fail_syncs(cluster.fiu_control, pid)
        await cluster.ended(pid)
        await load.progress()
        await cluster.start(victim)
        await cluster.joined_isr(victim)
        assert disk_id(cluster, victim) != before


async def test_a_followers_disk_is_full(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        victim = await cluster.follower()
        cluster.disks[victim].fill()
        await cluster.left_isr(victim)
        await load.progress()
        cluster.disks[victim].free()
        await cluster.joined_isr(victim)
    assert not set(load.statuses) - SERVED


async def test_all_disks_are_full(cluster: FaultCluster) -> None:
    """Writes are refused with 507, reads go on, and room is all that it takes."""
    async with cluster.load() as load, cluster.client() as client:
        for disk in cluster.disks.values():
            disk.fill()
        await eventually(lambda: 507 in load.statuses, RECOVERY_S)
        kept = load.acknowledged[0]
        assert kept.value in (await client.fetch(kept.key)).decode()
        for disk in cluster.disks.values():
            disk.free()
        await load.progress()


async def test_the_leaders_disk_fills_up_between_two_looks(cluster: FaultCluster) -> None:
    """An append itself meets the end of the disk: no half line may stay."""
    async with cluster.load() as load:
        victim = await cluster.leader()
        disk = cluster.disks[victim]
        for _ in range(5):
            disk.fill()
            disk.free()
        disk.fill()
        await eventually(lambda: 507 in load.statuses or "disk full" in cluster.log(victim))
        disk.free()
        await load.progress()


@ROLES
async def test_a_disk_is_slow(cluster: FaultCluster, tmp_path: Path, role: str) -> None:
    """100 ms a sync: everything waits for it, and nothing piles up."""
    async with cluster.load() as load:
        pid = cluster.pid(await one(cluster, role))
        before = memory_bytes(pid)
        async with slow_syncs(pid, tmp_path / "strace", delay_ms=100):
            await load.progress(timeout_s=60)
            assert memory_bytes(pid) < before + 64 * _MIB
        await load.progress()


async def test_a_sync_hangs(cluster: FaultCluster, tmp_path: Path) -> None:
    """The leader's event loop waits for its disk: its watchdog kills it, and another leads.

    While it is traced it cannot die, like a process that hangs in the kernel.
    """
    async with cluster.load() as load:
        before = await cluster.view()
        pid = cluster.pid(before["leader"])
        async with slow_syncs(pid, tmp_path / "strace", delay_ms=60_000):
            wedged = "event loop wedged"
            await eventually(lambda: wedged in cluster.log(before["leader"]), RECOVERY_S)
            await cluster.replaced(before)
            await load.progress()
        await cluster.ended(pid)
        await cluster.start(before["leader"])


@ROLES
async def test_one_replica_loses_power(cluster: FaultCluster, role: str) -> None:
    async with cluster.load() as load:
        victim = await one(cluster, role)
        await lose_power(cluster, victim)
        await load.progress()
        cluster.disks[victim].power_on()
        await cluster.start(victim)
        await cluster.joined_isr(victim)


async def test_all_replicas_lose_power(cluster: FaultCluster) -> None:
    """At the same moment: nothing that was acknowledged may have been in memory only."""
    async with cluster.load() as load:
        await lose_power(cluster, *cluster.names)
        for disk in cluster.disks.values():
            disk.power_on()
        await asyncio.gather(*(cluster.start(name) for name in cluster.names))
        await load.progress()


async def lose_power(cluster: FaultCluster, *names: str) -> None:
    for name in names:
        cluster.disks[name].cut_power()
    pids = [pid for name in names if (pid := cluster.record.pid(name)) is not None]
    if pids:  # Some may have noticed by themselves.
        await cluster.kill(*(name for name in names if cluster.record.pid(name) is not None))


@pytest.mark.parametrize("where", ["first", "middle", "last"])
async def test_a_bit_flips_in_a_log(cluster: FaultCluster, where: str) -> None:
    """Found at the next start: what is damaged is put aside, and fetched from the others."""
    async with cluster.load() as load:
        victim = await cluster.follower()
        data_dir = cluster.data_dir(victim)
        await eventually(lambda: synced_bytes(data_dir) > 10_000)
        await cluster.kill(victim)
        before = disk_id(cluster, victim)
        disk = cluster.disks[victim]
        # Beyond the mark a damaged last line cannot be told from one that was never synced.
        lines = log_bytes(data_dir)[: synced_bytes(data_dir)].splitlines()
        number = {"first": 0, "middle": len(lines) // 2, "last": len(lines) - 1}[where]
        offset = sum(len(line) + 1 for line in lines[:number]) + len(lines[number]) // 2
        disk.flip_bit(disk.segments()[0], offset)
        await load.progress()
        await cluster.start(victim)
        await cluster.joined_isr(victim)
        assert disk_id(cluster, victim) != before
        assert list((data_dir / "quarantine").iterdir())


async def test_records_are_damaged_deleted_and_old(cluster: FaultCluster) -> None:
    """SQLite is rebuilt from the log, whatever became of it."""
    async with cluster.load() as load:
        old = {name: cluster.data_dir(name) / "records.sqlite" for name in cluster.names}
        await cluster.kill(*cluster.names)
        damaged, deleted, behind = old.values()
        with damaged.open("r+b") as file:
            file.seek(damaged.stat().st_size // 2)
            file.write(b"\xff" * 4096)
        for path in deleted.parent.glob("records.sqlite*"):
            path.unlink()
        saved = behind.with_name("saved")
        shutil.copyfile(behind, saved)
        await asyncio.gather(*(cluster.start(name) for name in cluster.names))
        await load.progress()
        await cluster.kill("n3")
        for path in behind.parent.glob("records.sqlite-*"):
            path.unlink()
        saved.replace(behind)
        await cluster.start("n3")
        await cluster.joined_isr("n3")
    await cluster.assert_equal_records()


async def test_a_disk_is_wiped_while_it_catches_up(cluster: FaultCluster) -> None:
    """What it had acknowledged before counts for nothing: each disk has an id of its own."""
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        victim = await cluster.follower()
        await cluster.kill(victim)
        await cluster.left_isr(victim)
        await load.progress(200)
        seen = [disk_id(cluster, victim)]
        for _ in range(2):
            wipe(cluster.data_dir(victim))
            await cluster.start(victim)
            await eventually((cluster.data_dir(victim) / "replica.json").exists)
            seen.append(disk_id(cluster, victim))
            await cluster.kill(victim)
        await cluster.start(victim)
        await cluster.joined_isr(victim)
        await load.progress()
        state = await asyncio.to_thread(coordination.state)
        assert dict(state["isr"])[victim] == seen[-1]
        assert len(set(seen)) == len(seen)


async def test_a_bit_flips_under_the_leader(cluster: FaultCluster) -> None:
    """It reads the damage for a wiped follower, ends this run, and is repaired from another one."""
    async with cluster.load() as load:
        before = await cluster.view()
        leader, victim = before["leader"], await cluster.follower()
        old = disk_id(cluster, leader)
        disk = cluster.disks[leader]
        disk.flip_bit(disk.segments()[0], 1_000)
        await cluster.kill(victim)
        wipe(cluster.data_dir(victim))
        await cluster.start(victim)
        await cluster.replaced(before)
        for name in (leader, victim):
            await cluster.joined_isr(name)
        await load.progress()
        assert disk_id(cluster, leader) != old


def synced_bytes(data_dir: Path) -> int:
    """Up to where the log's own mark says that it is on the disk."""
    return int((data_dir / "log" / "synced").read_text().split()[0])


def wipe(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    assert not list(directory.iterdir())


def memory_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
