"""Two gateways are one: what is acknowledged through one of them is seen through the other."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.client import EXISTS, Client, Load, form
from tests.support.cluster import Cluster, runs
from tests.support.waiting import eventually

STOP_S = 3.0
WARM = 50


@pytest.fixture
async def other(cluster: Cluster) -> AsyncIterator[Client]:
    """A client of the second gateway."""
    if "gateways" not in cluster.stack.description:
        pytest.skip("the container's file has one gateway")
    async with Client.open(cluster.stack.description["gateways"][1]["url"]) as client:
        yield client


async def test_each_sees_the_others_writes_at_once(client: Client, other: Client) -> None:
    for number in range(50):
        writer, reader = (client, other) if number % 2 else (other, client)
        key = f"dos-{uuid.uuid4().hex}"
        written = await writer.store(key, n=number)
        assert await reader.fetch(key) == form(key, n=number)
        verified = await reader.get(f"/API/VerificaFormularioDuplicado/{key}")
        assert verified.body == EXISTS
        assert (await reader.post(form(key, n=number))).status == 409
        assert await reader.last_index() == written.index


async def test_a_key_counts_at_both(client: Client, other: Client) -> None:
    key = f"dos-{uuid.uuid4().hex}"
    headers = {"Idempotency-Key": key}
    first = await client.post(form(key), headers)
    again = await other.post(form(key), headers)
    assert (first.status, again.status) == (200, 200)
    assert again.index == first.index
    assert (await other.post(form(key, n=2), headers)).status == 422


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("role", ["gateway", "follower", "leader"])
async def test_sigterm_ends_a_daemon_within_three_seconds(
    client: Client, cluster: Cluster, role: str
) -> None:
    view = await cluster.in_sync(client)
    followers = await cluster.followers(client)
    name = {"gateway": "gateway2", "follower": followers[0], "leader": view["leader"]}[role]
    pid = cluster.stack.pids()[name]
    assert pid is not None
    async with Load.run(client, f"dos-{uuid.uuid4().hex}") as load:
        await eventually(lambda: len(load.stored) >= WARM)
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: not runs(pid), STOP_S)
        after = len(load.stored)
        await eventually(lambda: len(load.stored) >= after + WARM)
    load.assert_all_stored(within_s=10.0)
