"""The feed of changes, for clients and for other systems, also while the leader is killed."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from hashlib import sha256

import aiohttp
import pytest

from tests.support.client import Client
from tests.support.cluster import Cluster
from tests.support.feeds import (
    EventReader,
    LongPoller,
    Seen,
    Writers,
    bound_queue,
    seen_in_log,
)
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
WARM = 60
"""Acknowledged writes after which a load is under way."""
CATCH_UP_S = 30.0


@pytest.fixture
async def session(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cluster.url) as session:
        yield session


@pytest.fixture
async def collection(session: aiohttp.ClientSession, cluster: Cluster, client: Client) -> str:
    """The name of a new collection."""
    await cluster.in_sync(client)
    name = f"cambios-{uuid.uuid4().hex[:8]}"
    async with session.put(f"/v1/collections/{name}", json={}) as response:
        assert response.status == 201, await response.text()
    return name


def second_gateway(cluster: Cluster) -> str:
    gateways = cluster.stack.description.get("gateways", [cluster.stack.description["gateway"]])
    url: str = gateways[-1]["url"]
    return url


async def test_feeds_tell_what_the_log_holds(
    cluster: Cluster, client: Client, collection: str
) -> None:
    poller, reader = (
        LongPoller(second_gateway(cluster), collection),
        EventReader(cluster.url, collection),
    )
    async with poller.running(), reader.running():
        async with Writers(cluster.url, collection).running() as writers:
            await eventually(lambda: writers.acknowledged >= WARM)
        await cluster.in_sync(client)
        expected = seen_in_log(cluster.data_dir(cluster.names[0]), collection)
        await eventually(lambda: len(poller.seen) >= len(expected) <= len(reader.seen), CATCH_UP_S)
    assert poller.seen == expected
    assert reader.seen == expected


async def test_from_now_on(session: aiohttp.ClientSession, collection: str) -> None:
    changes = f"/v1/collections/{collection}/changes"
    records = f"/v1/collections/{collection}/records"
    async with session.put(f"{records}/a", json={"id": "a"}) as response:
        assert response.status == 201
    query = {"since": "now", "timeout": "0"}
    async with session.get(changes, params=query) as response:
        assert (response.status, await response.read()) == (200, b"")
        since = response.headers["X-Replicad-Next"]
    async with session.delete(f"{records}/a") as response:
        receipt = await response.json()
    async with session.get(changes, params={"since": since}) as response:
        (line,) = (await response.read()).splitlines()
    told = json.loads(line)
    assert (told["operation"], told["id"], told["value"]) == ("delete", "a", None)
    assert (told["index"], told["digest"]) == (receipt["index"], receipt["digest"])


async def under_way(writers: Writers) -> None:
    """Wait until they have stored some more."""
    enough = writers.acknowledged + WARM
    await eventually(lambda: writers.acknowledged >= enough, CATCH_UP_S)


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
async def test_the_leader_is_killed_while_feeds_run(
    cluster: Cluster, client: Client, collection: str
) -> None:
    """Feeds end up as the log; other systems got every change at least once."""
    poller, reader = (
        LongPoller(second_gateway(cluster), collection),
        EventReader(cluster.url, collection),
    )
    amqp = cluster.stack.description["rabbitmq"]["amqp"]
    async with bound_queue(amqp, f"{collection}.*") as taken, poller.running(), reader.running():
        async with Writers(cluster.url, collection).running() as writers:
            for _ in range(2):
                await under_way(writers)
                victim = (await client.view())["leader"]
                await cluster.stop(victim)

                async def is_replaced(victim: str = victim) -> bool:
                    return (await client.view())["leader"] not in (None, victim)

                await until(is_replaced)
                await cluster.start(victim)
                await cluster.is_in_isr(client, victim)
            await under_way(writers)
        await cluster.assert_equal_logs(client)
        expected = seen_in_log(cluster.data_dir(cluster.names[0]), collection)
        await eventually(lambda: len(poller.seen) >= len(expected) <= len(reader.seen), CATCH_UP_S)
        await eventually(lambda: set(taken) >= set(expected), CATCH_UP_S)
    assert poller.seen == expected
    assert reader.seen == expected
    # Nothing is told that the log does not hold; what is told again is told in order.
    assert set(taken) == set(expected)
    assert list(dict.fromkeys(taken)) == expected


@pytest.mark.processes
async def test_a_queue_bound_while_others_write(
    session: aiohttp.ClientSession, cluster: Cluster, client: Client, collection: str
) -> None:
    """Whenever it is bound: all that is committed from then on comes, in order, none left out."""
    amqp = cluster.stack.description["rabbitmq"]["amqp"]
    path = f"/v1/collections/{collection}/records/mine"
    bound: list[tuple[tuple[int, int], tuple[int, int], list[Seen]]] = []
    async with Writers(cluster.url, collection).running():
        for number in range(30):
            async with bound_queue(amqp, f"{collection}.*") as taken:
                places = []
                for text in ("first", "last"):
                    async with session.put(path, json={"id": "mine", text: number}) as response:
                        assert response.status in (200, 201), await response.text()
                        places.append(((await response.json())["index"], 0))
                first, last = places
                await until_told(taken, last)
            bound.append((first, last, taken))
    await cluster.in_sync(client)
    log = seen_in_log(cluster.data_dir(cluster.names[0]), collection)
    for first, last, taken in bound:
        between = [seen for seen in taken if first <= seen.place <= last]
        assert between == [seen for seen in log if first <= seen.place <= last]


async def until_told(taken: list[Seen], place: tuple[int, int]) -> None:
    """Wait until this change has come."""
    await eventually(lambda: bool(taken) and taken[-1].place >= place, CATCH_UP_S)


@pytest.mark.processes
@pytest.mark.usefixtures("restored")
async def test_all_replicas_show_what_they_hold(
    session: aiohttp.ClientSession, cluster: Cluster, client: Client, collection: str
) -> None:
    path = f"/v1/collections/{collection}/records/a"
    headers = {"Content-Type": "application/json"}
    async with session.put(path, data=b'{"id": "a", "n": 1.0}', headers=headers) as response:
        index = (await response.json())["index"]
    held = {"version": index, "sha256": sha256(b'{"id":"a","n":1.0}').hexdigest()}
    async with session.get(path, params={"verify": "all"}) as response:
        answer = await response.json()
    replicas = answer["replicas"]
    assert (answer["agree"], sorted(replicas)) == (True, cluster.names)
    for each in replicas.values():
        assert each.pop("applied_index") >= index
        assert each == held
    victim = (await cluster.followers(client))[0]
    await cluster.stop(victim)
    async with session.get(path, params={"verify": "all"}) as response:
        answer = await response.json()
    assert (answer["agree"], answer["replicas"][victim]) == (False, {"error": "unreachable"})
