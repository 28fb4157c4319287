"""One pair of connections to RabbitMQ, from opening to loss.

Publishing and consuming have a connection each: the broker stops reading from a connection that
publishes when it runs out of memory or disk, and that must not silence what it sends to us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from aiormq import PublishError
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, DeliveredMessage

from replicad.broker.codec import PROBE, decode, encode_probe
from replicad.broker.frames import Content, Publishing
from replicad.broker.rabbitmq_wire import CALL_TIMEOUT_S, Wire, answer, connect
from replicad.core.messages import Message
from replicad.errors import BrokerError, MalformedMessageError

PROBE_TIMEOUT_S = 0.5
# How often a session looks whether it is closed, blocked or stuck.
WATCH_INTERVAL_S = 0.05
WAITING_BYTES_MAX = 256 * 1024 * 1024
# Exclusive queues can be neither quorum queues nor streams, whatever the virtual host's default.
_QUEUE_ARGUMENTS: ArgumentsType = {"x-queue-type": "classic"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Names:
    """What one run of one replica calls its things on the broker."""

    cluster: str
    node: str
    incarnation: str

    @property
    def exchange(self) -> str:
        """The cluster's one exchange."""
        return f"replicad.{self.cluster}"

    @property
    def presence(self) -> str:
        """The exchange that leads to each ack queue by its replica's name, and nowhere else.

        Only probes go there: a person's tap on the other one would take them for read.
        """
        return f"{self.exchange}.present"

    @property
    def changes(self) -> str:
        """The exchange from which other systems learn of changes."""
        return f"{self.exchange}.changes"

    def connection(self, use: str) -> str:
        """What the management page calls a connection that is there for `use`."""
        return f"replicad {self.cluster} {self.node}: {use}"

    def queue(self, kind: str, session: int) -> str:
        """A queue of this run: `kind` is log or acks.

        After a quick reconnect the broker may still hold the exclusive queues of the session
        before, so each session has names of its own.
        """
        again = "" if session == 1 else f"-{session}"
        return f"replicad.{self.cluster}.{self.node}.{kind}.{self.incarnation}{again}"


async def open_session(
    stack: AsyncExitStack,
    url: str,
    names: Names,
    number: int,
    on_message: Callable[[Message], None],
    *,
    follow_all: bool,
) -> RabbitSession:
    """Connect twice, declare what is needed and begin to consume; `stack` closes it all.

    Raises:
        BrokerError: RabbitMQ refused, or did not answer in time.
    """
    incoming = Incoming(on_message)
    wire = Wire()
    publishing = await connect(stack, url, names.connection("publishes"), wire)
    consuming = await connect(stack, url, names.connection("consumes"), Wire(incoming.take))
    stack.callback(incoming.end)  # The first thing to happen when the stack unwinds.
    publisher = await answer(publishing.channel(publisher_confirms=False))
    consumer = await answer(consuming.channel(publisher_confirms=False))
    # With confirms: without them aiormq only logs a message that was returned.
    prober = await answer(publishing.channel(publisher_confirms=True, on_return_raises=True))
    await answer(consumer.exchange_declare(names.exchange, exchange_type="topic", durable=True))
    await answer(consumer.exchange_declare(names.presence, exchange_type="direct", durable=True))
    session = RabbitSession(
        names, publishing, consuming, publisher, consumer, prober, wire.transport, incoming
    )
    await session.consume(number, follow_all=follow_all)
    return session


