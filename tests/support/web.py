"""A small application behind the gateway's own server, for tests of what surrounds handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from api_gateway.web.server import JsonErrorRunner
from replicad.httpd.runner import Usual
from tests.support.gateway import client_of
from tests.support.raw_http import NOTHING_IS_USUAL


@asynccontextmanager
async def serving(
    app: web.Application, usual: Usual = NOTHING_IS_USUAL
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the application, which decodes nothing and asks for no coding by itself."""
    runner = JsonErrorRunner(app, usual, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with client_of(runner) as client:
            client._auto_decompress = False
            client.headers["Accept-Encoding"] = "identity"
            yield client
    finally:
        await runner.cleanup()
