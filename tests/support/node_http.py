"""A gateway's side of one replica's HTTP interface, for tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from replicad.core.write import WriteRequest, encode_write
from replicad.httpd.runner import Runner
from replicad.node.gates import Served
from replicad.node.http import NodeHttp
from tests.support.gateway import client_of as client_of_runner
from tests.support.nodes import Driven

Client = aiohttp.ClientSession
WRITES, GETS, RECORDS = "/internal/writes", "/internal/gets", "/internal/records"
REQUESTS = "/internal/requests"


@asynccontextmanager
async def client_of(served: Served, data_dir: Path) -> AsyncIterator[Client]:
    """A client of a server that shows `served` under the name n1."""
    http = NodeHttp(served, "n1", data_dir)
    runner = Runner(http.application(), http.usual(), access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with client_of_runner(runner) as client:
            yield client
    finally:
        await runner.cleanup()


def epoch_of(one: Driven, *, above: int = 0) -> dict[str, str]:
    """The header of writes and strong reads."""
    return {"X-Replicad-Epoch": str(one.driver.epoch + above)}


async def post(client: Client, one: Driven, path: str, body: bytes) -> tuple[int, list[object]]:
    """The status and the answer's lines, decoded."""
    async with client.post(path, data=body, headers=epoch_of(one)) as response:
        lines = (await response.read()).splitlines()
        return response.status, [json.loads(line) for line in lines]


async def write(client: Client, one: Driven, body: bytes) -> dict[str, Any]:
    """The answer to writes that are understood."""
    async with client.post(WRITES, data=body, headers=epoch_of(one)) as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


def encoded(*writes: WriteRequest) -> bytes:
    """Writes as a gateway sends them."""
    return b"".join(map(encode_write, writes))
