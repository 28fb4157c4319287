"""The exchange of changes on a real RabbitMQ: who is bound gets all, and nobody else costs much."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from replicad.broker.change_frames import routing_key_of
from replicad.broker.port import Published
from replicad.broker.rabbitmq_changes import RabbitChanges
from replicad.broker.rabbitmq_session import Names
from replicad.core.feed import LoggedChange
from replicad.errors import BrokerError
from tests.support.proxy import Proxy
from tests.support.servers import RabbitMQServer
from tests.support.waiting import eventually
from tests.unit.broker.contract import CHANGE

NAMES = Names("censo", "n1", "abc")
OPERATIONS = ("insert", "update", "delete")
WAIT_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def changes(server: RabbitMQServer) -> AsyncIterator[RabbitChanges]:
    """The publisher; its exchange is there."""
    changes = RabbitChanges(server.url, NAMES)
    await changes.publish([CHANGE])
    yield changes
    await changes.close()


@pytest.fixture
async def channel(server: RabbitMQServer) -> AsyncIterator[AbstractChannel]:
    """Another system's."""
    connection = await aio_pika.connect(server.url)
    async with connection:
        yield await connection.channel()


@dataclass(slots=True)
class Taken:
    """What a queue of another system was given.

    Attributes:
        messages: In the order of arrival.
    """

    messages: list[AbstractIncomingMessage] = field(default_factory=list)

    async def take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message.body for message in self.messages]

    @property
    def indexes(self) -> list[int]:
        return [int((message.message_id or "").partition(".")[0]) for message in self.messages]

    async def until(self, index: int) -> None:
        """Wait until this change has arrived."""
        await eventually(lambda: index in self.indexes, WAIT_S)


@asynccontextmanager
async def bound(channel: AbstractChannel, *keys: str) -> AsyncIterator[Taken]:
    """A queue that is bound when the block begins, and gone when it ends."""
    taken = Taken()
    queue = await channel.declare_queue(auto_delete=True)
    for key in keys:
        await queue.bind(NAMES.changes, key)
    consumer = await queue.consume(taken.take, no_ack=True)
    yield taken
    await queue.cancel(consumer)


def change_at(index: int, operation: str, collection: str = "forms") -> LoggedChange:
    value = None if operation == "delete" else b'{"id":"a","n":%d}' % index
    return replace(CHANGE, index=index, operation=operation, collection=collection, value=value)


def mixed(rng: random.Random, count: int, first: int = 1) -> list[LoggedChange]:
    collections = [f"c{number}" for number in range(rng.choice((1, 2, 40)))]
    return [
        change_at(index, rng.choice(OPERATIONS), rng.choice(collections))
        for index in range(first, first + count)
    ]


async def test_what_nobody_wants_is_asked_once(changes: RabbitChanges) -> None:
    many = [change_at(index, OPERATIONS[index % 3]) for index in range(3000)]
    assert await changes.publish(many) == Published(3, frozenset(map(routing_key_of, many)))


async def test_only_what_is_wanted_is_published(
    changes: RabbitChanges, channel: AbstractChannel
) -> None:
    many = [change_at(index, OPERATIONS[index % 3]) for index in range(3000)]
    async with bound(channel, "*.delete") as taken:
        unwanted = frozenset({"forms.insert", "forms.update"})
        assert await changes.publish(many) == Published(1002, unwanted)
        await eventually(lambda: len(taken.messages) == 1000, WAIT_S)
    assert taken.bodies == [each.encode() for each in many if each.operation == "delete"]


@pytest.mark.parametrize("seed", range(20))
async def test_each_queue_gets_what_it_wants_in_order(
    changes: RabbitChanges, channel: AbstractChannel, seed: int
) -> None:
    many = mixed(random.Random(seed), 700)  # noqa: S311 - reproducible
    async with (
        bound(channel, "#") as everything,
        bound(channel, "c0.*") as one,
        bound(channel, "*.update", "*.delete") as some,
    ):
        await changes.publish(many[:500])
        await changes.publish(many[500:])
        await eventually(lambda: len(everything.messages) == len(many), WAIT_S)
        of_one = [each.index for each in many if each.collection == "c0"]
        await eventually(lambda: len(one.messages) == len(of_one), WAIT_S)
        of_some = [each.index for each in many if each.operation != "insert"]
        await eventually(lambda: len(some.messages) == len(of_some), WAIT_S)
    assert everything.bodies == [each.encode() for each in many]
    assert (one.indexes, some.indexes) == (of_one, of_some)


