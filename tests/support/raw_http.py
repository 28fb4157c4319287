"""Bytes over a socket to an HTTP server, and what comes back, to compare two servers by."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

from aiohttp import web

from replicad.httpd.connection import Limits
from replicad.httpd.runner import Runner, Usual

_ANSWER = re.compile(rb"(?=HTTP/1\.[01] [0-9]{3} )")
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Ends the connection. Should an odd request have swallowed it, its answer is missing."""
NOTHING_IS_USUAL = Usual(lambda request: None, Limits(0, keepalive_s=60))
"""aiohttp serves everything."""

Address = tuple[str, int]


class Told(NamedTuple):
    """An answer; its headers in the order of the alphabet, without Date."""

    line: bytes
    headers: list[bytes]
    body: bytes


@asynccontextmanager
async def served(app: web.Application, usual: Usual) -> AsyncIterator[Address]:
    """The address of a server of the application."""
    runner = Runner(app, usual, access_log=None, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield address_of(runner)
    finally:
        await runner.cleanup()


def address_of(runner: web.AppRunner) -> Address:
    host, port = runner.addresses[0][:2]
    return host, port


class _Client(asyncio.Protocol):
    """Keeps what comes, also before a reset."""

    def __init__(self) -> None:
        self.received = b""
        self._is_over = False
        self._news = asyncio.Event()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        if not self._is_over:
            self._transport.write(data)

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._news.set()

    async def until(self, answers: float) -> None:
        """Return when so many answers have begun, or no more can come."""
        while not self._is_over and len(_ANSWER.findall(self.received)) < answers:
            self._news.clear()
            await self._news.wait()


async def told(
    address: Address, pieces: Sequence[bytes], *, answers: int = 1, end: bytes = LAST
) -> list[Told]:
    """Send the pieces one by one; after so many answers `end`; all answers up to the end."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(_Client, *address)
    try:
        async with asyncio.timeout(30):
            for piece in pieces:
                client.send(piece)
                await arrival()
            await client.until(answers)
            client.send(end)
            await client.until(math.inf)
    finally:
        client.close()
    return [_told(each) for each in _ANSWER.split(client.received) if each]


async def arrival() -> None:
    """Let a server on the same event loop see what was sent to it, as a piece of its own."""
    for _ in range(5):
        await asyncio.sleep(0)


def _told(answer: bytes) -> Told:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    if line.endswith(b" 400 Bad Request") and b"Server: Python" in head:
        return Told(line, [], b"")  # What is wrong is shown in a piece of what was received.
    kept = sorted(header for header in headers if not header.startswith(b"Date: "))
    return Told(line, kept, body)
