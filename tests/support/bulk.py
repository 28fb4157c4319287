"""A client of imports and exports, over a fake leader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from io import BytesIO
from typing import Any

import aiohttp
import orjson

from replicad.core.write import DEFINITIONS
from tests.support.fake_leader import FakeLeader

IMPORT = "/v1/collections/formularios/records:import"
EXPORT = "/v1/collections/formularios/records:export"
NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}


def tally(stored: int = 0, duplicate: int = 0, invalid: int = 0, unknown: int = 0) -> object:
    counts = {"stored": stored, "duplicate": duplicate, "invalid": invalid, "unknown": unknown}
    return {"tally": counts}


def define(leader: FakeLeader, name: str, **definition: Any) -> None:  # noqa: ANN401 (any JSON)
    leader.records.setdefault(DEFINITIONS, {})[name] = orjson.dumps(definition)


async def told(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    assert response.status == 200, await response.text()
    assert response.content_type == "application/x-ndjson"
    return [orjson.loads(line) for line in (await response.read()).splitlines()]


async def imported(
    gateway: aiohttp.ClientSession,
    body: bytes | AsyncIterator[bytes],
    headers: dict[str, str] = NDJSON,
    path: str = IMPORT,
) -> list[dict[str, Any]]:
    data = BytesIO(body) if isinstance(body, bytes) else body
    async with gateway.post(path, data=data, headers=headers) as response:
        return await told(response)


async def problem(response: aiohttp.ClientResponse) -> tuple[int, str]:
    assert response.content_type == "application/problem+json", await response.text()
    described = orjson.loads(await response.read())
    assert described["status"] == response.status
    return response.status, described["type"].removeprefix("urn:replicad:")


async def in_parts(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
