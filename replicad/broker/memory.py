"""A message broker inside one process, for trying replicad out and for tests.

It delivers in order and loses nothing, except what is on its way to a node that goes away, as
RabbitMQ's exclusive queues do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from replicad.broker.port import Published
from replicad.core.feed import LoggedChange
from replicad.core.messages import Message
from replicad.errors import BrokerError


class MemoryExchange:
    """What the brokers of one process share: who is there.

    Attributes:
        on_changes: Called with changes that are published; nobody wants them at first.
    """

    def __init__(self) -> None:
        """Begin with nobody attached."""
        self.on_changes: Callable[[Sequence[LoggedChange]], None] = lambda _: None
        self._brokers: dict[str, MemoryBroker] = {}

    def attach(self, broker: MemoryBroker) -> None:
        """Deliver to this broker from now on what is sent to its node."""
        self._brokers[broker.node] = broker

    def detach(self, broker: MemoryBroker) -> None:
        """Stop that; a successor under the same name stays attached."""
        if self._brokers.get(broker.node) is broker:
            del self._brokers[broker.node]

    def receivers(self, sender: MemoryBroker, to: str | None) -> list[MemoryBroker]:
        """Who gets a message: the named node, or every other one that follows."""
        if to is None:
            others = (broker for broker in self._brokers.values() if broker is not sender)
            return [broker for broker in others if not broker.leading]
        receiver = self._brokers.get(to)
        return [] if receiver is None else [receiver]


class MemoryBroker:
    """The port `Broker` for one node of the process."""

    def __init__(self, exchange: MemoryExchange, node: str) -> None:
        """Make the broker of one run of `node`; a restarted node takes a new one."""
        self.node = node
        self.leading = False
        self._exchange = exchange
        self._on_message: Callable[[Message], None] | None = None

    async def start(
        self, on_message: Callable[[Message], None], on_status: Callable[[bool], None]
    ) -> None:
        """See `Broker.start`."""
        self._on_message = on_message
        self._exchange.attach(self)
        asyncio.get_running_loop().call_soon(on_status, True)

    def send(self, to: str | None, message: Message) -> None:
        """See `Broker.send`."""
        if self._on_message is None:
            return
        loop = asyncio.get_running_loop()
        for receiver in self._exchange.receivers(self, to):
            # Never called at once: the receiver may be the sender, in the middle of its step.
            loop.call_soon(receiver.deliver, message)

    async def probe(self, node: str) -> bool:
        """See `Broker.probe`."""
        return self._on_message is not None and not self._exchange.receivers(self, node)

    async def publish(self, changes: Sequence[LoggedChange]) -> Published:
        """See `Broker.publish`."""
        if self._on_message is None:
            raise BrokerError("this broker is not started, or was stopped")
        self._exchange.on_changes(changes)
        return Published(len(changes), frozenset())

    def deliver(self, message: Message) -> None:
        """Hand one message to the node, unless it is gone by now."""
        if self._on_message is not None:
            self._on_message(message)

    def lead(self, leading: bool) -> None:
        """See `Broker.lead`."""
        self.leading = leading

    async def stop(self) -> None:
        """See `Broker.stop`."""
        self.crash()

    def crash(self) -> None:
        """Be gone at once: nothing more is sent or received."""
        self._on_message = None
        self._exchange.detach(self)