class Incoming:
    """Decodes what arrives and hands it on, while the bytes are still in the socket's callback."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        """Hand messages to `on_message`, until it raises."""
        self._on_message = on_message
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def fail(self) -> None:
        """Raise what the callback raised, when it does."""
        await self._failed

    def end(self) -> None:
        """Hand on nothing more."""
        self._failed.cancel()

    def take(self, content: Content) -> None:
        """Handle one message; never raises."""
        if content.type == PROBE or self._failed.done():
            return
        try:
            message = decode(content)
        except MalformedMessageError as error:
            _log.warning("message dropped", sender=content.app_id, reason=str(error))
            return
        try:
            self._on_message(message)
        except BaseException as error:  # Here nobody would see it.
            self._failed.set_exception(error)


class RabbitSession:
    """Two connections in use. All methods belong to the event loop's thread."""

    def __init__(
        self,
        names: Names,
        publishing: AbstractConnection,
        consuming: AbstractConnection,
        publisher: AbstractChannel,
        consumer: AbstractChannel,
        prober: AbstractChannel,
        outgoing: asyncio.Transport,
        incoming: Incoming,
    ) -> None:
        """Take over what is open; `outgoing` is the transport of the connection that publishes."""
        self._names = names
        self._publishing = publishing
        self._consumer = consumer
        self._prober = prober
        self._closable = (publishing, consuming, publisher, consumer, prober)
        self._outgoing = outgoing
        self._frames = Publishing(
            publisher.number, names.exchange, publishing.connection_tune.frame_max
        )
        self._incoming = incoming
        self._overflowed = False
        self._written_bytes = 0
        self._taken_bytes = 0
        self._taken_at = asyncio.get_running_loop().time()
        self._published = 0
        self._cancelled_by_broker = False
        self._follow_all = True
        self._binding_due = asyncio.Event()

    async def consume(self, number: int, *, follow_all: bool) -> None:
        """Declare, bind and consume this session's two queues.

        Raises:
            BrokerError: RabbitMQ refused, or did not answer in time.
        """
        self._consumer.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)
        self._follow_all = follow_all
        self._log_queue = await self._declare("log", number)
        if follow_all:
            await self._bind(self._log_queue, "log.all")
        acks_queue = await self._declare("acks", number)
        await answer(self._consumer.queue_bind(acks_queue, self._names.presence, self._names.node))
        for queue in (self._log_queue, acks_queue):
            # No acknowledgements to the broker: the protocol's own are end to end.
            await answer(self._consumer.basic_consume(queue, _never_called, no_ack=True))

    async def _declare(self, kind: str, number: int) -> str:
        queue = self._names.queue(kind, number)
        await answer(
            self._consumer.queue_declare(
                queue, exclusive=True, auto_delete=True, arguments=_QUEUE_ARGUMENTS
            )
        )
        await self._bind(queue, f"{kind}.{self._names.node}")
        return queue

    async def _bind(self, queue: str, key: str) -> None:
        await answer(self._consumer.queue_bind(queue, self._names.exchange, key))

    def send(self, routing_key: str, content: Content) -> None:
        """Write one message to the socket; the session ends once too much waits for the kernel."""
        if self._overflowed or self._outgoing.is_closing():
            return
        kind, content_type, fields, body, *_ = content
        signed = Content(kind, content_type, fields, body, self._next_id(), self._names.node)
        frames = self._frames.encode(routing_key, signed)
        self._outgoing.write(frames)
        self._written_bytes += len(frames)
        self._overflowed = self._outgoing.get_write_buffer_size() > WAITING_BYTES_MAX

    def _next_id(self) -> str:
        # For people who trace a message. Of a probe it must be unique: aiormq tells by it which
        # message was returned.
        self._published += 1
        return f"{self._names.incarnation}-{self._published}"

    async def probe(self, node: str) -> bool:
        """Whether the broker has proved that nobody reads the node's ack queue."""
        properties, body = encode_probe(self._names.node, self._next_id())
        publishing = self._prober.basic_publish(
            body,
            exchange=self._names.presence,
            routing_key=node,
            properties=properties,
            mandatory=True,
        )
        try:
            await answer(publishing, PROBE_TIMEOUT_S)
        except BrokerError as error:
            # Returned, or else no answer; if the session is lost `_watch` sees it.
            return isinstance(error.__cause__, PublishError)
        return False

    def follow_all(self, following: bool) -> None:
        """Tell whether the log queue is to get what goes to all replicas."""
        self._follow_all = following
        self._binding_due.set()

    async def run(self, on_status: Callable[[bool], None]) -> None:
        """Carry messages until the session is lost.

        Args:
            on_status: Called with False when the broker stops reading what we publish, because
                it is short of memory or disk, and with True when it goes on.

        Raises:
            ExceptionGroup: Of BrokerError when the session is lost; of anything else that a
                callback raised.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._incoming.fail(), name="rabbitmq receiver")
            group.create_task(self._keep_bound(), name="rabbitmq binding")
            group.create_task(self._watch(on_status), name="rabbitmq watch")

    async def _keep_bound(self) -> None:
        bound: bool | None = None  # Unknown at first; to bind or unbind again does no harm.
        while True:
            await self._binding_due.wait()
            self._binding_due.clear()
            wanted = self._follow_all
            if wanted == bound:
                continue
            if wanted:
                await self._bind(self._log_queue, "log.all")
            else:
                await answer(
                    self._consumer.queue_unbind(self._log_queue, self._names.exchange, "log.all")
                )
            bound = wanted

    async def _watch(self, on_status: Callable[[bool], None]) -> None:
        was_blocked = False
        while True:
            self._check_open()
            blocked = await _is_blocked(self._publishing)
            if blocked != was_blocked:
                was_blocked = blocked
                on_status(not blocked)
            self._check_progress(blocked)
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _check_open(self) -> None:
        # Asked, not awaited: when aiormq closes it may end what waits as if it were cancelled.
        if any(part.is_closed for part in self._closable):
            raise BrokerError("the connection was closed")
        if self._cancelled_by_broker:
            raise BrokerError("a queue was deleted")
        if self._overflowed:
            raise BrokerError(f"more than {WAITING_BYTES_MAX} bytes were waiting to be sent")

    def _check_progress(self, blocked: bool) -> None:
        now = asyncio.get_running_loop().time()
        waiting_bytes = self._outgoing.get_write_buffer_size()
        taken_bytes = self._written_bytes - waiting_bytes
        if blocked or waiting_bytes == 0 or taken_bytes > self._taken_bytes:
            self._taken_bytes = taken_bytes
            self._taken_at = now
        elif now - self._taken_at > CALL_TIMEOUT_S:
            raise BrokerError(f"nothing that we sent was taken within {CALL_TIMEOUT_S} s")

    def _on_consumer_cancelled(self, _: object) -> None:
        self._cancelled_by_broker = True


async def _never_called(_: DeliveredMessage) -> None:
    """What aiormq is to do with deliveries, of which it sees none."""


async def _is_blocked(connection: AbstractConnection) -> bool:
    """Whether the broker said Connection.Blocked.

    aiormq has no callback for it and keeps it private, except that `ready()` waits while the
    connection is blocked, and returns without waiting when it is not.
    """
    try:
        async with asyncio.timeout(0):
            await connection.ready()
    except TimeoutError:
        return True
    return False
