from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiormq.abc import SSLCerts
from aiormq.connection import SSLContextProvider
from pamqp import frame
from pamqp.commands import Queue
from yarl import URL

from replicad.broker.frames import HEARTBEAT, Content
from replicad.broker.rabbitmq_wire import Wire
from tests.unit.broker.test_frames import delivered

ACK = Content("ack", "application/json", b"", b"{}", "abc-1", "n2")
BOUND = frame.marshal(Queue.BindOk(), 1)

loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@asynccontextmanager
async def opened(wire: Wire) -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """What aiormq reads from the wire, and its other end, which blocks."""
    no_certificates = SSLCerts(None, None, None, None, None, verify=True)
    tls = SSLContextProvider(
        ssl_context=None, ssl_certs=no_certificates, loop=asyncio.get_running_loop()
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = URL(f"amqp://127.0.0.1:{listener.getsockname()[1]}")
        reader, writer = await wire.create(url, ssl_context_provider=tls)
        peer, _ = listener.accept()
    try:
        with peer:
            peer.settimeout(5)
            yield reader, peer
    finally:
        writer.close()


@loops
def test_what_is_written_is_with_the_kernel_at_once(new_loop: NewLoop) -> None:
    """Before anything else of the event loop runs: a leader may then wait for its disk."""

    async def scenario() -> None:
        wire = Wire()
        async with opened(wire) as (_, peer):
            wire.transport.write(b"frames")
            assert peer.recv(99) == b"frames"
            wire.transport.write(b"more")
            assert peer.recv(99) == b"more"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@loops
def test_deliveries_are_for_us_and_the_rest_is_for_aiormq(new_loop: NewLoop) -> None:
    async def scenario() -> None:
        taken: list[Content] = []
        async with opened(Wire(taken.append)) as (reader, peer):
            peer.sendall(delivered(ACK) + BOUND + delivered(ACK))
            assert await reader.readexactly(len(BOUND)) == BOUND
            assert taken == [ACK, ACK]
            peer.close()
            assert await reader.read() == b""

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


async def test_aiormq_hears_that_the_broker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.broker.rabbitmq_wire._SHOW_LIFE_INTERVAL_S", -1)
    taken: list[Content] = []
    async with opened(Wire(taken.append)) as (reader, peer):
        peer.sendall(delivered(ACK))
        assert await reader.readexactly(len(HEARTBEAT)) == HEARTBEAT
        assert taken == [ACK]
