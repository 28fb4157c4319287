"""RabbitMQ and ZooKeeper: what they show to a person, and what their loss does."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import aiohttp
import pytest

from replicad.stack.record import CLUSTER
from tests.support.client import Client, Load
from tests.support.cluster import Cluster
from tests.support.logs import log_lines
from tests.support.waiting import eventually, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
DEADLINE_S = 10.0
WARM = 50
OUTAGE_S = 5.0
"""More than twice ZooKeeper's session timeout."""
EXCHANGE = f"replicad.{CLUSTER}"


def new_prefix() -> str:
    return f"servidor-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def isr_sizes(client: Client) -> AsyncIterator[list[int]]:
    """How many were in sync, over and over, for as long as the block runs."""
    seen: list[int] = []

    async def watch() -> bool:
        seen.append(len((await client.view())["isr"]))
        return False

    watching = asyncio.create_task(until(watch, 300))
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def management(cluster: Cluster, path: str) -> dict[str, dict[str, Any]]:
    """What RabbitMQ's management interface lists, by name, with the credentials `up` tells."""
    server = cluster.stack.description["rabbitmq"]
    amqp = urlsplit(server["amqp"])
    credentials = base64.b64encode(f"{amqp.username}:{amqp.password}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    async with (
        aiohttp.ClientSession(server["management"], headers=headers) as session,
        session.get(f"/api/{path}") as answer,
    ):
        assert answer.status == 200
        return {each["name"]: each for each in await answer.json()}


async def test_the_management_page_shows_replication(client: Client, cluster: Cluster) -> None:
    await cluster.in_sync(client)
    names = await management(cluster, "queues")
    for node in cluster.names:
        for kind in ("log", "acks"):
            prefix = f"{EXCHANGE}.{node}.{kind}."
            assert len([name for name in names if name.startswith(prefix)]) == 1, names
    exchange = (await management(cluster, "exchanges"))[EXCHANGE]
    assert (exchange["type"], exchange["durable"]) == ("topic", True)


async def test_a_tap_sees_the_logs_lines(client: Client, cluster: Cluster) -> None:
    await cluster.in_sync(client)
    followers = await cluster.followers(client)
    lines: dict[int, bytes] = {}
    acked: dict[str, int] = {}

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        if message.content_type == "application/x-ndjson":
            first = json.loads(str(message.headers["fields"]))["previous-index"] + 1
            lines.update(enumerate(message.body.splitlines(), first))
        elif message.type == "ack":
            ack = json.loads(message.body)
            acked[ack["node"]] = ack["index"]

    connection = await aio_pika.connect(cluster.stack.description["rabbitmq"]["amqp"])
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(EXCHANGE)
        tap = await channel.declare_queue(exclusive=True)
        await tap.bind(exchange, "#")
        await tap.consume(on_message, no_ack=True)
        written = await asyncio.gather(*(client.store(new_prefix(), t="ñ") for _ in range(20)))
        indexes = {answer.index for answer in written}
        await eventually(lambda: indexes <= lines.keys())
        await eventually(lambda: all(acked.get(n, 0) >= max(indexes) for n in followers))
    await cluster.in_sync(client)
    for name in cluster.names:
        log = log_lines(cluster.data_dir(name))
        assert {index: log[index - 1] for index in lines} == lines


@pytest.mark.usefixtures("restored")
async def test_rabbitmq_is_killed_and_comes_back(client: Client, cluster: Cluster) -> None:
    before = await cluster.in_sync(client)

    async def answers_ready(status: int) -> bool:
        return (await client.get("/readyz")).status == status

    async with isr_sizes(client) as sizes, Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop("rabbitmq")
        await until(lambda: answers_ready(503), DEADLINE_S)
        await cluster.start("rabbitmq")
        await until(lambda: answers_ready(200), DEADLINE_S)
        again = len(load.stored)
        await eventually(lambda: len(load.stored) >= again + WARM)
    assert min(sizes) >= before["min_in_sync"]
    # It takes about as long to come up as a write may wait, so either answer is right.
    assert {answer.status for answer in load.answers.values()} <= {200, 503, 504}
    assert max(answer.seconds for answer in load.answers.values()) <= DEADLINE_S + 1
    await cluster.assert_kept(client, load.stored)


@pytest.mark.usefixtures("restored")
async def test_zookeeper_is_away_for_a_while(client: Client, cluster: Cluster) -> None:
    before = await cluster.in_sync(client)
    clock = asyncio.get_running_loop().time
    async with Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop("zookeeper")
        gone_at, stored = clock(), len(load.stored)
        await eventually(lambda: clock() - gone_at >= OUTAGE_S, OUTAGE_S + 1)
        assert len(load.stored) >= stored + WARM
        view = await client.view()
        assert view["epoch"] == before["epoch"]
        await cluster.start("zookeeper")
        again = len(load.stored)
        await eventually(lambda: len(load.stored) >= again + WARM)
    load.assert_all_stored(within_s=DEADLINE_S)
    await cluster.assert_kept(client, load.stored)

    # It decides again: a dead leader is replaced.
    leader = (await client.view())["leader"]
    await cluster.stop(leader)
    key = new_prefix()
    await client.store(key)
    assert (await client.view())["leader"] not in (None, leader)
