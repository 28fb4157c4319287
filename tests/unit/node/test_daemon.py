"""Whole nodes in one process: real files and HTTP, broker and coordinator in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs
from yarl import URL

from replicad.broker.memory import MemoryBroker, MemoryExchange
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.coordination.port import View
from replicad.core.cluster import ClusterConfig, ClusterState, Member
from replicad.errors import (
    BrokerError,
    ConfigurationError,
    CoordinationError,
    DataDirectoryBusyError,
    ForeignClusterError,
    NodeNameTakenError,
)
from replicad.node.daemon import Node
from replicad.storage.datadir import DataDirectory
from tests.support.entries import write_of
from tests.support.logs import assert_chained, inserted_keys, log_bytes
from tests.support.nodes import Nodes
from tests.support.waiting import eventually

NAMES = ("n1", "n2", "n3")
FORMS = "formularios"
A, B, C = (write_of(key, collection=FORMS) for key in "abc")


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with Nodes.open(tmp_path, *NAMES) as opened:
        yield opened


@pytest.fixture
async def single(tmp_path: Path) -> AsyncIterator[Nodes]:
    """A cluster of one, up."""
    async with Nodes.open(tmp_path, "n1") as opened:
        await opened.start_cluster(1)
        yield opened


async def status_of(url: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/internal/status") as response,
    ):
        assert response.status == 200
        status: dict[str, Any] = await response.json()
        return status


def reopen(directory: Path) -> None:
    """Fails while somebody holds the directory."""
    DataDirectory.open(directory, "n1").close()


# -- three of them ------------------------------------------------------------------------------


async def leader_of(nodes: Nodes) -> str:
    leader = (await nodes.leader()).status().leader
    assert leader is not None
    return leader


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_a_crashed_replica_catches_up_to_the_byte(nodes: Nodes, which: str) -> None:
    await nodes.start_cluster(min_in_sync=2)
    await nodes.write(A)
    leader = await leader_of(nodes)
    epoch = (await nodes.leader()).epoch
    gone = leader if which == "leader" else next(n for n in NAMES if n != leader)
    await nodes.crash(gone)
    await nodes.write(B)
    assert ((await nodes.leader()).epoch > epoch) is (which == "leader")
    await nodes.start(gone)
    await nodes.level()
    await nodes.write(C)
    await nodes.level()
    logs = [log_bytes(nodes.data_dir(name)) for name in NAMES]
    assert logs[0] == logs[1] == logs[2]
    assert_chained(nodes.data_dir(gone))
    assert inserted_keys(nodes.data_dir(gone)) == ["a", "b", "c"]


async def test_after_a_stop_of_all_everything_is_there_again(nodes: Nodes) -> None:
    await nodes.start_cluster(min_in_sync=2)
    await nodes.write(A, B)
    for name in NAMES:
        await nodes.stop(name)
    for name in NAMES:
        await nodes.start(name)
    await nodes.level()
    leader = await nodes.leader()
    found = leader.store.records.get([(FORMS, "a"), (FORMS, "b")])
    assert [stored and stored.value for stored in found] == [b"{}", b"{}"]


async def test_the_status_tells_what_gateways_and_people_need(nodes: Nodes) -> None:
    await nodes.start_cluster(min_in_sync=2)
    await nodes.write(A)
    await nodes.level()
    leader = await leader_of(nodes)
    status = await status_of(nodes.url(leader))
    others = sorted(set(NAMES) - {leader})
    assert sorted(status["followers"]) == others
    assert all(each["matched"] == status["last_index"] for each in status["followers"].values())
    assert (status["name"], status["role"], status["leader"]) == (leader, "leader", leader)
    assert (status["writable"], status["reason"]) == (True, "")
    assert (sorted(status["isr"]), status["min_in_sync"]) == (list(NAMES), 2)
    assert status["last_index"] == status["commit_index"] == status["applied_index"]
    follower = await status_of(nodes.url(others[0]))
    assert (follower["role"], follower["leader"]) == ("follower", leader)
    assert (follower["writable"], follower["reason"]) == (False, "not-leader")
    assert follower["digest"] == status["digest"]
    assert follower["followers"] == {}


async def test_metrics_are_served(single: Nodes) -> None:
    await single.write(A)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{single.url('n1')}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    assert "replicad_commit_index 2.0" in lines


class RegistersLate(MemoryCoordinator):
    """Shows the cluster at once, and registers only when the test says so."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.viewed = asyncio.Event()
        self.released = asyncio.Event()

    async def start(self, on_view: Callable[[View], None]) -> None:
        def note_and_pass_on(view: View) -> None:
            on_view(view)
            self.viewed.set()

        await super().start(note_and_pass_on)

    async def register(self, describe: Callable[[], Member]) -> None:
        await self.released.wait()
        await super().register(describe)


async def test_a_replica_takes_part_only_once_it_is_registered(single: Nodes) -> None:
    """Who is elected unregistered counts as dead."""
    await single.stop("n1")
    coordinator = RegistersLate(single.coordinated)
    node = single.running["n1"] = single.make("n1", coordinator=coordinator)
    starting = asyncio.create_task(node.start())
    await coordinator.viewed.wait()
    assert node.driver is None
    coordinator.released.set()
    await starting
    await single.write(A)


# -- what cannot be -----------------------------------------------------------------------------


async def failure_of(node: Node) -> BaseException:
    async with asyncio.timeout(10):
        await node.ended.wait()
    assert node.failed is not None
    return node.failed


async def test_data_of_another_cluster_are_refused(single: Nodes) -> None:
    await single.stop("n1")
    state = single.coordinated.state
    assert state is not None
    single.coordinated.keep(ClusterConfig("another", ("n1",), 1), state, 9)
    node = await single.start("n1")
    error = await failure_of(node)
    assert type(error) is ForeignClusterError
    assert "another" in str(error)
    assert node.driver is None


