"""What the daemon needs of a message broker. Adapters: `rabbitmq.py`, `memory.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from replicad.core.feed import LoggedChange
from replicad.core.messages import Message


class Published(NamedTuple):
    """What became of changes that were to be published.

    Attributes:
        changes: How many went to the broker; some of them only asked whether anybody wants them.
        unwanted: Routing keys, `<collection>.<operation>`, of which nobody wants any change that
            was committed before these were published.
    """

    changes: int
    unwanted: frozenset[str]


class Broker(Protocol):
    """Carries messages between replicas; may lose, double or delay any of them.

    Messages that one sender sends to one receiver arrive in order, or not at all, while no
    connection breaks. All callbacks run on the event loop's thread.
    """

    async def start(
        self, on_message: Callable[[Message], None], on_status: Callable[[bool], None]
    ) -> None:
        """Connect, and keep connecting again whenever the connection is lost.

        Args:
            on_message: Called with each message from this node's two queues, in order.
            on_status: Called with True when messages can be sent and received (both queues are
                bound), with False when they cannot (a connection is lost or blocked).
        """

    def send(self, to: str | None, message: Message) -> None:
        """Hand over one message, to a node by name or (None) to every other replica's log queue.

        Never blocks and never raises: while the broker is away the message is dropped. When it
        returns the message is on its way, unless the broker or the network is slower than we
        are. Append goes to log queues; all others go to the named node's ack queue.
        """

    async def probe(self, node: str) -> bool:
        """Find out whether anybody reads the node's ack queue.

        Returns:
            True when the broker has proved that nobody does: the node's process has ended, or its
            connection was lost. False proves nothing: somebody does, or there was no answer.
        """

    async def publish(self, changes: Sequence[LoggedChange]) -> Published:
        """Give changes to whoever else wants to know of them, in this order.

        Returns when the broker has taken charge of all that are wanted. Who says so before a
        change is committed gets it; so all of them must be when this is called. One call at a
        time.

        Raises:
            BrokerError: It may have taken none, some or all of them.
        """

    def lead(self, leading: bool) -> None:
        """Tell whether this node leads: a leader's log queue need not get its own stream."""

    async def stop(self) -> None:
        """Close the connections; what was handed over and not yet written may be lost."""
