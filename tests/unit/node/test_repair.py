"""Whole nodes with damaged disks: real files and HTTP, broker and coordinator in memory."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replicad.coordination.memory import MemoryCoordinator
from replicad.core.cluster import Disk
from replicad.errors import (
    CorruptLogError,
    DamagedDiskError,
    DiskSuspectError,
    ReplicaUnavailableError,
)
from replicad.node import repair
from replicad.node.store import Store
from replicad.storage.datadir import DataDirectory
from replicad.storage.quarantine import LogRepair
from replicad.storage.sealed import unseal
from tests.support.entries import write_of
from tests.support.logs import assert_chained, log_bytes, sync_log
from tests.support.nodes import Nodes
from tests.support.waiting import eventually

NAMES = ("n1", "n2", "n3")
SEGMENT = 2000


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "_PAUSE_S", 0.05)
    monkeypatch.setattr(repair, "_POLL_S", 0.02)
    for part in (Store, LogRepair):
        defaults = part.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, "segment_bytes", SEGMENT)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Three level replicas whose logs have several segments."""
    async with Nodes.open(tmp_path, *NAMES) as opened:
        await opened.start_cluster(min_in_sync=2)
        await fill(opened, 20)
        await opened.level()
        yield opened


@pytest.fixture
async def single(tmp_path: Path) -> AsyncIterator[Nodes]:
    """The same with one replica, the only one in sync."""
    async with Nodes.open(tmp_path, "n1") as opened:
        await opened.start_cluster(min_in_sync=1)
        await fill(opened, 20)
        yield opened


async def fill(nodes: Nodes, count: int) -> None:
    for number in range(count):
        await nodes.write(write_of(f"k{number:02}", b'{"x":1}'))


def segments(nodes: Nodes, name: str) -> list[Path]:
    found = sorted((nodes.data_dir(name) / "log").glob("*.jsonl"))
    assert len(found) > 3
    return found


