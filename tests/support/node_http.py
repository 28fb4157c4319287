"""A gateway's side of one replica's HTTP interface, for tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from replicad.core.write import WriteRequest, encode_write
from replicad.node.gates import Served
from replicad.node.http import NodeHttp
from tests.support.nodes import Driven

Client = TestClient[web.Request, web.Application]
WRITES, GETS, RECORDS = "/internal/writes", "/internal/gets", "/internal/records"
REQUESTS = "/internal/requests"


@asynccontextmanager
async def client_of(served: Served, data_dir: Path) -> AsyncIterator[Client]:
    """A client of a server that shows `served` under the name n1."""
    async with TestClient(TestServer(NodeHttp(served, "n1", data_dir).application())) as client:
        yield client


def epoch_of(one: Driven, *, above: int = 0) -> dict[str, str]:
    """The header of writes and strong reads."""
    return {"X-Replicad-Epoch": str(one.driver.epoch + above)}


async def post(client: Client, one: Driven, path: str, body: bytes) -> tuple[int, list[object]]:
    """The status and the answer's lines, decoded."""
    async with client.post(path, data=body, headers=epoch_of(one)) as response:
        lines = (await response.read()).splitlines()
        return response.status, [json.loads(line) for line in lines]


def encoded(*writes: WriteRequest) -> bytes:
    """Writes as a gateway sends them."""
    return b"".join(map(encode_write, writes))
