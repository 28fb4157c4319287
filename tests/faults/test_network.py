"""Links that are cut, in both directions or in one (catalogue 15 to 19)."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from contextlib import closing

import pytest

from tests.faults.conftest import Clusters
from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.faults.coordinator import Coordination
from tests.support.faults.network import Firewall, Way
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
SERVED = {200, 404, 409}


_SPEAKER = """
import socket, sys, time
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
while True:
    peer.sendall(b"x")
    time.sleep(0.01)
"""


async def test_what_a_dead_process_has_sent_stays_cut(clusters: Clusters) -> None:
    """The kernel sends it again, in nobody's name: the rules must not go by the owner."""
    received = bytearray()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(1000):
                received.extend(data)

    firewall = Firewall({"speaker": 20_009})
    firewall.mark()
    async with await asyncio.start_server(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        as_speaker = ("setpriv", "--regid", "20009", "--clear-groups", sys.executable, "-c")
        speaker = await asyncio.create_subprocess_exec(
            *as_speaker, _SPEAKER, str(port), stdout=PIPE
        )
        assert speaker.stdout is not None
        assert await speaker.stdout.readline() == b"connected\n"
        async with firewall.cut("speaker", port):
            speaker.kill()
            await speaker.wait()
            dropped, heard = firewall.dropped, len(received)
            await eventually(lambda: firewall.dropped > dropped)
            assert len(received) == heard
        await eventually(lambda: len(received) > heard)


@pytest.mark.parametrize("way", [Way.BOTH, Way.THERE, Way.BACK])
async def test_the_leader_is_cut_from_zookeeper(cluster: FaultCluster, way: Way) -> None:
    """Its session expires: another leads, and what the old one still sends is of an old epoch."""
    async with cluster.load() as load:
        before = await cluster.view()
        async with cluster.firewall.cut(before["leader"], cluster.record.ports["zookeeper"], way):
            await cluster.replaced(before)
            await load.progress()
        await cluster.joined_isr(before["leader"])
        await load.progress()


async def test_a_follower_is_cut_from_zookeeper(cluster: FaultCluster) -> None:
    """It goes on acknowledging; nobody needs its session."""
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        before = await cluster.view()
        victim = await cluster.follower()
        session = await asyncio.to_thread(coordination.session, victim)
        async with cluster.firewall.cut(victim, coordination.port):
            await until(lambda: _other_session(coordination, victim, session), RECOVERY_S)
            await load.progress()
        await until(lambda: _is_registered(coordination, victim), RECOVERY_S)
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - SERVED


@pytest.mark.parametrize("way", [Way.BOTH, Way.THERE, Way.BACK])
async def test_the_leader_is_cut_from_rabbitmq(cluster: FaultCluster, way: Way) -> None:
    """It cannot commit: writes are refused or another leads, and nobody is put out of sync."""
    async with cluster.load() as load:
        before = await cluster.view()

        async def is_noticed() -> bool:
            moved = (await cluster.view())["epoch"] > before["epoch"]
            return moved or bool({503, 504} & set(load.statuses))

        async with cluster.firewall.cut(before["leader"], cluster.record.ports["amqp"], way):
            await until(is_noticed, RECOVERY_S)
            isr = (await cluster.view())["isr"]
        assert len(isr) >= before["min_in_sync"]
        await load.progress(timeout_s=RECOVERY_S)


async def test_a_session_with_rabbitmq_is_given_up(cluster: FaultCluster) -> None:
    """What was sent is never taken, and to close takes too long: it connects again all the same."""
    async with cluster.load() as load:
        before = await cluster.view()
        victim = before["leader"]
        losses = cluster.log(victim).count("broker not connected")
        async with cluster.firewall.cut(victim, cluster.record.ports["amqp"]):
            await cluster.replaced(before)
            await eventually(
                lambda: cluster.log(victim).count("broker not connected") > losses, RECOVERY_S
            )
        await cluster.joined_isr(victim)
        await load.progress()


@pytest.mark.parametrize("way", [Way.BOTH, Way.THERE, Way.BACK])
async def test_a_follower_is_cut_from_rabbitmq(cluster: FaultCluster, way: Way) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        victim = await cluster.follower()
        async with cluster.firewall.cut(victim, cluster.record.ports["amqp"], way):
            await cluster.left_isr(victim)
            await load.progress()
        await cluster.joined_isr(victim)
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - SERVED


async def test_the_reply_to_a_change_of_state_is_lost(cluster: FaultCluster) -> None:
    """ZooKeeper has done what the leader asked for, and the leader does not hear of it."""
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        leader, victim = await cluster.leader(), await cluster.follower()

        async def is_done() -> bool:
            state = await asyncio.to_thread(coordination.state)
            return victim not in {node for node, _ in state["isr"]}

        await cluster.kill(victim)
        async with cluster.firewall.cut(leader, coordination.port, Way.BACK):
            await until(is_done, RECOVERY_S)
        await cluster.left_isr(victim)
        await load.progress()
        await cluster.start(victim)


async def _other_session(coordination: Coordination, replica: str, before: int | None) -> bool:
    return await asyncio.to_thread(coordination.session, replica) != before


async def _is_registered(coordination: Coordination, replica: str) -> bool:
    return await asyncio.to_thread(coordination.session, replica) is not None
