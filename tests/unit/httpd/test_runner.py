"""How a server ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from replicad.httpd.connection import Limits
from replicad.httpd.messages import Answer, Request
from replicad.httpd.runner import Runner, Server, Usual
from tests.support.raw_http import address_of
from tests.support.waiting import eventually

USUAL = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
Open = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ODD = USUAL.replace(b"1.1", b"1.0")


class Slow:
    """Answers once it may.

    Attributes:
        ended: How each request ended.
    """

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        self.ended: list[str] = []

    def serve(self, request: Request) -> Coroutine[Any, Any, Answer]:
        return self.answer(request)

    async def answer(self, request: Request) -> Answer:
        self.entered.release()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("answered")
        return Answer(200, {}, b"{}")


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def runner(slow: Slow) -> AsyncIterator[Runner]:
    app = web.Application()
    runner = Runner(
        app, Usual(slow.serve, Limits(0, keepalive_s=60)), access_log=None, shutdown_timeout=0.2
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


@pytest.fixture
async def asked(runner: Runner, slow: Slow) -> AsyncIterator[Open]:
    """A connection whose request is being answered."""
    reader, writer = await asyncio.open_connection(*address_of(runner))
    writer.write(USUAL)
    async with asyncio.timeout(30):
        await slow.entered.acquire()
    yield reader, writer
    writer.close()


async def test_what_was_asked_is_answered_before_the_end(
    runner: Runner, slow: Slow, asked: Open
) -> None:
    ending = asyncio.create_task(runner.cleanup())
    await eventually(lambda: not runner.sites)
    slow.go_on.set()
    async with asyncio.timeout(30):
        assert (await asked[0].read()).endswith(b"\r\n\r\n{}")
    await ending
    assert slow.ended == ["answered"]


async def test_not_for_ever(runner: Runner, slow: Slow, asked: Open) -> None:
    async with asyncio.timeout(30):
        await runner.cleanup()
        with suppress(ConnectionError):
            assert await asked[0].read() == b""
    assert slow.ended == ["cancelled"]


async def test_nothing_more_is_taken(runner: Runner, slow: Slow, asked: Open) -> None:
    reader, writer = asked
    writer.write(USUAL)
    ending = asyncio.create_task(runner.cleanup())
    await eventually(lambda: not runner.sites)
    slow.go_on.set()
    with suppress(ConnectionError):
        async with asyncio.timeout(30):
            assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 1
    await ending
    assert slow.ended == ["answered"]


@pytest.mark.parametrize("sent", [b"", USUAL[:-1], ODD, USUAL])
async def test_idle_connections_end_at_once(runner: Runner, slow: Slow, sent: bytes) -> None:
    slow.go_on.set()
    reader, writer = await asyncio.open_connection(*address_of(runner))
    writer.write(sent)
    server = runner.server
    assert isinstance(server, Server)
    await eventually(lambda: bool(server._open or server.connections))
    async with asyncio.timeout(30):
        await runner.cleanup()
        with suppress(ConnectionError):  # What it has sent may not have been read.
            await reader.read()
    writer.close()
