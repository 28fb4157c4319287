"""Two groups of replicas share one RabbitMQ and one ZooKeeper, and nothing of them mixes.

All names are the same in both but that of the cluster: of replicas, ids, idempotency keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import aiohttp
import pytest
from kazoo.client import KazooClient
from yarl import URL

from replicad.core.write import encode_write
from replicad.stack.record import CLUSTER
from tests.support.client import Client, Load, form
from tests.support.entries import put_of
from tests.support.groups import NODES, Group
from tests.support.logs import assert_chained, cluster_id, inserted_keys, log_bytes
from tests.support.stack import BACKENDS, Stack
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="needs servers to share")

OTHER = "other"
WARM = 50


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"), "native")
    stack.up()
    yield stack
    stack.down()


@pytest.fixture(scope="module")
def other(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with Group.up(OTHER, tmp_path_factory.mktemp("other"), stack.description) as group:
        asyncio.run(group.begin())
        group.await_ready()
        yield group


@pytest.fixture
async def one(stack: Stack) -> AsyncIterator[Client]:
    """A client of the stack's own group."""
    async with Client.open(stack.description["gateway"]["url"]) as client:
        yield client


@pytest.fixture
async def two(other: Group) -> AsyncIterator[Client]:
    """A client of the other group."""
    async with Client.open(other.url) as client:
        yield client


def data_dirs(stack: Stack, other: Group) -> dict[str, list[Path]]:
    """Of each group's replicas."""
    own = [Path(node["data_dir"]) for node in stack.description["nodes"]]
    return {CLUSTER: own, OTHER: [other.data_dir(name) for name in NODES]}


async def logs(directories: list[Path]) -> bytes:
    """The log of a group, once all its replicas have the same."""
    await eventually(lambda: len({log_bytes(each) for each in directories}) == 1)
    return log_bytes(directories[0])


@asynccontextmanager
async def told(amqp: str, exchange: str) -> AsyncIterator[list[bytes]]:
    """The bodies of all that an exchange is given meanwhile."""
    bodies: list[bytes] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        bodies.append(message.body)

    async with await aio_pika.connect(amqp) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        await queue.consume(take, no_ack=True)
        yield bodies


async def test_one_id_and_one_key_mean_something_else_in_each(one: Client, two: Client) -> None:
    headers = {"Idempotency-Key": "shared"}
    for client, here in ((one, 1), (two, 2)):
        answer = await client.post(form("shared", here=here), headers)
        assert answer.status == 200
        assert "Idempotency-Replayed" not in answer.headers
    assert await one.fetch("shared") == form("shared", here=1)
    assert await two.fetch("shared") == form("shared", here=2)


async def test_each_takes_its_own_load_only(
    stack: Stack, other: Group, one: Client, two: Client
) -> None:
    amqp = stack.description["rabbitmq"]["amqp"]
    async with (
        told(amqp, f"replicad.{OTHER}") as messages,
        Load.run(one, "uno") as first,
        Load.run(two, "dos") as second,
    ):
        await eventually(lambda: min(len(first.stored), len(second.stored)) >= WARM)
    first.assert_all_stored(within_s=10.0)
    second.assert_all_stored(within_s=10.0)
    assert any(b'"dos-' in body for body in messages)
    assert not any(b'"uno-' in body for body in messages)
    for client, stored, foreign in ((one, first.stored, "dos-"), (two, second.stored, "uno-")):
        ids = {each["id"] for each in await client.all_forms()}
        assert ids.issuperset(stored)
        assert not any(key.startswith(foreign) for key in ids)
    groups = data_dirs(stack, other)
    assert {cluster_id(each) for each in groups[CLUSTER]}.isdisjoint(
        cluster_id(each) for each in groups[OTHER]
    )
    for directories in groups.values():
        await logs(directories)
        assert_chained(directories[0])


