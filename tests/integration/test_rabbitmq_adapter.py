"""The RabbitMQ adapter against a real server."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial

import aio_pika
import orjson
import pytest
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from pamqp.common import FieldValue

from replicad.broker.codec import encode
from replicad.broker.rabbitmq import RabbitBroker
from replicad.core.messages import Append, Message
from replicad.errors import BrokerError
from tests.support.servers import RabbitMQServer
from tests.support.waiting import eventually
from tests.unit.broker.contract import (
    ACK,
    APPEND,
    CHANGE,
    LINES,
    BrokerContract,
    NewNode,
    Received,
    started,
)

CLUSTER = "censo"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQServer]:
    server = RabbitMQServer(tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def new_node(server: RabbitMQServer) -> AsyncIterator[NewNode]:
    nodes: list[Received] = []
    yield partial(started, lambda node: RabbitBroker(server.url, CLUSTER, node, "abc"), nodes)
    for node in nodes:
        await node.broker.stop()


class RabbitTaken:
    """Another system with a durable queue of its own, bound to everything."""

    def __init__(self, url: str) -> None:
        self.bodies: list[bytes] = []
        self.messages: list[AbstractIncomingMessage] = []
        self._url = url
        self._connection: AbstractConnection | None = None

    async def begin(self) -> None:
        self._connection = await aio_pika.connect(self._url)
        channel = await self._connection.channel()
        exchange = await channel.declare_exchange(
            f"replicad.{CLUSTER}.changes", "topic", durable=True
        )
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        await queue.consume(self._take, no_ack=True)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self.messages.append(message)
        self.bodies.append(message.body)

    async def end(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@pytest.fixture
async def taken(server: RabbitMQServer) -> AsyncIterator[RabbitTaken]:
    taken = RabbitTaken(server.url)
    yield taken
    await taken.end()


class TestRabbitBroker(BrokerContract):
    """The contract, on the real thing."""


async def test_a_change_says_where_it_stands(new_node: NewNode, taken: RabbitTaken) -> None:
    n1 = await new_node("n1")
    await taken.begin()
    await n1.broker.publish([CHANGE])
    await eventually(lambda: bool(taken.messages))
    (message,) = taken.messages
    assert message.routing_key == "forms.insert"
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert (message.message_id, message.app_id) == ("8.0", "n1")
    assert (message.headers["index"], message.headers["position"]) == (8, 0)


async def test_publishing_goes_on_after_a_restart(
    server: RabbitMQServer, new_node: NewNode, taken: RabbitTaken
) -> None:
    n1 = await new_node("n1")
    await n1.broker.publish([CHANGE])
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    with pytest.raises(BrokerError):
        await n1.broker.publish([CHANGE])
    await asyncio.to_thread(server.start)
    await taken.begin()  # The exchange is durable.
    await n1.broker.publish([CHANGE])
    await eventually(lambda: taken.bodies == [CHANGE.encode()])


async def test_queues_bear_telling_names_and_vanish(
    server: RabbitMQServer, new_node: NewNode
) -> None:
    n1 = await new_node("n1")
    assert await asyncio.to_thread(server.queues) == [
        "replicad.censo.n1.acks.abc",
        "replicad.censo.n1.log.abc",
    ]
    await n1.broker.stop()
    assert await asyncio.to_thread(server.queues) == []


async def test_a_tap_does_not_hide_who_is_gone(server: RabbitMQServer, new_node: NewNode) -> None:
    """Somebody who watches all messages must not make every probe look delivered."""
    n1 = await new_node("n1")
    connection = await aio_pika.connect(server.url)
    try:
        channel = await connection.channel()
        tap = await channel.declare_queue("tap", exclusive=True)
        await tap.bind("replicad.censo", "#")
        assert await n1.broker.probe("n2")
    finally:
        await connection.close()


async def test_killed_process_leaves_no_queue(server: RabbitMQServer) -> None:
    process = await _node_in_a_process(server.url)
    try:
        queues = await asyncio.to_thread(server.queues)
        assert queues == ["replicad.censo.n7.acks.abc", "replicad.censo.n7.log.abc"]
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    while await asyncio.to_thread(server.queues):
        pass


_PROGRAM = """
import asyncio, sys
from replicad.broker.rabbitmq import RabbitBroker
async def main():
    broker = RabbitBroker(sys.argv[1], "censo", "n7", "abc")
    await broker.start(print, lambda up: print("up", flush=True))
    await broker.failed