def flip(path: Path, offset: int = 300) -> bytes:
    """Flip one bit of a file; returns what it holds now."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    return bytes(data)


def disk_of(nodes: Nodes, name: str) -> Disk:
    """The disk id on the disk of a replica that does not run."""
    directory = DataDirectory.open(nodes.data_dir(name), name)
    directory.close()
    return Disk(name, directory.disk_id)


def everything(nodes: Nodes, name: str) -> dict[str, bytes]:
    """All files but those that every start writes to."""
    root = nodes.data_dir(name)
    ordinary = ("sync.log", "lock")
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in ordinary
    }


def told(nodes: Nodes, name: str, event: str) -> list[dict[str, Any]]:
    return [line for line in sync_log(nodes.data_dir(name)) if line["event"] == event]


def isr_of(nodes: Nodes) -> tuple[Disk, ...]:
    assert nodes.coordinated.state is not None
    return nodes.coordinated.state.isr


async def stop_all(nodes: Nodes) -> None:
    """All are stopped; n1 and n2 are in sync."""
    for name in NAMES:
        await nodes.stop(name)
    coordinated = nodes.coordinated
    assert coordinated.config is not None
    assert coordinated.state is not None
    state = replace(coordinated.state, isr=(disk_of(nodes, "n1"), disk_of(nodes, "n2")))
    coordinated.keep(coordinated.config, state, coordinated.version + 1)


async def assert_mended(nodes: Nodes, name: str, old: Disk) -> None:
    """It is in sync again, under a new disk id, with the same log as the others."""
    await eventually(lambda: old not in isr_of(nodes))
    await nodes.level()
    assert sorted(disk.node for disk in isr_of(nodes)) == list(NAMES)
    assert len({log_bytes(nodes.data_dir(each)) for each in NAMES}) == 1
    assert_chained(nodes.data_dir(name))
    assert not (nodes.data_dir(name) / "suspect").exists()
    await nodes.write(write_of("afterwards"))


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_damaged_segment_is_repaired_from_a_peer(nodes: Nodes, which: str) -> None:
    leader = (await nodes.leader()).status().leader
    name = next(n for n in NAMES if (n == leader) is (which == "leader"))
    await nodes.stop(name)
    old, path = disk_of(nodes, name), segments(nodes, name)[1]
    damaged, following = flip(path), segments(nodes, name)[2]
    await nodes.start(name)
    await assert_mended(nodes, name, old)
    (kept,) = (nodes.data_dir(name) / "quarantine").glob("*/*")
    assert (kept.name, kept.read_bytes()) == (path.name, damaged)
    assert kept.parent.name.endswith(old.disk_id)
    (filled,) = told(nodes, name, "damaged log filled")
    assert int(path.stem) <= filled["index"] <= filled["last"] == int(following.stem) - 1
    assert not told(nodes, name, "damaged log cut")
    assert "digest" in told(nodes, name, "disk suspect")[0]["reason"]
    assert told(nodes, name, "disk repaired")[0]["old_disk_id"] == old.disk_id


async def test_damage_at_the_end_is_cut_and_caught_up(nodes: Nodes) -> None:
    await nodes.stop("n1")
    old, path = disk_of(nodes, "n1"), segments(nodes, "n1")[-1]
    damaged = flip(path)
    await nodes.start("n1")
    await assert_mended(nodes, "n1", old)
    assert [kept.read_bytes() for kept in nodes.data_dir("n1").glob("quarantine/*/*")] == [damaged]
    assert told(nodes, "n1", "damaged log cut")


async def test_what_no_peer_gives_is_cut_and_caught_up(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> None:
        raise ReplicaUnavailableError("it answered 503")

    await nodes.stop("n1")
    old, paths = disk_of(nodes, "n1"), segments(nodes, "n1")
    flip(paths[1])
    before = [path.read_bytes() for path in paths[1:]]
    monkeypatch.setattr(repair, "_fetch", unavailable)
    await nodes.start("n1")
    await assert_mended(nodes, "n1", old)
    kept = sorted(nodes.data_dir("n1").glob("quarantine/*/*"))
    assert [path.read_bytes() for path in kept] == before


async def test_a_lost_log_is_caught_up_under_a_new_disk_id(nodes: Nodes) -> None:
    await nodes.stop("n1")
    old = disk_of(nodes, "n1")
    for path in segments(nodes, "n1"):
        path.unlink()
    await nodes.start("n1")
    await assert_mended(nodes, "n1", old)


async def test_without_another_in_sync_replica_it_waits(nodes: Nodes) -> None:
    await stop_all(nodes)
    old = disk_of(nodes, "n1")
    flip(segments(nodes, "n1")[1])
    before = everything(nodes, "n1")
    node = nodes.running["n1"] = nodes.make("n1")
    starting = asyncio.create_task(node.start())
    await eventually(lambda: bool(told(nodes, "n1", "disk repair waits")))
    assert node.describe()["reason"] == "damaged-disk"
    assert not nodes.coordinated.members
    assert everything(nodes, "n1") == before
    await nodes.start("n2")
    await starting
    await nodes.start("n3")
    await assert_mended(nodes, "n1", old)


async def test_a_registration_that_outlived_its_process_is_no_other_replica(nodes: Nodes) -> None:
    """All ended together, and the session of one has not expired yet."""
    (other,) = (member for member in nodes.coordinated.members if member.node == "n2")
    await stop_all(nodes)
    old = disk_of(nodes, "n1")
    flip(segments(nodes, "n1")[1])
    before = everything(nodes, "n1")
    dead = MemoryCoordinator(nodes.coordinated)
    await dead.start(lambda _: None)
    await dead.register(lambda: other)
    node = nodes.running["n1"] = nodes.make("n1")
    starting = asyncio.create_task(node.start())
    await eventually(lambda: bool(told(nodes, "n1", "disk repair waits")))
    assert told(nodes, "n1", "disk repair waits")[0]["reason"].endswith("answers")
    assert everything(nodes, "n1") == before
    await dead.stop()
    await nodes.start("n2")
    await starting
    await nodes.start("n3")
    await assert_mended(nodes, "n1", old)


async def test_one_that_waits_can_be_told_to_end(nodes: Nodes) -> None:
    await stop_all(nodes)
    flip(segments(nodes, "n1")[1])
    before = everything(nodes, "n1")
    node = nodes.make("n1")
    starting = asyncio.create_task(node.start())
    await eventually(lambda: bool(told(nodes, "n1", "disk repair waits")))
    node.ended.set()
    await starting
    assert not nodes.coordinated.members
    await node.stop()
    assert everything(nodes, "n1") == before


async def test_the_only_in_sync_replica_stays_offline(single: Nodes) -> None:
    await single.stop("n1")
    old = disk_of(single, "n1")
    flip(segments(single, "n1")[1])
    before = everything(single, "n1")
    with pytest.raises(DamagedDiskError, match="replicad disk quarantine"):
        await single.make("n1").start()
    assert everything(single, "n1") == before
    assert disk_of(single, "n1") == old  # It can be opened: nobody holds the directory.
    assert not single.coordinated.members


async def test_without_a_state_it_stays_offline(single: Nodes) -> None:
    await single.stop("n1")
    flip(segments(single, "n1")[1])
    before = everything(single, "n1")
    single.coordinated.config = single.coordinated.state = None
    with pytest.raises(DamagedDiskError, match="cluster adopt"):
        await single.make("n1").start()
    assert everything(single, "n1") == before


async def test_after_a_failed_sync_only_what_was_marked_is_kept(nodes: Nodes) -> None:
    node = nodes.running["n1"]
    assert node.driver is not None
    await eventually(lambda: (nodes.data_dir("n1") / "log" / "synced").stat().st_size > 0)
    node.driver.fail(DiskSuspectError("cannot sync: EIO"))
    await nodes.stop("n1")
    assert (nodes.data_dir("n1") / "suspect").exists()
    old = disk_of(nodes, "n1")
    await nodes.start("n1")
    await assert_mended(nodes, "n1", old)
    assert "EIO" in told(nodes, "n1", "disk suspect")[0]["reason"]


async def test_a_process_that_crashes_leaves_no_mark(nodes: Nodes) -> None:
    node = nodes.running["n1"]
    assert node.driver is not None
    node.driver.fail(DiskSuspectError("cannot sync: EIO"))
    await nodes.crash("n1")
    assert not (nodes.data_dir("n1") / "suspect").exists()


async def test_a_torn_identity_gets_a_new_disk_id_and_keeps_the_log(nodes: Nodes) -> None:
    await nodes.stop("n1")
    old = disk_of(nodes, "n1")
    before = log_bytes(nodes.data_dir("n1"))
    (nodes.data_dir("n1") / "replica.json").write_bytes(b'{"format":1,"no')
    await nodes.start("n1")
    assert log_bytes(nodes.data_dir("n1")).startswith(before)
    await assert_mended(nodes, "n1", old)
    assert not list(nodes.data_dir("n1").glob("quarantine/*/*"))


async def test_a_torn_identity_beside_a_strange_log_changes_nothing(
    nodes: Nodes,
) -> None:
    await nodes.stop("n1")
    first = segments(nodes, "n1")[0]
    flip(first, 20)
    (nodes.data_dir("n1") / "replica.json").unlink()
    before = everything(nodes, "n1")
    with pytest.raises(DamagedDiskError, match="it may be another's"):
        await nodes.make("n1").start()
    assert everything(nodes, "n1") == before


async def test_a_lost_epoch_is_learnt_before_anything_is_acked(nodes: Nodes) -> None:
    await nodes.stop("n1")
    old = disk_of(nodes, "n1")
    (nodes.data_dir("n1") / "epoch").write_bytes(b"\0\0\0")
    await nodes.start("n1")
    assert nodes.coordinated.state is not None
    epoch = unseal((nodes.data_dir("n1") / "epoch").read_bytes())
    assert int(epoch or 0) >= nodes.coordinated.state.epoch
    await assert_mended(nodes, "n1", old)


async def test_damage_found_while_running_is_repaired_at_the_next_start(nodes: Nodes) -> None:
    node = nodes.running["n1"]
    assert node.driver is not None
    flip(segments(nodes, "n1")[1])
    node.driver.fail(CorruptLogError("found by a reader"))
    await nodes.stop("n1")
    old = disk_of(nodes, "n1")
    await nodes.start("n1")
    await assert_mended(nodes, "n1", old)
    assert told(nodes, "n1", "disk suspect")[0]["reason"] == "found by a reader"


async def test_a_log_that_reads_well_again_is_trusted_again(single: Nodes) -> None:
    node = single.running["n1"]
    assert node.driver is not None
    node.driver.fail(CorruptLogError("found by a reader"))
    await single.stop("n1")
    assert (single.data_dir("n1") / "suspect").exists()
    old = disk_of(single, "n1")
    await single.start("n1")
    await single.write(write_of("afterwards"))
    assert not (single.data_dir("n1") / "suspect").exists()
    assert isr_of(single) == (old,)


# -- found while running ------------------------------------------------------------------------


async def damage_early_entry(nodes: Nodes, name: str) -> None:
    """The bytes of an early entry change on the disk of a running replica."""
    flip(segments(nodes, name)[0], 1500)


async def test_a_leader_that_reads_damage_for_a_follower_ends_this_run(nodes: Nodes) -> None:
    leader = (await nodes.leader()).status().leader
    assert leader is not None
    other = next(name for name in NAMES if name != leader)
    await nodes.stop(other)
    shutil.rmtree(nodes.data_dir(other))
    await damage_early_entry(nodes, leader)
    node = nodes.running[leader]
    await nodes.start(other)
    await asyncio.wait_for(node.ended.wait(), 10)
    assert isinstance(node.failed, CorruptLogError)
    await nodes.stop(leader)
    old = disk_of(nodes, leader)
    await nodes.start(leader)
    await assert_mended(nodes, leader, old)


# -- what a peer gives --------------------------------------------------------------------------


async def ask(url: str, **query: object) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/internal/log", params={k: str(v) for k, v in query.items()}) as answer,
    ):
        return answer.status, await answer.read()


async def test_a_peer_gives_committed_entries_to_the_byte(single: Nodes) -> None:
    lines = log_bytes(single.data_dir("n1")).splitlines(keepends=True)
    url = single.url("n1")
    assert await ask(url, first=1, last=len(lines)) == (200, b"".join(lines))
    assert await ask(url, first=5, last=9) == (200, b"".join(lines[4:9]))
    assert await ask(url, first=7, last=7) == (200, lines[6])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 400),
        ({"first": 1}, 400),
        ({"first": "x", "last": 2}, 400),
        ({"first": 0, "last": 2}, 404),
        ({"first": 3, "last": 2}, 404),
        ({"first": 1, "last": 10_000}, 404),
    ],
)
async def test_a_peer_refuses_what_it_does_not_have(
    single: Nodes, query: dict[str, object], status: int
) -> None:
    assert (await ask(single.url("n1"), **query))[0] == status


async def test_a_peer_that_is_damaged_there_ends_this_run(single: Nodes) -> None:
    await damage_early_entry(single, "n1")
    node = single.running["n1"]
    with pytest.raises(aiohttp.ClientError):
        await ask(single.url("n1"), first=1, last=20)
    assert isinstance(node.failed, CorruptLogError)


async def test_a_peer_that_knows_no_cluster_has_nothing(tmp_path: Path) -> None:
    async with Nodes.open(tmp_path, "n1") as nodes:
        await nodes.start("n1")
        assert (await ask(nodes.url("n1"), first=1, last=1))[0] == 503
