"""Replicas die under load. What was acknowledged stays, and nobody waits longer than promised."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid

import pytest

from tests.support.client import STORED, Client, Load, form
from tests.support.cluster import Cluster
from tests.support.logs import sync_log
from tests.support.waiting import eventually, until

pytestmark = [pytest.mark.usefixtures("restored"), pytest.mark.timeout(180)]
DEADLINE_S = 10.0
WARM = 50
"""Acknowledged writes after which a load is under way."""


def new_prefix() -> str:
    return f"carga-{uuid.uuid4().hex[:8]}"


async def answers_ready(client: Client, status: int) -> bool:
    return (await client.get("/readyz")).status == status


async def test_a_follower_is_killed_under_load(client: Client, cluster: Cluster) -> None:
    before = await cluster.in_sync(client)
    victim = (await cluster.followers(client))[0]
    diary = cluster.data_dir(before["leader"])

    def tells(level: str, event: str, since: int) -> bool:
        lines = ((line["level"], line["event"], line["node"]) for line in sync_log(diary)[since:])
        return (level, event, victim) in lines

    async def has_left_isr() -> bool:
        return victim not in (await client.view())["isr"]

    began = len(sync_log(diary))
    async with Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop(victim)
        await until(has_left_isr, DEADLINE_S)
        await eventually(lambda: tells("error", "follower missing", began), DEADLINE_S)
        alone, missing = len(load.stored), len(sync_log(diary))
        await eventually(lambda: len(load.stored) >= alone + WARM)
        assert not tells("info", "follower's digest matched", missing)
        await cluster.start(victim)
        await cluster.is_in_isr(client, victim)
    load.assert_all_stored(within_s=DEADLINE_S)
    await cluster.assert_kept(client, load.stored)
    await eventually(lambda: tells("info", "follower's digest matched", missing), DEADLINE_S)
    after = await client.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])


@pytest.mark.parametrize("time", ["first", "second", "third"])
async def test_the_leader_is_killed_under_load(client: Client, cluster: Cluster, time: str) -> None:
    before = await cluster.in_sync(client)
    victim = before["leader"]

    async def is_replaced() -> bool:
        view = await client.view()
        return view["epoch"] > before["epoch"] and view["leader"] not in (None, victim)

    async with Load.run(client, new_prefix(), clients=16) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop(victim)
        await until(is_replaced, DEADLINE_S)
        after = len(load.stored)
        await eventually(lambda: len(load.stored) >= after + WARM)
        await cluster.start(victim)
        await cluster.is_in_isr(client, victim)
    load.assert_all_stored(within_s=DEADLINE_S)
    await cluster.assert_kept(client, load.stored)


async def test_too_few_in_sync_replicas(client: Client, cluster: Cluster) -> None:
    kept = f"{new_prefix()}-antes"
    await client.store(kept)
    await cluster.in_sync(client)
    leader = (await client.view())["leader"]
    followers = await cluster.followers(client)

    for name in followers:
        await cluster.stop(name)
    await until(lambda: answers_ready(client, 503), DEADLINE_S)
    before = await client.last_index()

    answer = await client.post(form(new_prefix()))
    assert answer.status == 503
    assert answer.seconds < 3
    assert int(answer.headers["Retry-After"]) >= 1
    assert json.loads(answer.body)["status"] == "error"
    assert await client.last_index() == before

    ready = await client.get("/readyz")
    assert ready.status == 503
    assert json.loads(ready.body)["message"]
    assert (await client.get("/healthz")).status == 200
    assert await client.fetch(kept) == form(kept)
    assert (await client.get("/API/ObtenerUnFormulario/no-hay")).status == 404
    assert kept in {each["id"] for each in await client.all_forms()}
    view = await client.view()
    assert view["leader"] == leader
    assert len(view["isr"]) >= view["min_in_sync"]

    await cluster.start(followers[0])
    await until(lambda: answers_ready(client, 200), DEADLINE_S)
    key = new_prefix()
    await client.store(key)
    await cluster.start(followers[1])
    await cluster.assert_equal_logs(client)
    assert await client.fetch(key) == form(key)


async def test_a_write_waits_for_a_replica_that_comes_back(
    client: Client, cluster: Cluster
) -> None:
    """Appended while nobody noticed that both followers had died: answered once one is back."""
    await cluster.in_sync(client)
    followers = await cluster.followers(client)
    key = new_prefix()
    await asyncio.gather(*(cluster.stop(name) for name in followers))
    write = asyncio.create_task(client.post(form(key), {"Idempotency-Key": key}))
    await cluster.start(followers[0])
    answer = await write
    # Refused before it was appended, or kept: never a 504 while a replica came back in time.
    assert answer.status in (200, 503), answer
    if answer.status == 503:
        await until(lambda: answers_ready(client, 200), DEADLINE_S)
        answer = await client.post(form(key), {"Idempotency-Key": key})
    assert (answer.status, answer.body) == (200, STORED)


@pytest.mark.processes
async def test_everyone_dies_while_a_form_is_on_its_way(client: Client, cluster: Cluster) -> None:
    view = await cluster.in_sync(client)
    pids = cluster.stack.pids()
    begun, late = f"{new_prefix()}-en-camino", f"{new_prefix()}-tarde"

    async def is_appended() -> bool:
        return await client.last_index() > before

    async def has_no_leader() -> bool:
        return (await client.view())["leader"] is None

    def kill(name: str) -> None:
        pid = pids[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    before = await client.last_index()
    for name in await cluster.followers(client):
        kill(name)
    writing = asyncio.create_task(client.post(form(begun), {"Idempotency-Key": begun}))
    await until(is_appended)
    kill(view["leader"])
    # Sent before that was known, it might have reached the leader, and nobody could tell.
    await until(has_no_leader)
    unknown, refused, unread = await asyncio.gather(
        writing,
        client.post(form(late), {"Idempotency-Key": late}),
        client.get(f"/API/ObtenerUnFormulario/{begun}"),
    )
    assert (unknown.status, unknown.headers["Idempotency-Key"]) == (504, begun)
    assert "No se sabe" in json.loads(unknown.body)["message"]
    for answer in (refused, unread):
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
    assert max(each.seconds for each in (unknown, refused, unread)) <= DEADLINE_S + 1
    assert (await client.view())["leader"] is None
    assert (await client.get("/readyz")).status == 503

    await cluster.restore(client)
    for key in (begun, late):
        answer = await client.post(form(key), {"Idempotency-Key": key})
        assert (answer.status, answer.body) == (200, STORED)
    await cluster.assert_kept(client, [begun, late])
