"""What an operator decides after the only in-sync disk was damaged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from replicad.cli.recovery import recover_cluster
from replicad.coordination.memory import MemoryCoordinator
from replicad.core.bootstrap import Recovery
from replicad.core.cluster import Disk, View
from replicad.errors import ConfigurationError, DamagedDiskError, DataDirectoryBusyError
from replicad.node.offline import Survey, give_up_damage
from replicad.storage.datadir import DataDirectory, Trouble
from tests.support.entries import write_of
from tests.support.logs import assert_chained, inserted_keys, log_bytes, sync_log
from tests.support.nodes import Nodes
from tests.support.waiting import eventually

KEYS = ["a", "b", "c"]


class RefusedError(Exception):
    pass


def refuse(_: object) -> None:
    raise RefusedError


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[Nodes]:
    """n1, the only replica in sync, holds a, b and c, and b is damaged; n2 runs, with a alone."""
    async with Nodes.open(tmp_path, "n1", "n2") as nodes:
        await nodes.start_cluster(min_in_sync=1)
        await nodes.write(write_of("a", collection="formularios"))
        await nodes.level()
        await nodes.stop("n2")
        await nodes.write(
            write_of("b", collection="formularios"), write_of("c", collection="formularios")
        )
        await nodes.stop("n1")
        coordinated = nodes.coordinated
        assert coordinated.config is not None
        assert coordinated.state is not None
        alone = replace(coordinated.state, isr=(disk_of(nodes, "n1"),))
        coordinated.keep(coordinated.config, alone, coordinated.version + 1)
        (segment,) = (nodes.data_dir("n1") / "log").glob("*.jsonl")
        segment.write_bytes(segment.read_bytes().replace(b'"key":"b"', b'"key":"x"'))
        await nodes.start("n2")
        with pytest.raises(DamagedDiskError):
            await nodes.make("n1").start()
        yield nodes


def disk_of(nodes: Nodes, name: str) -> Disk:
    directory = DataDirectory.open(nodes.data_dir(name), name)
    directory.close()
    return Disk(name, directory.disk_id)


async def view_of(nodes: Nodes) -> View:
    """The view with present positions, as the command gets it."""
    await eventually(lambda: all(node.driver is not None for node in nodes.running.values()))
    view = nodes.coordinated.view()
    members = []
    for member in view.members:
        status = nodes.running[member.node].describe()
        present = {"last_index": status["last_index"], "last_epoch": status["last_epoch"]}
        members.append(replace(member, **present))  # type: ignore[arg-type]
    return replace(view, members=tuple(members))


async def recover(nodes: Nodes, lead: str) -> Recovery:
    coordinator = MemoryCoordinator(nodes.coordinated)
    await coordinator.start(lambda _: None)
    plans: list[Recovery] = []
    try:
        await recover_cluster(coordinator, await view_of(nodes), lead, plans.append)
    finally:
        await coordinator.stop()
    return plans[0]


async def test_what_is_good_stays_and_the_rest_is_set_aside(damaged: Nodes) -> None:
    path, old = damaged.data_dir("n1"), disk_of(damaged, "n1")
    before = log_bytes(path)
    surveys: list[Survey] = []
    disk_id = give_up_damage(path, "n1", None, surveys.append)
    (survey,) = surveys
    assert survey.disk_id == old.disk_id
    assert disk_id == disk_of(damaged, "n1").disk_id != old.disk_id
    assert inserted_keys(path) == ["a"]
    assert survey.last_good == len(log_bytes(path).splitlines())
    (kept,) = survey.quarantine.iterdir()
    assert kept.read_bytes() == before
    (line,) = [line for line in sync_log(path) if line["event"].startswith("disk given up")]
    assert (line["disk_id"], line["old_disk_id"]) == (disk_id, old.disk_id)


async def test_without_consent_nothing_is_changed(damaged: Nodes) -> None:
    path = damaged.data_dir("n1")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(RefusedError):
        give_up_damage(path, "n1", None, refuse)
    after = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    # Looking into the record store may tidy up SQLite's own files.
    assert {f: c for f, c in after.items() if "sqlite" not in f.name} == {
        f: c for f, c in before.items() if "sqlite" not in f.name
    }


async def test_a_running_replica_is_left_alone(damaged: Nodes) -> None:
    with pytest.raises(DataDirectoryBusyError):
        give_up_damage(damaged.data_dir("n2"), "n2", None, refuse)


async def test_a_sound_disk_is_not_given_up(damaged: Nodes) -> None:
    await damaged.stop("n2")
    with pytest.raises(ConfigurationError, match="nothing is wrong"):
        give_up_damage(damaged.data_dir("n2"), "n2", None, refuse)


async def test_a_log_that_is_too_short_is_damage(damaged: Nodes) -> None:
    await damaged.stop("n2")
    path = damaged.data_dir("n2")
    (segment,) = (path / "log").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().splitlines(keepends=True)[0])
    surveys: list[Survey] = []
    give_up_damage(path, "n2", None, surveys.append)
    assert "the log ends at entry 1, and once held entry" in surveys[0].reason


async def test_a_suspicion_alone_is_reason_enough(damaged: Nodes) -> None:
    await damaged.stop("n2")
    directory = DataDirectory.open(damaged.data_dir("n2"), "n2")
    directory.suspect(Trouble.UNSYNCED, "EIO")
    directory.mark_suspect()
    directory.close()
    before = log_bytes(damaged.data_dir("n2"))
    (damaged.data_dir("n2") / "log" / "synced").unlink()
    surveys: list[Survey] = []
    give_up_damage(damaged.data_dir("n2"), "n2", None, surveys.append)
    assert surveys[0].reason == "EIO"
    assert not (damaged.data_dir("n2") / "suspect").exists()
    assert log_bytes(damaged.data_dir("n2")) == before  # Nobody else may have it.


async def test_a_lost_identity_needs_the_cluster_s_id(damaged: Nodes) -> None:
    path = damaged.data_dir("n1")
    (path / "replica.json").unlink()
    with pytest.raises(ConfigurationError, match="--cluster-id"):
        give_up_damage(path, "n1", None, refuse)
    assert damaged.coordinated.config is not None
    disk_id = give_up_damage(path, "n1", damaged.coordinated.config.cluster_id, lambda _: None)
    assert disk_of(damaged, "n1") == Disk("n1", disk_id)
    assert inserted_keys(path) == ["a"]


# -- and then -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", ["n1", "n2"])
async def test_a_recovered_cluster_goes_on(damaged: Nodes, lead: str) -> None:
    give_up_damage(damaged.data_dir("n1"), "n1", None, lambda _: None)
    before = damaged.coordinated.state
    assert before is not None
    if lead == "n1":  # Otherwise its log may end higher than that of n2, which is refused.
        await damaged.start("n1")
    plan = await recover(damaged, lead)
    assert plan.given_up == before.isr
    if lead == "n2":
        await damaged.start("n1")
    assert (await damaged.leader()).status().leader == lead
    await damaged.write(write_of("d", collection="formularios"))
    await damaged.level()
    for name in ("n1", "n2"):
        assert inserted_keys(damaged.data_dir(name)) == ["a", "d"]
        assert_chained(damaged.data_dir(name))
    (note,) = [orjson.loads(note) for note in damaged.coordinated.recoveries]
    assert (note["lead"], note["epoch_before"]) == (lead, before.epoch)
    assert note["isr_before"] == [list(disk) for disk in before.isr]
    assert note["by"]


async def test_while_an_in_sync_replica_runs_nothing_is_recovered(damaged: Nodes) -> None:
    coordinated = damaged.coordinated
    assert coordinated.config is not None
    assert coordinated.state is not None
    with_n2 = replace(
        coordinated.state, isr=(Disk("n2", damaged.coordinated.view().members[0].disk_id),)
    )
    coordinated.keep(coordinated.config, with_n2, coordinated.version + 1)
    with pytest.raises(ConfigurationError, match="it can lead without any loss"):
        await recover(damaged, "n2")
    assert not coordinated.recoveries


async def test_a_state_that_changed_meanwhile_is_left_alone(damaged: Nodes) -> None:
    coordinated = damaged.coordinated
    view = await view_of(damaged)
    coordinator = MemoryCoordinator(coordinated)
    await coordinator.start(lambda _: None)

    def change(_: Recovery) -> None:
        assert coordinated.config is not None
        assert coordinated.state is not None
        coordinated.keep(coordinated.config, coordinated.state, coordinated.version + 1)

    with pytest.raises(ConfigurationError, match="changed meanwhile"):
        await recover_cluster(coordinator, view, "n2", change)
    await coordinator.stop()
    assert not coordinated.recoveries
    await eventually(lambda: damaged.running["n2"].describe()["leader"] is None)
