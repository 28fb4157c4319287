"""Messages of the two floors: through aiormq, or past it as replicas do it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, Protocol

import aiormq
from aiormq.abc import AbstractChannel, ConsumerCallback, DeliveredMessage

from replicad.broker.frames import Content, Publishing
from replicad.broker.rabbitmq_wire import Wire, connect

_EXCHANGE: Final = "floor"

Receive = Callable[[bytes], tuple[str, bytes] | None]
"""Takes a message; the answer to it, if there is one: its routing key and itself."""


class Messages(Protocol):
    """A connection that publishes."""

    async def send(self, key: str, body: bytes) -> None:
        """Send to whoever consumes `key`; the kernel has it afterwards."""


async def open_messages(amqp: str, key: str, receive: Receive, *, lowered: bool) -> Messages:
    """Consume what is sent to `key`, on a connection of its own, for good."""
    kind: type[_ByLibrary] | type[_Lowered] = _Lowered if lowered else _ByLibrary
    return await kind.open(amqp, key, receive)


class _ByLibrary:
    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    @classmethod
    async def open(cls, amqp: str, key: str, receive: Receive) -> Messages:
        publishing, consuming = await aiormq.connect(amqp), await aiormq.connect(amqp)
        messages = cls(await publishing.channel(publisher_confirms=False))

        async def take(message: DeliveredMessage) -> None:
            answer = receive(message.body)
            if answer is not None:
                await messages.send(*answer)

        await _consume(await consuming.channel(publisher_confirms=False), key, take)
        return messages

    async def send(self, key: str, body: bytes) -> None:
        await self._channel.basic_publish(body, exchange=_EXCHANGE, routing_key=key)


class _Lowered:
    def __init__(self, wire: Wire, frames: Publishing) -> None:
        self._wire = wire
        self._frames = frames

    @classmethod
    async def open(cls, amqp: str, key: str, receive: Receive) -> Messages:
        stack, wire = AsyncExitStack(), Wire()
        publishing = await connect(stack, amqp, "publishes", wire)
        channel = await publishing.channel(publisher_confirms=False)
        frame_bytes_max = publishing.connection_tune.frame_max
        messages = cls(wire, Publishing(channel.number, _EXCHANGE, frame_bytes_max))

        def take(content: Content) -> None:
            answer = receive(content.body)
            if answer is not None:
                messages.write(*answer)

        consuming = await connect(stack, amqp, "consumes", Wire(take))
        await _consume(await consuming.channel(publisher_confirms=False), key, _never_called)
        return messages

    def write(self, key: str, body: bytes) -> None:
        self._wire.transport.write(self._frames.encode(key, Content("", "", b"", body)))

    async def send(self, key: str, body: bytes) -> None:
        self.write(key, body)


async def _never_called(_message: DeliveredMessage) -> None:
    """Deliveries do not reach aiormq."""


async def _consume(channel: AbstractChannel, key: str, callback: ConsumerCallback) -> None:
    await channel.exchange_declare(_EXCHANGE, exchange_type="topic")
    queue = (await channel.queue_declare(exclusive=True)).queue or ""
    await channel.queue_bind(queue, _EXCHANGE, key)
    await channel.basic_consume(queue, callback, no_ack=True)
