"""The ZooKeeper adapter against a real server."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
from kazoo.client import KazooClient

from replicad.coordination.port import View
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.errors import CoordinationError
from replicad.stack.ports import LOOPBACK
from tests.support.proxy import Proxy
from tests.support.servers import ZooKeeperServer
from tests.support.waiting import eventually
from tests.unit.coordination.contract import (
    CONFIG,
    ELECTED,
    FOUNDED,
    MEMBER,
    CoordinatorContract,
    NewSession,
    Session,
    opened,
)

SESSION_TIMEOUT_S = 1.0
_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture
def cluster() -> str:
    """The name of a cluster of this test's own."""
    return f"c{next(_numbers)}"


@pytest.fixture
def make(server: ZooKeeperServer, cluster: str) -> Callable[[], ZooKeeperCoordinator]:
    return partial(ZooKeeperCoordinator, server.hosts, cluster, SESSION_TIMEOUT_S)


@pytest.fixture
async def new_session(make: Callable[[], ZooKeeperCoordinator]) -> AsyncIterator[NewSession]:
    sessions: list[Session] = []
    yield partial(opened, make, sessions)
    await asyncio.gather(*(session.coordinator.stop() for session in sessions))


class TestZooKeeperCoordinator(CoordinatorContract):
    """The contract, on the real thing."""


async def test_restarted_server_keeps_the_session_and_the_watches(
    server: ZooKeeperServer, new_session: NewSession
) -> None:
    one, watcher = [await new_session() for _ in range(2)]
    await one.coordinator.create_cluster(CONFIG, FOUNDED)
    await one.coordinator.register(lambda: MEMBER)
    await watcher.sees(MEMBER)
    await asyncio.to_thread(server.stop)
    with pytest.raises(CoordinationError):
        await one.coordinator.propose(ELECTED, 0)
    await asyncio.to_thread(server.start)

    async def proposed() -> bool:
        try:
            return await one.coordinator.propose(ELECTED, 0) == 1
        except CoordinationError:
            await asyncio.sleep(0)  # Raised at once; the loop must get its turn.
            return False

    async with asyncio.timeout(10):
        while not await proposed():
            pass
    await eventually(lambda: watcher.view == View(CONFIG, ELECTED, 1, (MEMBER,)))


async def test_expired_session_registers_again(
    server: ZooKeeperServer, cluster: str, new_session: NewSession
) -> None:
    watcher, proxy = await new_session(), Proxy(server.port)
    await proxy.open()
    hosts = f"{LOOPBACK}:{proxy.port}"
    one = await opened(lambda: ZooKeeperCoordinator(hosts, cluster, SESSION_TIMEOUT_S), [])
    await one.coordinator.register(lambda: MEMBER)
    await watcher.sees(MEMBER)
    proxy.cut()
    await watcher.sees()
    with pytest.raises(CoordinationError):
        await one.coordinator.read()
    one.views.clear()
    await proxy.open()
    await watcher.sees(MEMBER)
    await eventually(lambda: bool(one.views) and one.view == watcher.view)
    await one.coordinator.stop()
    await watcher.sees()
    proxy.cut()


async def test_version_lower_than_one_seen_is_never_delivered(
    server: ZooKeeperServer, cluster: str, new_session: NewSession
) -> None:
    one = await new_session()
    await one.coordinator.create_cluster(CONFIG, FOUNDED)
    await eventually(lambda: one.view.version == 0)
    assert await one.coordinator.propose(ELECTED, 0) == 1
    with operator(server) as client:
        client.delete(f"/replicad/{cluster}/state")
        client.create(f"/replicad/{cluster}/state", FOUNDED.to_json())
    assert (await new_session()).view.version == 0
    with pytest.raises(CoordinationError, match="version 0 after version 1"):
        await one.coordinator.read()
    versions = [view.version for view in one.views]
    assert versions == sorted(versions)


@contextmanager
def operator(server: ZooKeeperServer) -> Iterator[KazooClient]:
    """A client that blocks the event loop: nothing else happens while it works."""
    client = KazooClient(server.hosts)
    client.start()
    try:
        yield client
    finally:
        client.stop()
        client.close()


