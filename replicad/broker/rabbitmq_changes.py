"""The exchange from which other systems learn of changes.

    replicad.<cluster>.changes      topic, durable; routing key <collection>.<operation>

It has a connection of its own, which is opened when there is something to publish: what waits here
for the broker's disk must not hold up replication.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiormq.abc import AbstractChannel

from replicad.broker.codec import encode_change
from replicad.broker.rabbitmq_session import Names, answer, connect
from replicad.core.feed import LoggedChange
from replicad.errors import BrokerError


class RabbitChanges:
    """Publishes changes, and waits for RabbitMQ to confirm them. One caller at a time."""

    def __init__(self, url: str, names: Names) -> None:
        """Describe where to publish; nothing is connected yet."""
        self._url = url
        self._names = names
        self._stack = AsyncExitStack()
        self._channel: AbstractChannel | None = None

    async def publish(self, changes: Sequence[LoggedChange]) -> None:
        """See `Broker.publish`."""
        try:
            if self._channel is None:
                self._channel = await self._open()
            await answer(asyncio.gather(*(self._give(self._channel, each) for each in changes)))
        except BrokerError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, if there is one; the next call opens another."""
        self._channel = None
        await self._stack.aclose()

    async def _open(self) -> AbstractChannel:
        connection = await connect(self._stack, self._url, f"replicad {self._names.node}: changes")
        channel = await answer(connection.channel(publisher_confirms=True))
        await answer(
            channel.exchange_declare(self._names.changes, exchange_type="topic", durable=True)
        )
        return channel

    async def _give(self, channel: AbstractChannel, change: LoggedChange) -> None:
        """Publish one change; those that are published together keep their order."""
        routing_key, properties, body = encode_change(change, self._names.node)
        await channel.basic_publish(
            body, exchange=self._names.changes, routing_key=routing_key, properties=properties
        )
