"""The exchange from which other systems learn of changes.

    replicad.<cluster>.changes      topic, durable; routing key <collection>.<operation>

It has a connection of its own, which is opened when there is something to publish: what waits here
for the broker's disk must not hold up replication.

Mostly nobody wants to know, and then to publish a change would cost as much as to replicate it. So
of all changes in one call the first with each routing key asks: it is published as `mandatory`, and
RabbitMQ returns it if it led to no queue; then the others with this key are left out. Nothing is
kept from a queue that was bound when one of them was committed: all of them are before the first
one asks, so it is still bound then, and the question is not returned.

Source: docs/protocol.md, "Changes for other systems".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from aiormq import PublishError
from aiormq.abc import AbstractChannel, AbstractConnection, ChannelFrame

from replicad.broker.change_frames import ChangeProperties, encode_change, routing_key_of
from replicad.broker.frames import Publishing
from replicad.broker.port import Published
from replicad.broker.rabbitmq_session import Names
from replicad.broker.rabbitmq_wire import answer, connect
from replicad.core.feed import LoggedChange
from replicad.errors import BrokerError

# Less than a millisecond of marshalling, after which everything else has its turn.
_WRITTEN_TOGETHER: Final = 128
# RabbitMQ keeps them in memory until they are committed.
_COMMITTED_TOGETHER: Final = 512


class RabbitChanges:
    """Publishes changes, and waits for RabbitMQ to confirm them. One caller at a time."""

    def __init__(self, url: str, names: Names) -> None:
        """Describe where to publish; nothing is connected yet."""
        self._url = url
        self._names = names
        self._stack = AsyncExitStack()
        self._publisher: Publisher | None = None

    async def publish(self, changes: Sequence[LoggedChange]) -> Published:
        """See `Broker.publish`."""
        try:
            if self._publisher is None:
                self._publisher = await self._open()
            return await publish_wanted(self._publisher, changes)
        except BrokerError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, if there is one; the next call opens another."""
        self._publisher = None
        await self._stack.aclose()

    async def _open(self) -> Publisher:
        connection = await connect(self._stack, self._url, self._names.connection("changes"))
        asking = await answer(connection.channel(publisher_confirms=True, on_return_raises=True))
        giving = await answer(connection.channel(publisher_confirms=False))
        await answer(giving.tx_select())
        await answer(
            giving.exchange_declare(self._names.changes, exchange_type="topic", durable=True)
        )
        return Publisher(self._names, connection, asking, giving)


async def publish_wanted(publisher: Publisher, changes: Iterable[LoggedChange]) -> Published:
    """Publish what is wanted of some changes, in their order.

    Raises:
        BrokerError: RabbitMQ may have taken none, some or all of them.
    """
    published = 0
    wanted: dict[str, bool] = {}
    # Of these two, one is empty.
    asking: dict[str, LoggedChange] = {}
    giving: list[LoggedChange] = []
    for change in changes:
        key = routing_key_of(change)
        if key in asking or (asking and wanted.get(key)):
            wanted |= await publisher.ask(asking)
            asking.clear()
        if key not in wanted:
            if giving:
                await publisher.give(giving)
                giving.clear()
            asking[key] = change
        elif wanted[key]:
            giving.append(change)
        else:
            continue
        published += 1
    if asking:
        wanted |= await publisher.ask(asking)
    elif giving:
        await publisher.give(giving)
    return Published(published, frozenset(key for key in wanted if not wanted[key]))


class Publisher:
    """A connection that is open, with a channel for those that ask and one for all others."""

    def __init__(
        self,
        names: Names,
        connection: AbstractConnection,
        asking: AbstractChannel,
        giving: AbstractChannel,
    ) -> None:
        """Take over: `asking` confirms, and raises what is returned; `giving` has transactions."""
        self._names = names
        self._connection = connection
        self._asking = asking
        self._giving = giving
        frame_bytes_max = connection.connection_tune.frame_max
        self._publishing = Publishing(giving.number, names.changes, frame_bytes_max)

    async def ask(self, changes: dict[str, LoggedChange]) -> dict[str, bool]:
        """Publish changes, a routing key each, in their order; tells which led to a queue.

        Raises:
            BrokerError: As `publish_wanted`.
        """
        answers = await answer(asyncio.gather(*map(self._is_wanted, changes.values())))
        return dict(zip(changes, answers, strict=True))

    async def _is_wanted(self, change: LoggedChange) -> bool:
        try:
            await self._asking.basic_publish(
                change.encode(),
                exchange=self._names.changes,
                routing_key=routing_key_of(change),
                properties=ChangeProperties(change, self._names.node),
                mandatory=True,
            )
        except PublishError:
            return False
        return True

    async def give(self, changes: Sequence[LoggedChange]) -> None:
        """Publish changes in their order; whether they lead to a queue is not asked.

        Raises:
            BrokerError: As `publish_wanted`.
        """
        for first in range(0, len(changes), _COMMITTED_TOGETHER):
            await answer(self._commit(changes[first : first + _COMMITTED_TOGETHER]))

    async def _commit(self, changes: Sequence[LoggedChange]) -> None:
        # A transaction, for it has one answer; it is confirmed when all are on disk.
        for first in range(0, len(changes), _WRITTEN_TOGETHER):
            together = changes[first : first + _WRITTEN_TOGETHER]
            frames = b"".join(
                encode_change(change, self._names.node, self._publishing) for change in together
            )
            written = self._giving.create_future()
            await self._connection.write_queue.put(ChannelFrame(frames, False, written))
            await written
        await self._giving.tx_commit()