@dataclass(slots=True)
class Committing:
    """Commits changes again and again, and publishes what was committed meanwhile.

    Attributes:
        log: All that are committed; their indexes count from 1.
    """

    changes: RabbitChanges
    rng: random.Random
    log: list[LoggedChange] = field(default_factory=list)
    _published: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._commit()), group.create_task(self._publish())]
            yield
            for task in tasks:
                task.cancel()

    async def more(self) -> None:
        """Wait until a few hundred more are committed."""
        enough = len(self.log) + 200
        await eventually(lambda: len(self.log) >= enough, WAIT_S)

    async def _commit(self) -> None:
        while True:
            if len(self.log) < self._published + 1000:
                self.log += mixed(self.rng, self.rng.randrange(1, 30), len(self.log) + 1)
            await asyncio.sleep(0.001)

    async def _publish(self) -> None:
        while True:
            committed = len(self.log)
            await self.changes.publish(self.log[self._published : committed])
            self._published = committed
            await asyncio.sleep(0)


@pytest.mark.parametrize("key", ["#", "c0.*", "*.delete"])
async def test_a_queue_gets_all_that_is_committed_after_its_binding(
    changes: RabbitChanges, channel: AbstractChannel, key: str
) -> None:
    """Whatever is going on when it is bound, and though nobody else is."""
    committing = Committing(changes, random.Random(key))  # noqa: S311 - reproducible
    log = committing.log
    wanted = re.compile(key.replace(".", r"\.").replace("*", "[a-z0-9]*").replace("#", ".*"))
    async with committing.running():
        for _ in range(50):
            async with bound(channel, key) as taken:
                first = len(log)
                await committing.more()
                due = [each.index for each in log[first:] if wanted.fullmatch(routing_key_of(each))]
                await taken.until(due[-1])
            begin = taken.indexes.index(due[0])
            assert taken.indexes[begin : begin + len(due)] == due
            assert taken.indexes == sorted(taken.indexes)


async def test_an_alternate_exchange_wants_what_it_leads_somewhere(
    server: RabbitMQServer, channel: AbstractChannel
) -> None:
    names = Names("alternate", "n1", "abc")
    await channel.declare_exchange("others", "fanout", durable=True)
    pattern, definition = names.changes.replace(".", r"\."), '{"alternate-exchange":"others"}'
    policy = ("set_policy", "--apply-to", "exchanges", "others", f"^{pattern}$", definition)
    await asyncio.to_thread(server.ctl, *policy)
    changes, taken = RabbitChanges(server.url, names), Taken()
    many = [change_at(index, "insert") for index in range(100)]
    try:
        assert (await changes.publish(many)).changes == 1
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("others")
        await queue.consume(taken.take, no_ack=True)
        assert (await changes.publish(many)).changes == 100
        await eventually(lambda: taken.indexes == list(range(100)), WAIT_S)
    finally:
        await changes.close()


async def test_a_full_queue_that_refuses_is_told(
    changes: RabbitChanges, channel: AbstractChannel
) -> None:
    """Nothing is taken for published that a queue refused; once it has room all of it comes."""
    many, taken = [change_at(index, "insert") for index in range(100)], Taken()
    queue = await channel.declare_queue(
        exclusive=True, arguments={"x-max-length": 10, "x-overflow": "reject-publish"}
    )
    await queue.bind(NAMES.changes, "#")
    for _ in range(2):
        with pytest.raises(BrokerError):
            await changes.publish(many)
    await queue.consume(taken.take, no_ack=True)
    for change in many:
        await changes.publish([change])
        await taken.until(change.index)
    assert list(dict.fromkeys(taken.indexes))[-100:] == list(range(100))


async def test_a_change_larger_than_a_frame(
    changes: RabbitChanges, channel: AbstractChannel
) -> None:
    large = b'{"id":"%b"}' % (b"a" * 1_000_000)
    many = [replace(change_at(index, "insert"), value=large) for index in range(5)]
    async with bound(channel, "#") as taken:
        assert (await changes.publish(many)).changes == 5
        await eventually(lambda: len(taken.messages) == 5, WAIT_S)
    assert taken.bodies == [each.encode() for each in many]


async def test_what_was_under_way_when_the_connection_broke_is_published_again(
    server: RabbitMQServer, channel: AbstractChannel, changes: RabbitChanges
) -> None:
    """Again from the beginning; so with what came twice left out it is in order."""
    proxy = Proxy(urlsplit(server.url).port or 0)
    await proxy.open()
    through = urlsplit(server.url)._replace(netloc=_at_port(server.url, proxy.port)).geturl()
    behind = RabbitChanges(through, NAMES)
    many = [change_at(index, OPERATIONS[index % 3]) for index in range(2000)]
    async with bound(channel, "#") as taken:
        await behind.publish(many[:1])
        publishing = asyncio.create_task(behind.publish(many))
        await eventually(lambda: len(taken.messages) > 100, WAIT_S)
        proxy.cut()
        with pytest.raises(BrokerError):
            await publishing
        await proxy.open()
        await behind.publish(many)
        await eventually(lambda: taken.indexes[-1] == 1999, WAIT_S)
    assert list(dict.fromkeys(taken.indexes)) == list(range(2000))
    await behind.close()
    proxy.cut()


def _at_port(url: str, port: int) -> str:
    return f"{urlsplit(url).netloc.rpartition(':')[0]}:{port}"