async def test_a_failover_of_one_is_nothing_to_the_other(
    stack: Stack, other: Group, one: Client, two: Client
) -> None:
    before, theirs = await one.view(), await two.view()
    leader = theirs["leader"]
    async with Load.run(one, "calmo") as calm, Load.run(two, "movido") as moved:
        await eventually(lambda: min(len(calm.stored), len(moved.stored)) >= WARM)
        await asyncio.to_thread(other.kill, leader)

        async def succeeded() -> bool:
            view = await two.view()
            return view["leader"] not in (None, leader) and view["epoch"] > theirs["epoch"]

        await until(succeeded)
        after = len(calm.stored), len(moved.stored)
        await eventually(lambda: len(calm.stored) >= after[0] + WARM)
        await eventually(lambda: len(moved.stored) >= after[1] + WARM)
    calm.assert_all_stored(within_s=10.0)
    moved.assert_all_stored(within_s=10.0)
    now = await one.view()
    assert {name: now[name] for name in ("leader", "epoch", "isr")} == {
        name: before[name] for name in ("leader", "epoch", "isr")
    }
    other.start(leader)
    await asyncio.to_thread(other.await_ready)
    groups = data_dirs(stack, other)
    assert b'"movido-' not in await logs(groups[CLUSTER])
    assert set(moved.stored) <= set(inserted_keys(groups[OTHER][0]))


async def test_a_leader_of_the_other_takes_no_write_meant_for_this_one(
    two: Client,
) -> None:
    """As after an address has passed from one group to the other; their epochs may be equal."""
    theirs = await two.view()
    url = next(r["url"] for r in theirs["replicas"] if r["name"] == theirs["leader"])
    before = await two.last_index()
    headers = {"X-Replicad-Epoch": str(theirs["epoch"]), "X-Replicad-Leader": "of-another-group"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path, body in (
            ("writes", encode_write(put_of("ajeno", request="ajeno"))),
            ("gets", b'{"keys":[["formularios","ajeno"]]}'),
            ("requests", b'{"request":"ajeno"}'),
        ):
            async with session.post(f"{url}/internal/{path}", data=body) as answer:
                assert answer.status == 421, path
    assert await two.last_index() == before


async def test_every_name_on_the_servers_bears_the_groups(
    stack: Stack, other: Group, one: Client, two: Client
) -> None:
    await one.store("nombres")
    await two.store("nombres")
    await asyncio.to_thread(other.await_ready)
    management = stack.description["rabbitmq"]["management"]
    amqp = URL(stack.description["rabbitmq"]["amqp"])
    login = aiohttp.encode_basic_auth(amqp.user or "", amqp.password or "")
    prefixes = tuple(f"replicad.{name}" for name in (CLUSTER, OTHER))
    async with aiohttp.ClientSession(headers={"Authorization": login}) as session:

        async def names(kind: str) -> set[str]:
            async with session.get(f"{management}api/{kind}") as answer:
                return {
                    each.get("client_properties", each).get(
                        "connection_name" if kind == "connections" else "name"
                    )
                    for each in await answer.json()
                }

        queues = await names("queues")
        assert all(name.startswith(prefixes) for name in queues)
        exchanges = {name for name in await names("exchanges") if not _is_builtin(name)}
        kinds = ("", ".present", ".changes")
        assert exchanges == {f"{prefix}{kind}" for prefix in prefixes for kind in kinds}
        wanted = {
            f"replicad {group} {node}: {use}"
            for group in (CLUSTER, OTHER)
            for node in NODES
            for use in ("publishes", "consumes")
        }

        async def connected() -> bool:  # The management page lags by some seconds.
            return wanted <= await names("connections")

        await until(connected)
    zookeeper = KazooClient(stack.description["zookeeper"]["hosts"])
    await asyncio.to_thread(zookeeper.start)
    try:
        found = await asyncio.to_thread(zookeeper.get_children, "/replicad")
        assert sorted(found) == sorted([CLUSTER, OTHER])
    finally:
        await asyncio.to_thread(zookeeper.stop)
        await asyncio.to_thread(zookeeper.close)


def _is_builtin(exchange: str) -> bool:
    return not exchange or exchange.startswith("amq.")
