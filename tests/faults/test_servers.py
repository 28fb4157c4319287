"""ZooKeeper and RabbitMQ: restarted, paused, short of memory, meddled with (catalogue 20 to 29)."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Any

import pytest
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from tests.support.faults.broker import Broker, copy_of
from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.faults.coordinator import Coordination
from tests.support.logs import log_lines
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
SERVED = {200, 404, 409}
REFUSED = {503, 504}


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_session_expires(cluster: FaultCluster, role: str) -> None:
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        victim = await (cluster.leader() if role == "leader" else cluster.follower())
        expired = await asyncio.to_thread(coordination.expire, victim)

        async def is_registered_again() -> bool:
            session = await asyncio.to_thread(coordination.session, victim)
            return session not in (None, expired)

        await until(is_registered_again, RECOVERY_S)
        await load.progress()
    assert not set(load.statuses) - SERVED


async def test_somebody_else_writes_state(cluster: FaultCluster) -> None:
    """Every proposal of the leader meets another version than it knows, for a while."""
    coordination = Coordination(cluster)
    async with cluster.load() as load:
        before = await cluster.view()
        victim = await cluster.follower()
        meddling = asyncio.create_task(asyncio.to_thread(coordination.touch_state, 300))
        async with cluster.paused(victim):
            await cluster.left_isr(victim)
            await load.progress()
        assert await meddling >= 300
        await cluster.joined_isr(victim)
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])


async def test_zookeeper_is_restarted(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        await cluster.kill("zookeeper")
        await load.progress()
        await cluster.start("zookeeper")
        await load.progress()
        await cluster.kill(before["leader"])
        await cluster.replaced(before)
        await cluster.start(before["leader"])
    assert not set(load.statuses) - SERVED


async def test_zookeeper_is_paused(cluster: FaultCluster) -> None:
    """For longer than a session: steady writes go on, whoever leads after it."""
    async with cluster.load() as load:
        async with cluster.paused("zookeeper"):
            # One may have been without a connection already: a restart was shortly before.
            await eventually(
                lambda: all(map(_is_cut_off, map(cluster.log, cluster.names))), RECOVERY_S
            )
            await load.progress()
        await load.progress()


def _is_cut_off(log: str) -> bool:
    """Whether the last that a replica's log tells of ZooKeeper is that the connection was lost."""
    return log.rfind("zookeeper connection lost") > log.rfind("zookeeper connected")


@pytest.mark.slow
async def test_zookeeper_is_down_for_a_minute(cluster: FaultCluster) -> None:
    clock = asyncio.get_running_loop().time
    async with cluster.load() as load:
        before = await cluster.view()
        await cluster.kill("zookeeper")
        gone_at = clock()
        while clock() - gone_at < 60.0:
            await load.progress()
        assert (await cluster.view())["epoch"] == before["epoch"]
        await cluster.start("zookeeper")
        await load.progress()
        await cluster.kill(before["leader"])
        await cluster.replaced(before)
        await cluster.start(before["leader"])
    assert not set(load.statuses) - SERVED


async def test_rabbitmq_is_restarted(cluster: FaultCluster) -> None:
    """Whatever it held is gone, queues included; it takes several seconds to come back."""
    broker = Broker(cluster)
    async with cluster.load() as load:
        before = [await broker.queue(name, "log") for name in cluster.names]
        await cluster.kill("rabbitmq")
        await cluster.start("rabbitmq")
        assert len((await cluster.view())["isr"]) == len(cluster.names)
        await load.progress()
        after = [await broker.queue_or_none(name, "log") for name in cluster.names]
        assert not set(before) & set(after)


async def test_rabbitmq_is_out_of_memory(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        async with Broker(cluster).memory_alarm():
            await eventually(lambda: bool(REFUSED & set(load.statuses)), RECOVERY_S)
            assert (await cluster.view())["isr"] == before["isr"]
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])


@pytest.mark.parametrize("kind", ["log", "acks"])
async def test_a_queue_is_deleted(cluster: FaultCluster, kind: str) -> None:
    """Of a follower what it gets from the leader, of the leader what it gets from followers."""
    broker = Broker(cluster)
    async with cluster.load() as load:
        victim = await (cluster.follower() if kind == "log" else cluster.leader())
        before = await broker.queue(victim, kind)
        await broker.delete_queue(before)
        await load.progress()

        async def is_declared_anew() -> bool:
            return await broker.queue(victim, kind) != before

        await until(is_declared_anew, RECOVERY_S)
        await cluster.joined_isr(victim)


async def test_messages_to_a_follower_are_lost(cluster: FaultCluster) -> None:
    """Nobody tells it; it finds the gap by the next message's index and digest."""
    broker = Broker(cluster)
    async with cluster.load() as load:
        leader, victim = await cluster.leader(), await cluster.follower()
        queue = await broker.queue(victim, "log")
        await broker.unbind(queue, "log.all")
        lost = len(log_lines(cluster.data_dir(leader)))
        await load.progress()
        assert len(log_lines(cluster.data_dir(victim))) <= lost
        await broker.bind(queue, "log.all")
        await cluster.joined_isr(victim)
        await load.progress()


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_connections_are_closed(cluster: FaultCluster, role: str) -> None:
    broker = Broker(cluster)
    async with cluster.load() as load:
        victim = await (cluster.leader() if role == "leader" else cluster.follower())
        before = await broker.queue(victim, "log")
        assert await broker.close_connections(victim) in (2, 3)

        async def is_back() -> bool:
            return await broker.queue_or_none(victim, "log") not in (None, before)

        await until(is_back, RECOVERY_S)
        await load.progress()
        await cluster.joined_isr(victim)


async def test_channels_are_closed(cluster: FaultCluster) -> None:
    broker = Broker(cluster)
    async with cluster.load() as load:
        before = [await broker.queue(name, "log") for name in cluster.names]
        await broker.close_channels()

        async def are_back() -> bool:
            queues = [await broker.queue_or_none(name, "log") for name in cluster.names]
            return None not in queues and not set(queues) & set(before)

        await until(are_back, RECOVERY_S)
        await load.progress()


async def test_messages_are_doubled_late_and_garbled(cluster: FaultCluster) -> None:
    """Somebody sends again, at once or much later, whatever passes, whole or with a bit flipped."""
    broker = Broker(cluster)
    rng = Random(1)  # noqa: S311 - reproducible
    kept: deque[tuple[str, Any]] = deque(maxlen=2_000)
    sent = {"again": 0, "late": 0, "garbled": 0}

    async def on_message(message: AbstractIncomingMessage, exchange: AbstractExchange) -> None:
        if message.app_id is None or rng.random() > 0.2:
            return
        key = message.routing_key or ""
        kept.append((key, copy_of(message)))
        await exchange.publish(_marked(copy_of(message)), key)
        sent["again"] += 1
        old_key, old = rng.choice(kept)
        await exchange.publish(_marked(old), old_key)
        sent["late"] += 1
        if message.body:
            body = bytearray(message.body)
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            await exchange.publish(_marked(copy_of(message, bytes(body))), key)
            sent["garbled"] += 1

    async with cluster.load() as load, broker.tapped(on_message):
        before = await cluster.view()
        await eventually(lambda: min(sent.values()) >= 200, RECOVERY_S)
        # With a new epoch everything kept is of an old one, acks included.
        await cluster.kill(before["leader"])
        await cluster.replaced(before)
        await cluster.start(before["leader"])
        await load.progress()
        await cluster.joined_isr(before["leader"])


def _marked(message: Any) -> Any:  # noqa: ANN401
    message.app_id = None  # By this the tap knows what it sent itself.
    return message
