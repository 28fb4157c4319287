"""Reads of every consistency, look-ups of outcomes, and the history of elections."""

from __future__ import annotations

import asyncio
import json
import uuid
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.client import ABSENT, EXISTS, Answer, Client, form
from tests.support.cluster import Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(120)
LOCAL = {"X-Replicad-Consistency": "local"}
DEADLINE_S = 10.0


def session(index: int) -> dict[str, str]:
    return {"X-Replicad-Consistency": "session", "X-Replicad-Min-Index": str(index)}


def new_key() -> str:
    return f"lectura-{uuid.uuid4().hex}"


def one(key: str) -> str:
    return f"/API/ObtenerUnFormulario/{key}"


def replica_of(answer: Answer) -> str:
    return answer.headers["X-Replicad-Replica"]


async def test_a_session_sees_its_own_writes_at_once(client: Client) -> None:
    """Whichever replica answers: one that has not got there yet does not."""
    for number in range(100):
        key = new_key()
        written = await client.store(key, n=number)
        answer = await client.get(one(key), session(written.index))
        assert (answer.status, answer.body) == (200, form(key, n=number))
        assert int(answer.headers["X-Replicad-Index"]) >= written.index
        verified = await client.get(
            f"/API/VerificaFormularioDuplicado/{key}", session(written.index)
        )
        assert verified.body == EXISTS


async def test_followers_serve_session_and_local_reads(client: Client, cluster: Cluster) -> None:
    key, genero = new_key(), new_key()
    written = await client.store(key, genero=genero)
    await cluster.in_sync(client)
    followers = set(await cluster.followers(client))
    for headers in (session(written.index), LOCAL):
        answers = [await client.get(one(key), headers) for _ in range(6)]
        assert {answer.body for answer in answers} == {form(key, genero=genero)}
        assert {replica_of(answer) for answer in answers} == followers
        for path in (f"/API/ObtenerGeneros/{genero}", "/API/ObtenerTodosLosFormularios"):
            array = await client.get(path, headers)
            assert form(key, genero=genero) in array.body
            assert replica_of(array) in followers
            json.loads(array.body)


async def test_every_read_says_what_it_reflects(client: Client, cluster: Cluster) -> None:
    view = await cluster.in_sync(client)
    last = await client.last_index()
    absent = one(new_key())
    for headers in ({}, session(1), LOCAL):
        answer = await client.get(absent, headers)
        assert (answer.status, answer.body) == (404, ABSENT)
        assert answer.headers["X-Replicad-Index"] == str(last)
        level = headers.get("X-Replicad-Consistency", "strong")
        assert answer.headers["X-Replicad-Consistency"] == level
        staleness_ms = int(answer.headers["X-Replicad-Staleness-Ms"])
        assert staleness_ms >= 0
        if level == "strong":
            assert (staleness_ms, replica_of(answer)) == (0, view["leader"])


@pytest.mark.usefixtures("restored")
async def test_local_reads_need_no_leader(client: Client, cluster: Cluster) -> None:
    """Nor a majority: one replica is left."""
    key = new_key()
    await client.store(key)
    view = await cluster.in_sync(client)
    survivor = (await cluster.followers(client))[0]
    for name in (view["leader"], *(set(cluster.names) - {view["leader"], survivor})):
        await cluster.stop(name)
    answers = [await client.get(one(key), LOCAL) for _ in range(5)]
    assert {(a.status, a.body, replica_of(a)) for a in answers} == {(200, form(key), survivor)}
    behind = [int(answer.headers["X-Replicad-Staleness-Ms"]) for answer in answers]
    assert behind == sorted(behind)  # It knows that it hears nothing new.
    answer = await client.get(one(key), session(10**9))
    assert answer.status == 503
    assert answer.seconds <= DEADLINE_S + 1


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
async def test_local_reads_need_no_servers(client: Client, cluster: Cluster) -> None:
    key = new_key()
    written = await client.store(key)
    view = await cluster.in_sync(client)
    for name in ("rabbitmq", "zookeeper", view["leader"]):
        await cluster.stop(name)
    for headers in (LOCAL, session(written.index)):
        answer = await client.get(one(key), headers)
        assert (answer.status, answer.body) == (200, form(key))


