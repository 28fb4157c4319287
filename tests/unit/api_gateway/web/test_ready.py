"""Answers that go out as they are look like those that aiohttp completes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from api_gateway.metrics import Metrics
from api_gateway.web.headers import completing
from api_gateway.web.limits import DEFAULT_LIMITS
from api_gateway.web.middleware import Around
from api_gateway.web.ready import Ready
from tests.support.gateway import raw_url
from tests.support.web import serving


async def get(request: web.Request) -> web.StreamResponse:
    headers = {"ETag": '"7"'} if "etag" in request.query else {"X-Replicad-Index": "7"}
    body = b'{"a":"%b"}' % (b"x" * int(request.query.get("size", "0")))
    answer = Ready(body, status=201, headers=headers)
    return answer if "plain" not in request.query else answer.as_response()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[Around(Metrics(), DEFAULT_LIMITS, frozenset()).middleware()])
    app.add_routes([web.get("/v1/a", get)])
    app.on_response_prepare.append(completing(frozenset()))
    async with serving(app) as client:
        yield client


@pytest.mark.parametrize("query", ["", "etag", "size=100000", "size=100000&etag"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_looks_like_any_other_answer(
    client: aiohttp.ClientSession, method: str, query: str
) -> None:
    del client.headers["Accept-Encoding"]
    told = []
    for kind in ("ready", "plain"):
        async with client.request(
            method,
            f"/v1/a?{query}&{kind}",
            skip_auto_headers=["Accept-Encoding"],
        ) as response:
            headers = {name: value for name, value in response.headers.items() if name != "Date"}
            assert "Date" in response.headers
            told.append((response.status, response.reason, headers, await response.read()))
    assert told[0] == told[1]


async def test_large_ones_are_compressed(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/a?size=2000", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("version", "header", "last"),
    [(b"1.0", b"", True), (b"1.1", b"Connection: close\r\n", True), (b"1.1", b"", False)],
)
async def test_the_connection_ends_when_the_client_wants_it(
    client: aiohttp.ClientSession, version: bytes, header: bytes, last: bool
) -> None:
    request = b"GET /v1/a HTTP/%b\r\nHost: x\r\n%b\r\n" % (version, header)
    url = raw_url(client, "/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    async with asyncio.timeout(5):
        for _ in range(1 if last else 2):
            writer.write(request)
            assert (await reader.readuntil(b'{"a":""}')).startswith(b"HTTP/%b 201 " % version)
        if last:
            assert await reader.read() == b""
    writer.close()