async def test_a_name_that_is_not_configured_is_refused(nodes: Nodes) -> None:
    nodes.coordinated.keep(
        ClusterConfig("test", ("n2", "n3"), 2), ClusterState(0, None, None, None, (), "x"), 0
    )
    node = await nodes.start("n1")
    error = await failure_of(node)
    assert type(error) is ConfigurationError
    assert "'n1' is none of the cluster's replicas" in str(error)
    assert (await status_of(nodes.url("n1")))["role"] == "waiting"


async def test_data_without_a_state_wait_for_the_operator(single: Nodes) -> None:
    await single.write(A)
    await single.stop("n1")
    before = log_bytes(single.data_dir("n1"))
    kept = single.coordinated.config, single.coordinated.state, single.coordinated.version
    single.coordinated.config = single.coordinated.state = None
    single.coordinated.version = -1
    with capture_logs() as logs:
        node = await single.start("n1")
        await eventually(lambda: bool(warnings_in(logs)))
        single.coordinated.changed()
        status = await status_of(single.url("n1"))
    (warning,) = warnings_in(logs)  # Once, however many views come.
    assert "replicad cluster adopt" in warning["reason"]
    assert (status["role"], status["writable"]) == ("waiting", False)
    assert status["reason"] == "no-cluster"
    assert node.failed is None
    assert log_bytes(single.data_dir("n1")) == before
    (member,) = single.coordinated.members
    assert (member.last_index, member.cluster_id) == (2, single_id(kept[0]))

    single.coordinated.config, single.coordinated.state, single.coordinated.version = kept
    single.coordinated.changed()
    await single.write(B)
    assert inserted_keys(single.data_dir("n1")) == ["a", "b"]


def warnings_in(logs: list[Any]) -> list[Any]:
    return [line for line in logs if line["event"] == "waiting"]


def single_id(config: ClusterConfig | None) -> str:
    assert config is not None
    return config.cluster_id


async def test_an_empty_directory_waits_without_a_warning(nodes: Nodes) -> None:
    with capture_logs() as logs:
        await nodes.start("n1")
        nodes.coordinated.changed()
        status = await status_of(nodes.url("n1"))
    assert (status["role"], status["reason"]) == ("waiting", "no-cluster")
    assert not warnings_in(logs)


async def test_a_second_process_on_one_directory_is_refused(single: Nodes) -> None:
    second = single.make("n1")
    with pytest.raises(DataDirectoryBusyError):
        await second.start()
    await single.write(A)  # The first one is not disturbed.


async def test_one_name_on_two_disks_is_refused_and_releases_its_directory(
    single: Nodes, tmp_path: Path
) -> None:
    async with Nodes.open(tmp_path / "other", "n1") as others:
        impostor = others.make("n1", coordinator=MemoryCoordinator(single.coordinated))
        with pytest.raises(NodeNameTakenError):
            await impostor.start()
        reopen(others.data_dir("n1"))
    await single.write(A)


async def test_a_port_that_is_taken_releases_everything(single: Nodes, tmp_path: Path) -> None:
    async with Nodes.open(tmp_path / "other", "n1") as others:
        node = others.make("n1", port=URL(single.url("n1")).port)
        with pytest.raises(OSError, match="address already in use"):
            await node.start()
        reopen(others.data_dir("n1"))


# -- ending -------------------------------------------------------------------------------------


class BreaksAtTheEnd(MemoryCoordinator):
    async def stop(self) -> None:
        await super().stop()
        raise CoordinationError("no answer")


class BrokerBreaksAtTheEnd(MemoryBroker):
    async def stop(self) -> None:
        await super().stop()
        raise BrokerError("no answer")


async def test_a_stop_releases_the_directory_whatever_fails_before(nodes: Nodes) -> None:
    node = nodes.make("n1", coordinator=BreaksAtTheEnd(nodes.coordinated))
    await node.start()
    with pytest.raises(CoordinationError):
        await node.stop()
    reopen(nodes.data_dir("n1"))
    node = nodes.make("n1", broker=BrokerBreaksAtTheEnd(MemoryExchange(), "n1"))
    await node.start()
    with pytest.raises(BrokerError):
        await node.stop()
    reopen(nodes.data_dir("n1"))


async def test_a_clean_stop_marks_all_and_a_crash_no_more_than_was_applied(single: Nodes) -> None:
    await single.write(A)
    mark = single.data_dir("n1") / "log" / "synced"
    await single.stop("n1")
    marked = mark.read_bytes()
    assert int(marked.split()[1]) == 2
    await single.start("n1")
    await single.write(B)  # Its epoch's first entry is 3, this one is 4.
    await single.crash("n1")
    assert int(mark.read_bytes().split()[1]) in (2, 4)
    await single.start("n1")
    await single.write(A, B)
    assert inserted_keys(single.data_dir("n1")) == ["a", "b"]


async def test_what_it_depends_on_ends_it(single: Nodes) -> None:
    node = single.running["n1"]
    part: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    node.end_with(part)
    part.set_exception(BrokerError("gave up"))
    assert isinstance(await failure_of(node), BrokerError)
    assert node.driver is not None
    assert node.driver.stopped


@pytest.mark.parametrize("how", ["done", "cancelled"])
async def test_a_part_that_ends_in_peace_does_not_end_it(single: Nodes, how: str) -> None:
    node = single.running["n1"]
    part: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    node.end_with(part)
    part.cancel() if how == "cancelled" else part.set_result(None)
    await single.write(A)
    assert node.failed is None
