"""The whole cluster ends, in order or by a blow, and comes back with everything it acknowledged."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import uuid

import aiohttp
import pytest

from tests.support.client import Client, Load, form
from tests.support.cluster import Cluster, runs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("restored"), pytest.mark.timeout(180)]


def new_prefix() -> str:
    return f"reinicio-{uuid.uuid4().hex[:8]}"


async def test_down_and_up_again(client: Client, cluster: Cluster) -> None:
    async with Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= 100)
    load.assert_all_stored(within_s=10.0)
    before = await cluster.in_sync(client)
    key = new_prefix()
    headers = {"Idempotency-Key": key}
    first = await client.post(form(key), headers)
    assert first.status == 200

    await asyncio.to_thread(cluster.stack.down)
    await asyncio.to_thread(cluster.stack.up)

    after = await cluster.in_sync(client)
    assert after["epoch"] > before["epoch"]
    again = await client.post(form(key), headers)
    assert (again.status, again.index) == (200, first.index)
    assert (await client.post(form(load.stored[0]))).status == 409
    await cluster.assert_kept(client, load.stored)


async def test_everything_is_killed_under_load(client: Client, cluster: Cluster) -> None:
    """SIGKILL to every process of the stack, servers included, in the midst of writing."""
    acknowledged: list[str] = []
    prefix = new_prefix()

    async def write(number: int) -> None:
        for count in itertools.count():
            key = f"{prefix}-{number}-{count}"
            try:
                answer = await client.post(form(key))
            except aiohttp.ClientError:  # The gateway is gone: nothing was promised.
                return
            if answer.status == 200:
                acknowledged.append(key)

    async with asyncio.TaskGroup() as writers:
        for number in range(8):
            writers.create_task(write(number))
        pids = {pid for pid in cluster.stack.pids().values() if pid is not None}
        await eventually(lambda: len(acknowledged) >= 200)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(map(runs, pids)))

    await asyncio.to_thread(cluster.stack.up)
    await cluster.assert_kept(client, acknowledged)
