"""Faults that outlive every timeout: heartbeats, sessions, and what waits for an answer.

Shorter ones end while whoever was cut off still believes in its connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from replicad.broker.rabbitmq_wire import HEARTBEAT_S
from tests.support.faults.broker import Broker
from tests.support.faults.cluster import FaultCluster
from tests.support.faults.network import Way

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# aiormq gives a connection up after three heartbeats more; sessions with ZooKeeper are shorter.
LONG_S = 4 * (HEARTBEAT_S + 1)

Fault = Callable[[FaultCluster, str], AbstractAsyncContextManager[None]]


def cut(port: str, way: Way) -> Fault:
    """The replica's link to a server."""
    return lambda cluster, name: cluster.firewall.cut(name, cluster.record.ports[port], way)


@asynccontextmanager
async def paused(cluster: FaultCluster, name: str) -> AsyncIterator[None]:
    """The replica itself."""
    async with cluster.paused(name):
        yield


def server_paused(server: str) -> Fault:
    """What all of them need."""
    return lambda cluster, _: cluster.paused(server)


@asynccontextmanager
async def out_of_memory(cluster: FaultCluster, _: str) -> AsyncIterator[None]:
    """RabbitMQ reads nothing that is published."""
    async with Broker(cluster).memory_alarm():
        yield


FAULTS: dict[str, Fault] = {
    **{f"amqp-{way.value}": cut("amqp", way) for way in Way},
    **{f"zookeeper-{way.value}": cut("zookeeper", way) for way in Way},
    "paused": paused,
}
SERVER_FAULTS: dict[str, Fault] = {
    "rabbitmq-paused": server_paused("rabbitmq"),
    "zookeeper-paused": server_paused("zookeeper"),
    "rabbitmq-out-of-memory": out_of_memory,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_of_a_replica(cluster: FaultCluster, role: str, fault: str) -> None:
    """The others go on, and it is back soon after."""
    async with cluster.load() as load:
        victim = await (cluster.leader() if role == "leader" else cluster.follower())
        async with FAULTS[fault](cluster, victim):
            await asyncio.sleep(LONG_S)
            await load.progress()
        await cluster.joined_isr(victim)
        await load.progress()


@pytest.mark.parametrize("fault", SERVER_FAULTS)
async def test_of_a_server(cluster: FaultCluster, fault: str) -> None:
    """Nothing is written meanwhile, perhaps; soon after, everything is."""
    async with cluster.load() as load:
        async with SERVER_FAULTS[fault](cluster, ""):
            await asyncio.sleep(LONG_S)
        await load.progress()
        for name in cluster.names:
            await cluster.joined_isr(name)
