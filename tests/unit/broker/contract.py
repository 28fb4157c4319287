"""What every adapter of the port `Broker` must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from replicad.broker.port import Broker
from replicad.core.feed import LoggedChange
from replicad.core.messages import Ack, Append, Echo, Message, Point, Reject
from replicad.errors import BrokerError
from tests.support.waiting import eventually

POINT = Point(7, b"\x07" * 32)
LINES = '{"index":8,"value":{"nombres":"José"}}\n'.encode()
APPEND = Append(
    epoch=3,
    leader="n1",
    incarnation="abc",
    previous=POINT,
    count=1,
    lines=LINES,
    commit=POINT,
    last=8,
    round=5,
    acked={"n2": 4},
)
CHANGE = LoggedChange(
    index=8,
    position=0,
    is_last=True,
    epoch=3,
    time="2026-01-01T00:00:00.000Z",
    operation="insert",
    collection="forms",
    key="a",
    value=b'{"id":"a"}',
    digest="ab" * 32,
)
ACK = Ack(epoch=3, node="n2", disk_id="d2", matched=POINT, round=5)


class Received:
    """One node's side of a broker: all that it was told."""

    def __init__(self, node: str, broker: Broker) -> None:
        self.node = node
        self.broker = broker
        self.messages: list[Message] = []
        self.statuses: list[bool] = []

    async def start(self) -> None:
        await self.broker.start(self.messages.append, self.statuses.append)
        await self.wait_up()

    async def wait_up(self) -> None:
        await eventually(lambda: self.up, 30)

    @property
    def up(self) -> bool:
        return bool(self.statuses) and self.statuses[-1]


class Taken(Protocol):
    """Another system that wants all changes: the bodies that it was given, once it has begun."""

    bodies: list[bytes]

    async def begin(self) -> None: ...


class NewNode(Protocol):
    def __call__(self, node: str) -> Awaitable[Received]: ...


class BrokerContract:
    """Subclasses provide the fixtures.

    `new_node` starts a broker for a node by name, `taken` is another system.
    """

    async def test_is_up_after_start(self, new_node: NewNode) -> None:
        node = await new_node("n1")
        assert node.statuses == [True]

    async def test_message_to_one_node_reaches_only_that(self, new_node: NewNode) -> None:
        n1, n2, n3 = [await new_node(name) for name in ("n1", "n2", "n3")]
        n2.broker.send("n1", ACK)
        n1.broker.send("n2", APPEND)
        await eventually(lambda: n1.messages == [ACK] and n2.messages == [APPEND])
        assert n3.messages == []

    async def test_message_to_all_reaches_every_other_node(self, new_node: NewNode) -> None:
        n1, n2, n3 = [await new_node(name) for name in ("n1", "n2", "n3")]
        n1.broker.lead(True)
        n1.broker.send(None, APPEND)
        await eventually(lambda: n2.messages == n3.messages == [APPEND])

    async def test_leader_leaves_the_stream_and_joins_it_again(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        assert await gets_stream(n2, n1)
        for leading in (True, False):
            n1.broker.lead(leading)
            async with asyncio.timeout(10):  # The broker takes a moment to bind and unbind.
                while await gets_stream(n2, n1) == leading:
                    pass
            assert await gets_stream(n2, n1) != leading

    async def test_echo_returns_to_its_sender(self, new_node: NewNode) -> None:
        n1 = await new_node("n1")
        echo = Echo(epoch=3, incarnation="abc", sent_at=12.5)
        n1.broker.send("n1", echo)
        await eventually(lambda: n1.messages == [echo])

    async def test_order_is_kept(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        sent = [replace(APPEND, round=number, lines=LINES * 9, count=9) for number in range(2000)]
        for message in sent:
            n1.broker.send("n2", message)
        await eventually(lambda: len(n2.messages) == len(sent))
        assert n2.messages == sent

    async def test_message_to_nobody_is_dropped(self, new_node: NewNode) -> None:
        n1 = await new_node("n1")
        n1.broker.send("n9", Reject(epoch=4, node="n1"))
        n1.broker.send("n1", Reject(epoch=5, node="n1"))
        await eventually(lambda: n1.messages == [Reject(epoch=5, node="n1")])

    async def test_stopped_node_gets_and_sends_nothing(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        await n2.broker.stop()
        n1.broker.send("n2", APPEND)
        n2.broker.send("n1", ACK)
        n1.broker.send("n1", Reject(epoch=5, node="n1"))
        await eventually(lambda: n1.messages == [Reject(epoch=5, node="n1")])
        assert n2.messages == []

    async def test_a_probe_finds_who_is_gone(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        assert not await n1.broker.probe("n2")
        assert not await n1.broker.probe("n1")
        await n2.broker.stop()
        assert await n1.broker.probe("n2")
        assert await n1.broker.probe("never there")
        await new_node("n2")
        assert not await n1.broker.probe("n2")

    async def test_a_probe_is_no_message(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        await n1.broker.probe("n2")
        n1.broker.send("n2", ACK)
        await eventually(lambda: n2.messages == [ACK])

    async def test_who_is_not_connected_proves_nothing(self, new_node: NewNode) -> None:
        n1 = await new_node("n1")
        await n1.broker.stop()
        assert not await n1.broker.probe("n2")

    async def test_changes_are_taken_in_order(self, new_node: NewNode, taken: Taken) -> None:
        n1 = await new_node("n1")
        await taken.begin()
        changes = [replace(CHANGE, index=index, value=LINES * 9) for index in range(1, 200)]
        await n1.broker.publish(changes[:150])
        await n1.broker.publish(changes[150:])
        await eventually(lambda: len(taken.bodies) == len(changes))
        assert taken.bodies == [change.encode() for change in changes]

    async def test_who_is_stopped_publishes_nothing(self, new_node: NewNode) -> None:
        n1 = await new_node("n1")
        await n1.broker.stop()
        with pytest.raises(BrokerError):
            await n1.broker.publish([CHANGE])

    async def test_successor_of_a_stopped_node_gets_its_messages(self, new_node: NewNode) -> None:
        n1, n2 = [await new_node(name) for name in ("n1", "n2")]
        await n2.broker.stop()
        successor = await new_node("n2")
        n1.broker.send("n2", APPEND)
        await eventually(lambda: successor.messages == [APPEND])
        assert n2.messages == []


async def gets_stream(sender: Received, receiver: Received) -> bool:
    """Whether the receiver gets now what the sender sends to all."""
    count = len(receiver.messages)
    to_all, to_one = replace(APPEND, round=2 * count), replace(APPEND, round=2 * count + 1)
    sender.broker.send(None, to_all)
    sender.broker.send(receiver.node, to_one)
    await eventually(lambda: to_one in receiver.messages)
    return to_all in receiver.messages


async def started(make: Callable[[str], Broker], nodes: list[Received], node: str) -> Received:
    """Start a node's broker and keep it in `nodes`, to be stopped when the test ends."""
    received = Received(node, make(node))
    nodes.append(received)
    await received.start()
    return received
