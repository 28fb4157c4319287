"""Bodies of any length, seen through imports."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from api_gateway.bulk.record_lines import RECORD_BYTES_MAX
from api_gateway.routes import bulk as routes_bulk
from tests.support.bulk import (
    IMPORT,
    NDJSON,
    imported,
    in_parts,
    tally,
    told,
)
from tests.support.fake_leader import FakeLeader, form
from tests.support.gateway import raw_url
from tests.support.waiting import eventually


@pytest.mark.parametrize("members", [1, 3])
async def test_a_compressed_body_is_expanded_as_it_arrives(
    gateway: aiohttp.ClientSession, leader: FakeLeader, members: int
) -> None:
    forms = [form(str(number), x="y" * 500) for number in range(999)]
    each = len(forms) // members
    body = b"".join(
        gzip.compress(b"\n".join(forms[at : at + each]) + b"\n") for at in range(0, 999, each)
    )
    parts = [body[at : at + 100] for at in range(0, len(body), 100)]
    lines = await imported(gateway, in_parts(parts), NDJSON | {"Content-Encoding": "gzip"})
    assert lines[-1] == tally(stored=999)
    assert sorted(leader.forms.values()) == sorted(forms)


async def test_what_expands_without_end_is_not_held(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    body = gzip.compress(form("a") + b"\n" + b" " * (64 * RECORD_BYTES_MAX) + b"\n" + form("b"))
    lines = await imported(gateway, body, NDJSON | {"Content-Encoding": "gzip"})
    assert [each.get("status") for each in lines] == ["stored", "invalid", "stored", None]


@pytest.mark.parametrize("kept", [1, 12, -1])
async def test_a_torn_compressed_body_is_told_after_what_was_stored(
    gateway: aiohttp.ClientSession, leader: FakeLeader, kept: int
) -> None:
    whole = gzip.compress(b"\n".join([form("a"), form("b"), b""]))
    headers = NDJSON | {"Content-Encoding": "gzip"}
    lines = await imported(gateway, whole + whole[:kept], headers)
    *records, error, last = lines
    assert error["error"]["type"] == "urn:replicad:invalid-request"
    assert {each["id"] for each in records} == {"a", "b"}
    assert last["tally"]["stored"] == 2
    assert len(leader.forms) == 2


async def test_what_is_not_compressed_as_it_says_stores_nothing(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    error, last = await imported(gateway, form("a"), NDJSON | {"Content-Encoding": "gzip"})
    assert error["error"]["status"] == 400
    assert last == tally()
    assert not leader.forms


async def test_a_client_may_wait_for_its_answers(gateway: aiohttp.ClientSession) -> None:
    answered = asyncio.Event()

    async def patient() -> AsyncIterator[bytes]:
        yield form("a") + b"\n"
        await answered.wait()
        yield form("b") + b"\n"

    async with gateway.post(IMPORT, data=patient(), headers=NDJSON) as response:
        assert orjson.loads(await response.content.readline())["id"] == "a"
        answered.set()
        assert (await response.content.read()).endswith(orjson.dumps(tally(stored=2)) + b"\n")


async def test_a_client_that_falls_silent_is_told_so(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, leader: FakeLeader
) -> None:
    monkeypatch.setattr(routes_bulk, "_SILENCE_S", 0.1)
    silence = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        yield form("a") + b"\n"
        await silence.wait()

    async with gateway.post(IMPORT, data=silent(), headers=NDJSON) as response:
        first, error, last = await told(response)
        silence.set()
    assert first["status"] == "stored"
    assert error["error"]["type"] == "urn:replicad:body-too-slow"
    assert last == tally(stored=1)


async def test_what_came_before_a_client_went_away_is_stored(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    url = raw_url(gateway, IMPORT)
    _, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST {IMPORT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
    writer.write(head.encode() + b"Content-Length: 999\r\n\r\n" + form("a") + b"\n" + form("b"))
    await writer.drain()
    await eventually(lambda: "a" in leader.forms)
    writer.close()
    await writer.wait_closed()
    async with gateway.get("/v1/cluster") as response:
        assert response.status == 200
    assert list(leader.forms) == ["a"]