async def test_reader_of_a_frozen_server_gets_an_error_in_time(
    server: ZooKeeperServer, new_session: NewSession
) -> None:
    one = await new_session()
    with server.frozen():
        async with asyncio.timeout(3):
            with pytest.raises(CoordinationError):
                await one.coordinator.read()


async def test_stop_is_quick_while_the_server_is_frozen(
    server: ZooKeeperServer, new_session: NewSession
) -> None:
    one = await new_session()
    with server.frozen():
        async with asyncio.timeout(2):
            await one.coordinator.stop()


async def test_stop_is_quick_while_the_server_is_away(
    server: ZooKeeperServer, new_session: NewSession
) -> None:
    one = await new_session()
    await asyncio.to_thread(server.stop)
    try:
        async with asyncio.timeout(2):
            await one.coordinator.stop()
    finally:
        await asyncio.to_thread(server.start)


async def test_start_without_a_server_fails_in_time(
    server: ZooKeeperServer,
    make: Callable[[], ZooKeeperCoordinator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replicad.coordination.zookeeper_session.CONNECT_TIMEOUT_S", 0.3)
    await asyncio.to_thread(server.stop)
    try:
        coordinator = make()
        with pytest.raises(CoordinationError, match=server.hosts):
            await coordinator.start(lambda _: None)
        await coordinator.stop()
    finally:
        await asyncio.to_thread(server.start)


async def test_proposal_made_before_the_new_config_was_seen_is_refused(
    server: ZooKeeperServer, cluster: str, new_session: NewSession
) -> None:
    one = await new_session()
    await one.coordinator.create_cluster(CONFIG, FOUNDED)
    await eventually(lambda: one.view.version == 0)
    # The operator blocks the loop: the coordinator cannot have heard of it when it proposes.
    with operator(server) as client:
        client.set(f"/replicad/{cluster}/config", replace(CONFIG, min_in_sync=3).to_json())
    assert await one.coordinator.propose(ELECTED, 0) is None
    await eventually(lambda: one.view.config == replace(CONFIG, min_in_sync=3))
    assert await one.coordinator.propose(ELECTED, 0) == 1


_PROGRAM = """
import asyncio, sys
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.core.cluster import Member
async def main():
    hosts, cluster, timeout, member = sys.argv[1:]
    coordinator = ZooKeeperCoordinator(hosts, cluster, float(timeout))
    await coordinator.start(lambda view: None)
    await coordinator.register(lambda: Member.from_json(member))
    await coordinator.failed
asyncio.run(main())
"""


async def _member_in_a_process(
    server: ZooKeeperServer, cluster: str, watcher: Session
) -> asyncio.subprocess.Process:
    arguments = (server.hosts, cluster, str(SESSION_TIMEOUT_S), MEMBER.to_json())
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, *arguments)
    await watcher.sees(MEMBER)
    return process


async def test_member_of_a_killed_process_vanishes(
    server: ZooKeeperServer, cluster: str, new_session: NewSession
) -> None:
    watcher = await new_session()
    process = await _member_in_a_process(server, cluster, watcher)
    process.kill()
    await process.wait()
    assert watcher.view.members == (MEMBER,)
    await watcher.sees()


async def test_node_whose_disk_was_replaced_waits_for_the_end_of_its_old_session(
    server: ZooKeeperServer, cluster: str, new_session: NewSession
) -> None:
    one = await new_session()
    process = await _member_in_a_process(server, cluster, one)
    process.kill()
    await process.wait()
    wiped = replace(MEMBER, incarnation="i9", disk_id="new")
    await one.coordinator.register(lambda: wiped)
    await one.sees(wiped)


async def test_failing_callback_surfaces(make: Callable[[], ZooKeeperCoordinator]) -> None:
    coordinator = make()

    def fail(view: View) -> None:
        raise ArithmeticError(view)

    await coordinator.start(fail)
    with pytest.raises(ArithmeticError):
        async with asyncio.timeout(5):
            await coordinator.failed
    await coordinator.stop()
