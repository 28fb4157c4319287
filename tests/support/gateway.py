"""A gateway's client, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

Serve = Callable[..., Awaitable[aiohttp.ClientSession]]
"""Starts a gateway with the given deadlines and coordinator; see the fixture `serve`."""


def client_of(runner: web.AppRunner) -> aiohttp.ClientSession:
    host, port = runner.addresses[0][:2]
    return aiohttp.ClientSession(f"http://{host}:{port}")


def raw_url(client: aiohttp.ClientSession, path: str) -> URL:
    """A URL of the client's gateway whose path is sent exactly as given."""
    assert client._base_url is not None  # There is no public name for it.
    return URL(f"{client._base_url.origin()}{path}", encoded=True)


async def send_raw(client: aiohttp.ClientSession, request: bytes) -> tuple[int, dict[str, str]]:
    """Send these bytes and no more, and read the answer."""
    url = raw_url(client, "/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        async with asyncio.timeout(5):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line[15:])
                for line in head.split(b"\r\n")
                if line.startswith(b"Content-Length:")
            )
            body: dict[str, str] = orjson.loads(await reader.readexactly(length))
    finally:
        writer.close()
    return int(head.split()[1]), body


async def ask(
    gateway: aiohttp.ClientSession,
    method: str,
    path: str,
    told: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """Send JSON, unless there is None; the answer's status, what it says, and its headers."""
    data = None if told is None else BytesIO(orjson.dumps(told))
    sent = {"Content-Type": "application/json", **(headers or {})}
    async with gateway.request(method, path, data=data, headers=sent) as response:
        body = await response.read()
        return response.status, orjson.loads(body) if body else None, response.headers
