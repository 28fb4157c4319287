"""One pair of connections to RabbitMQ, from opening to loss.

Publishing and consuming have a connection each: the broker stops reading from a connection that
publishes when it runs out of memory or disk, and that must not silence what it sends to us.

The calls of aiormq, the layer below aio-pika, are used on the hot path: aio-pika wraps each
message in objects that nothing here needs. aiormq starts a task per delivery; its callback only
puts the delivery into one inbox, so that a single reader keeps the order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import aio_pika
import structlog
from aiormq import AMQPError, PublishError
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, DeliveredMessage
from pamqp.commands import Basic

from replicad.broker.codec import PROBE, decode, encode_probe
from replicad.core.messages import Message
from replicad.errors import BrokerError, MalformedMessageError

CALL_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 0.5
CLOSE_TIMEOUT_S = 0.4
HEARTBEAT_S = 10
# How often a session looks whether it is closed, blocked or stuck.
WATCH_INTERVAL_S = 0.05
WAITING_BYTES_MAX = 256 * 1024 * 1024
# Exclusive queues can be neither quorum queues nor streams, whatever the virtual host's default.
_QUEUE_ARGUMENTS: ArgumentsType = {"x-queue-type": "classic"}

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


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

    def queue(self, kind: str, session: int) -> str:
        """A queue of this run: `kind` is log or acks.

        After a quick reconnect the broker may still hold the exclusive queues of the session
        before, so each session has names of its own.
        """
        again = "" if session == 1 else f"-{session}"
        return f"replicad.{self.cluster}.{self.node}.{kind}.{self.incarnation}{again}"


async def open_session(
    stack: AsyncExitStack, url: str, names: Names, number: int, *, follow_all: bool
) -> RabbitSession:
    """Connect twice, declare what is needed and begin to consume; `stack` closes it all.

    Raises:
        BrokerError: RabbitMQ refused, or did not answer in time.
    """
    publishing = await connect(stack, url, f"replicad {names.node}: publishes")
    consuming = await connect(stack, url, f"replicad {names.node}: consumes")
    publisher = await answer(publishing.channel(publisher_confirms=False))
    consumer = await answer(consuming.channel(publisher_confirms=False))
    # With confirms: without them aiormq only logs a message that was returned.
    prober = await answer(publishing.channel(publisher_confirms=True, on_return_raises=True))
    await answer(consumer.exchange_declare(names.exchange, exchange_type="topic", durable=True))
    await answer(consumer.exchange_declare(names.presence, exchange_type="direct", durable=True))
    session = RabbitSession(names, publishing, consuming, publisher, consumer, prober)
    await session.consume(number, follow_all=follow_all)
    return session


async def connect(stack: AsyncExitStack, url: str, name: str) -> AbstractConnection:
    """Open one connection, called `name` on the management page; `stack` closes it.

    Raises:
        BrokerError: RabbitMQ refused, or did not answer in time.
    """
    connection = await answer(
        aio_pika.connect(url, client_properties={"connection_name": name}, heartbeat=HEARTBEAT_S)
    )
    stack.push_async_callback(_close, connection)
    if connection.transport is None:
        raise BrokerError("the connection was closed while it was opened")
    return connection.transport.connection


async def _close(connection: aio_pika.Connection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except (TimeoutError, AMQPError, OSError) as error:
        _log.info("broker connection did not close cleanly", reason=repr(error))


async def answer(call: Awaitable[_T]) -> _T:
    """Await one call to the broker.

    Raises:
        BrokerError: It failed, or took longer than CALL_TIMEOUT_S.
    """
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await call
    except TimeoutError as error:
        raise BrokerError(f"no answer within {CALL_TIMEOUT_S} s") from error
    except (AMQPError, OSError, RuntimeError) as error:  # RuntimeError: it is closed already.
        raise BrokerError(str(error) or repr(error)) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # aiormq ends its pending calls like this when a connection closes; nobody cancelled us.
        raise BrokerError("the connection was closed") from None


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
    ) -> None:
        """Take over connections and channels that are open."""
        self._names = names
        self._publishing = publishing
        self._publisher = publisher
        self._consumer = consumer
        self._prober = prober
        self._closable = (publishing, consuming, publisher, consumer, prober)
        self._inbox: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self._outgoing: asyncio.Queue[tuple[str, Basic.Properties, bytes]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._overflowed = False
        self._published = 0
        self._writing_since: float | None = None
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
            await answer(self._consumer.basic_consume(queue, self._on_delivery, no_ack=True))

    async def _on_delivery(self, delivered: DeliveredMessage) -> None:
        # Never waits, so that the tasks of two deliveries finish in the order they were started.
        self._inbox.put_nowait(delivered)

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

    def send(self, routing_key: str, properties: Basic.Properties, body: bytes) -> None:
        """Let one message wait for the publisher; drop everything once too much waits."""
        if self._overflowed:
            return
        self._sign(properties)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > WAITING_BYTES_MAX:
            self._overflowed = True
            self._drop_waiting()
        else:
            self._outgoing.put_nowait((routing_key, properties, body))

    def _sign(self, properties: Basic.Properties) -> None:
        # For people who trace a message. Of a probe it must be unique: aiormq tells by it which
        # message was returned.
        self._published += 1
        properties.message_id = f"{self._names.incarnation}-{self._published}"
        properties.app_id = self._names.node

    async def probe(self, node: str) -> bool:
        """Whether the broker has proved that nobody reads the node's ack queue."""
        properties, body = encode_probe(self._names.node)
        self._sign(properties)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._prober.basic_publish(
                    body,
                    exchange=self._names.presence,
                    routing_key=node,
                    properties=properties,
                    mandatory=True,
                )
        except PublishError:
            return True
        except (TimeoutError, AMQPError, OSError, RuntimeError):
            pass  # No answer; if the session is lost `_watch` sees it.
        return False

    def follow_all(self, following: bool) -> None:
        """Tell whether the log queue is to get what goes to all replicas."""
        self._follow_all = following
        self._binding_due.set()

    async def run(
        self, on_message: Callable[[Message], None], on_status: Callable[[bool], None]
    ) -> None:
        """Carry messages until the session is lost.

        Args:
            on_message: Called with each message received.
            on_status: Called with False when the broker stops reading what we publish, because
                it is short of memory or disk, and with True when it goes on.

        Raises:
            ExceptionGroup: Of BrokerError when the session is lost; of anything else that a
                callback raised.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish(), name="rabbitmq publisher")
            group.create_task(self._receive(on_message), name="rabbitmq receiver")
            group.create_task(self._keep_bound(), name="rabbitmq binding")
            group.create_task(self._watch(on_status), name="rabbitmq watch")

    async def _publish(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            routing_key, properties, body = await self._outgoing.get()
            self._waiting_bytes -= len(body)
            self._writing_since = now()
            # Returns when the bytes are with the kernel; `_watch` sees to it when they stay here.
            await self._write(routing_key, properties, body)
            self._writing_since = None

    async def _write(self, routing_key: str, properties: Basic.Properties, body: bytes) -> None:
        try:
            await self._publisher.basic_publish(
                body,
                exchange=self._names.exchange,
                routing_key=routing_key,
                properties=properties,
            )
        except (AMQPError, OSError, RuntimeError) as error:
            raise BrokerError(str(error) or repr(error)) from error

    async def _receive(self, on_message: Callable[[Message], None]) -> None:
        while True:
            delivered = await self._inbox.get()
            properties = delivered.header.properties
            if properties.message_type == PROBE:
                continue
            try:
                message = decode(properties, delivered.body)
            except MalformedMessageError as error:
                _log.warning("message dropped", sender=properties.app_id, reason=str(error))
                continue
            on_message(message)

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
                self._drop_waiting()
                self._writing_since = None  # A write that is stuck now is given its time again.
                on_status(not blocked)
            elif not blocked:
                self._check_progress()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _check_open(self) -> None:
        # Asked, not awaited: when aiormq closes it may end what waits as if it were cancelled.
        if any(part.is_closed for part in self._closable):
            raise BrokerError("the connection was closed")
        if self._cancelled_by_broker:
            raise BrokerError("a queue was deleted")
        if self._overflowed:
            raise BrokerError(f"more than {WAITING_BYTES_MAX} bytes were waiting to be sent")

    def _check_progress(self) -> None:
        since = self._writing_since
        if since is not None and asyncio.get_running_loop().time() - since > CALL_TIMEOUT_S:
            raise BrokerError(f"a message was not taken within {CALL_TIMEOUT_S} s")

    def _drop_waiting(self) -> None:
        while not self._outgoing.empty():
            self._outgoing.get_nowait()
        self._waiting_bytes = 0

    def _on_consumer_cancelled(self, _: object) -> None:
        self._cancelled_by_broker = True


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