asyncio.run(main())
"""


async def _node_in_a_process(url: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while (await process.stdout.readline()) != b"up\n":
            pass
    return process


async def test_connections_bear_telling_names(server: RabbitMQServer, new_node: NewNode) -> None:
    await new_node("n1")
    listed = await asyncio.to_thread(server.ctl, "list_connections", "client_properties")
    assert f"replicad {CLUSTER} n1: publishes" in listed
    assert f"replicad {CLUSTER} n1: consumes" in listed


async def test_tap_sees_the_log_lines(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        tap = await channel.declare_queue(exclusive=True)
        await tap.bind(f"replicad.{CLUSTER}", "#")
        n1.broker.send(None, APPEND)
        n1.broker.send("n1", ACK)
        seen = {}
        async with tap.iterator(timeout=10) as messages:
            async for message in messages:
                await message.ack()
                seen[message.routing_key] = message
                if len(seen) == 2:
                    break
    entries, ack = seen["log.all"], seen["acks.n1"]
    assert entries.body == LINES
    assert entries.content_type == "application/x-ndjson"
    assert (entries.type, entries.app_id) == ("append", "n1")
    assert orjson.loads(str(entries.headers["fields"]))["previous-index"] == 7
    assert (ack.type, ack.content_type) == ("ack", "application/json")


async def test_malformed_message_is_dropped(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"replicad.{CLUSTER}")
        for garbage in (b"", b"{", b"\xff"):
            await exchange.publish(aio_pika.Message(garbage, type="ack"), "acks.n1")
        await exchange.publish(aio_pika.Message(LINES), "log.n1")
    n1.broker.send("n1", ACK)
    await eventually(lambda: n1.messages == [ACK])
    assert n1.statuses == [True]


@pytest.mark.parametrize("number", [1, 2**31 - 1, 2**31, 2**32, 2**63 - 1])
async def test_large_numbers_survive(new_node: NewNode, number: int) -> None:
    n1 = await new_node("n1")
    message = Append(
        number, "n1", "abc", APPEND.previous, 0, b"", APPEND.commit, number, number, {}
    )
    n1.broker.send("n1", message)
    await eventually(lambda: n1.messages == [message])


async def test_line_of_the_greatest_size_survives(new_node: NewNode) -> None:
    n1 = await new_node("n1")
    line = b"x" * (16 * 1024 * 1024 - 1) + b"\n"
    message = Append(3, "n1", "abc", APPEND.previous, 1, line, APPEND.commit, 8, 1, {})
    n1.broker.send("n1", message)
    await eventually(lambda: n1.messages == [message])


async def test_deleted_queue_is_made_anew(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")
    # Not over AMQP, where an exclusive queue is nobody else's to delete.
    name = '<<"replicad.censo.n1.log.abc">>'
    await asyncio.to_thread(
        server.ctl,
        "eval",
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, {name})), '
        'rabbit_amqqueue:delete(Q, false, false, <<"test">>).',
    )
    await eventually(lambda: n1.statuses == [True, False, True])
    n1.broker.send("n1", APPEND)
    await eventually(lambda: n1.messages == [APPEND])


async def test_restarted_server_is_found_again(server: RabbitMQServer, new_node: NewNode) -> None:
    n1, n2 = [await new_node(name) for name in ("n1", "n2")]
    n1.broker.lead(True)
    await asyncio.to_thread(server.stop)
    await eventually(lambda: n1.statuses == n2.statuses == [True, False])
    n1.broker.send(None, ACK)
    await asyncio.to_thread(server.start)
    await n1.wait_up()
    await n2.wait_up()
    n1.broker.send(None, APPEND)
    n2.broker.send("n1", ACK)
    await eventually(lambda: n1.messages == [ACK] and n2.messages == [APPEND])


async def test_killed_server_is_noticed_at_once(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    try:
        await eventually(lambda: n1.statuses == [True, False], 1)
    finally:
        await asyncio.to_thread(server.start)
    await n1.wait_up()


async def test_frozen_server_is_noticed_by_a_write(
    server: RabbitMQServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    n1 = await new_node("n1")
    monkeypatch.setattr("replicad.broker.rabbitmq_session.CALL_TIMEOUT_S", 0.5)
    line = b"x" * (16 * 1024 * 1024 - 1) + b"\n"  # More than the kernel takes by itself.
    with server.frozen():
        n1.broker.send("n1", replace(APPEND, lines=line))
        await eventually(lambda: n1.statuses == [True, False], 5)
    await n1.wait_up()
    n1.broker.send("n1", ACK)
    await eventually(lambda: ACK in n1.messages)


async def test_stop_is_quick_while_the_server_is_frozen(
    server: RabbitMQServer, new_node: NewNode
) -> None:
    n1 = await new_node("n1")
    with server.frozen():
        async with asyncio.timeout(1.2):
            await n1.broker.stop()


async def test_memory_alarm_is_reported(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")

    def down() -> bool:
        n1.broker.send("n1", ACK)  # The broker blocks a connection when it publishes.
        return not n1.up

    await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        await eventually(down)
        n1.broker.send("n1", APPEND)
    finally:
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")
    await n1.wait_up()
    assert n1.statuses == [True, False, True]
    assert APPEND not in n1.messages
    n1.broker.send("n1", APPEND)
    await eventually(lambda: APPEND in n1.messages)


async def test_stop_is_quick_under_an_alarm(server: RabbitMQServer, new_node: NewNode) -> None:
    n1 = await new_node("n1")

    def down() -> bool:
        n1.broker.send("n1", ACK)
        return not n1.up

    await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        await eventually(down)
        async with asyncio.timeout(1.2):
            await n1.broker.stop()
    finally:
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")


async def test_too_much_waiting_ends_the_session(
    server: RabbitMQServer, new_node: NewNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicad.broker.rabbitmq_session.WAITING_BYTES_MAX", 2**24)
    n1 = await new_node("n1")
    lines = b"x" * (2**24 - 1) + b"\n"
    with server.frozen():
        for _ in range(3):  # One may go to the kernel.
            n1.broker.send("n1", replace(APPEND, lines=lines))
        await eventually(lambda: n1.statuses == [True, False])
    await n1.wait_up()


async def test_what_others_publish_is_read_too(server: RabbitMQServer, new_node: NewNode) -> None:
    """A message that somebody took, and published again with properties of his own."""
    n1 = await new_node("n1")
    sent = encode(APPEND)
    headers: dict[str, FieldValue] = {
        "before": [1, {"a": None}],
        "fields": sent.fields.decode(),
        "z": True,
    }
    message = aio_pika.Message(
        sent.body,
        headers=headers,
        type=sent.type,
        priority=3,
        timestamp=1,
        reply_to="me",
        expiration=60,
        correlation_id="ñ",
        user_id="replicad",
        content_encoding="utf-8",
    )
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"replicad.{CLUSTER}")
        await exchange.publish(message, "log.n1")
    await eventually(lambda: n1.messages == [APPEND])


async def test_failing_callback_surfaces(server: RabbitMQServer) -> None:
    broker = RabbitBroker(server.url, CLUSTER, "n1", "abc")
    statuses: list[bool] = []

    def fail(message: Message) -> None:
        raise ArithmeticError(message)

    await broker.start(fail, statuses.append)
    await eventually(lambda: statuses == [True])
    broker.send("n1", ACK)
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(5):
            await broker.failed
    assert raised.group_contains(ArithmeticError)
    await broker.stop()


async def test_absent_server_is_waited_for(server: RabbitMQServer) -> None:
    await asyncio.to_thread(server.stop)
    broker = RabbitBroker(server.url, CLUSTER, "n1", "abc")
    node = Received("n1", broker)
    try:
        await broker.start(node.messages.append, node.statuses.append)
        broker.send("n1", ACK)
        assert node.statuses == []
    finally:
        await asyncio.to_thread(server.start)
    await node.wait_up()
    assert node.statuses == [True]
    await broker.stop()