async def test_what_became_of_a_write(client: Client) -> None:
    key, request = new_key(), f"pedido/{uuid.uuid4().hex}"
    path = f"/v1/requests/{quote(request, safe='')}"
    before = await client.get(path)
    assert (before.status, json.loads(before.body)) == (404, {"state": "unknown"})
    written = await client.post(form(key), {"Idempotency-Key": request})
    found = await client.get(path)
    outcome = json.loads(found.body)
    assert outcome.pop("time").endswith("Z")
    assert (found.status, outcome) == (
        200,
        {
            "state": "committed",
            "index": written.index,
            "epoch": int(written.headers["X-Replicad-Epoch"]),
            "digest": written.headers["X-Replicad-Digest"],
            "collection": "formularios",
            "key": key,
            "done": "i",
        },
    )
    # A request that was refused has stored nothing, and is in no log.
    refused = f"{request}-2"
    assert (await client.post(form(key), {"Idempotency-Key": refused})).status == 409
    assert (await client.get(f"/v1/requests/{quote(refused, safe='')}")).status == 404


async def failovers_of(client: Client) -> list[dict[str, Any]]:
    answer = await client.get("/v1/cluster/history")
    assert answer.status == 200
    failovers: list[dict[str, Any]] = json.loads(answer.body)["failovers"]
    return failovers


@pytest.mark.usefixtures("restored")
async def test_the_history_tells_of_a_killed_leader(client: Client, cluster: Cluster) -> None:
    before = await cluster.in_sync(client)
    await cluster.stop(before["leader"])
    key = new_key()
    answer = await client.store(key)

    async def is_told() -> bool:
        newest = (await failovers_of(client))[0]
        return str(newest["epoch"]) == answer.headers["X-Replicad-Epoch"]

    await until(is_told, DEADLINE_S)
    failovers = await failovers_of(client)
    epochs = [failover["epoch"] for failover in failovers]
    assert epochs == sorted(epochs, reverse=True)
    newest = failovers[0]
    assert newest["leader"] not in (None, before["leader"])
    assert newest["previous_leader"] == before["leader"]
    assert newest["previous_epoch"] == before["epoch"]
    assert newest["reason"]
    assert before["leader"] in newest["isr_before"]
    assert newest["leader"] in newest["isr_after"]
    assert newest["leaderless_ms"] >= 0
    assert newest["truncated"][newest["leader"]] == 0
    assert newest["truncated"][before["leader"]] is None  # It is dead, and cannot say.
    first = failovers[-1]
    assert (first["epoch"], first["index"], first["previous_leader"]) == (1, 1, None)


async def hand_over(client: Client, cluster: Cluster, to: str) -> None:
    """Make `to` lead, as `replicad transfer` does."""
    view = await client.view()
    # What a replica calls itself may be a name that only containers know.
    nodes = cluster.stack.description["nodes"]
    url = next(node["url"] for node in nodes if node["name"] == view["leader"])
    headers = {"X-Replicad-Epoch": str(view["epoch"])}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/internal/transfer", json={"to": to}, headers=headers) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def leads_later(client: Client, epoch: int) -> bool:
    return int((await client.view())["epoch"]) > epoch


async def test_reads_of_all_kinds_while_the_lead_moves(client: Client, cluster: Cluster) -> None:
    """A polite change of leaders fails no read, and none shows too little."""
    key = new_key()
    written = await client.store(key)
    kinds: tuple[dict[str, str], ...] = ({}, session(written.index), LOCAL)
    stopped = asyncio.Event()
    answers: list[Answer] = []

    async def read_on(headers: dict[str, str]) -> None:
        while not stopped.is_set():
            answers.append(await client.get(one(key), headers))

    async with asyncio.TaskGroup() as tasks:
        for headers in kinds:
            tasks.create_task(read_on(headers))
        for _ in range(3):
            before = await cluster.in_sync(client)
            await hand_over(client, cluster, (await cluster.followers(client))[0])
            await until(partial(leads_later, client, before["epoch"]), DEADLINE_S)
        stopped.set()
    levels = {answer.headers.get("X-Replicad-Consistency") for answer in answers}
    assert levels == {"strong", "session", "local"}
    for answer in answers:
        if int(answer.headers["X-Replicad-Index"]) >= written.index:
            assert (answer.status, answer.body) == (200, form(key))
        else:  # A follower that had not got so far says so.
            assert answer.headers["X-Replicad-Consistency"] == "local"
            assert (answer.status, answer.body) == (404, ABSENT)
