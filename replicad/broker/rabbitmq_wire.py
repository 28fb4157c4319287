"""One connection to RabbitMQ: aiormq's, with a way past it for the messages of replicas.

aiormq connects, declares, keeps the heartbeat up and closes. For each message it would take several
turns of the event loop, two tasks and a dozen objects; what is sent and received for every write
goes past it, between the socket and the frames of `frames.py`, in no more than one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import aiormq
import structlog
from aiormq import AMQPError
from aiormq.abc import AbstractConnection
from aiormq.connection import SSLContextProvider, TransportFactory
from yarl import URL

from replicad.broker.frames import HEARTBEAT, Content, Deliveries
from replicad.errors import BrokerError

CALL_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 0.4
HEARTBEAT_S = 10
_SHOW_LIFE_INTERVAL_S = 1.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Wire(TransportFactory):
    """Opens the socket of one connection for aiormq.

    Attributes:
        transport: Of that connection, for whole frames of our own: aiormq too writes whole ones,
            each in one call, so that neither breaks into the other's.
    """

    transport: asyncio.Transport

    def __init__(self, on_content: Callable[[Content], None] | None = None) -> None:
        """Take messages out of what arrives and hand them to `on_content`, if there is one."""
        self._on_content = on_content

    async def create(
        self, url: URL, **options: SSLContextProvider
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by aiormq.

        Raises:
            OSError: Nobody answers there, or the certificate is not good.
        """
        loop = asyncio.get_running_loop()
        tls = options["ssl_context_provider"]
        ssl = await tls.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(loop=loop)
        on_content = self._on_content
        transport, protocol = await loop.create_connection(
            lambda: (
                asyncio.StreamReaderProtocol(reader, loop=loop)
                if on_content is None
                else _Consumption(reader, loop, on_content)
            ),
            url.host or "localhost",
            url.port or 0,
            ssl=ssl,
        )
        # With the kernel when `write` returns, unless the kernel takes no more.
        transport.set_write_buffer_limits(high=0)
        self.transport = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Consumption(asyncio.StreamReaderProtocol):
    """Hands deliveries to us and everything else to aiormq."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
        on_content: Callable[[Content], None],
    ) -> None:
        super().__init__(reader, loop=loop)
        self._time = loop.time
        self._on_content = on_content
        self._deliveries = Deliveries()
        self._showed_life_at = loop.time()

    def data_received(self, data: bytes) -> None:
        contents, others = self._deliveries.take(data)
        if contents and self._time() - self._showed_life_at > _SHOW_LIFE_INTERVAL_S:
            # The broker beats only while it has nothing else to send, and aiormq must hear it.
            self._showed_life_at = self._time()
            others += HEARTBEAT
        if others:
            super().data_received(others)
        for content in contents:
            self._on_content(content)


async def connect(
    stack: AsyncExitStack, url: str, name: str, wire: Wire | None = None
) -> AbstractConnection:
    """Open one connection, called `name` on the management page; `stack` closes it.

    Raises:
        BrokerError: RabbitMQ refused, or did not answer in time.
    """
    wire = wire or Wire()
    connection = await answer(
        aiormq.connect(
            URL(url).update_query(heartbeat=HEARTBEAT_S),
            client_properties={"connection_name": name},
            transport_factory=wire,
        )
    )
    stack.push_async_callback(_close, connection, wire.transport)
    return connection


async def _close(connection: AbstractConnection, transport: asyncio.Transport) -> None:
    try:
        await answer(connection.close(), CLOSE_TIMEOUT_S)
    except BrokerError as error:
        _log.info("broker connection did not close cleanly", reason=str(error))
    finally:
        transport.abort()  # What still waits to be sent must not linger.


async def answer(call: Awaitable[_T], timeout_s: float = CALL_TIMEOUT_S) -> _T:
    """Await one call to the broker.

    Raises:
        BrokerError: It failed, or took longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except TimeoutError as error:
        raise BrokerError(f"no answer within {timeout_s} s") from error
    except (AMQPError, OSError, RuntimeError) as error:  # RuntimeError: it is closed already.
        raise BrokerError(str(error) or repr(error)) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # aiormq ends its pending calls like this when a connection closes; nobody cancelled us.
        raise BrokerError("the connection was closed") from None
