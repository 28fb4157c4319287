from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import suppress
from io import BytesIO

import aiohttp
import orjson
import pytest

from api_gateway.records.strict_json import ObjectText, parse_object
from api_gateway.routes import records
from api_gateway.web import bodies
from replicad.httpd import connection
from tests.support.fake_leader import FakeLeader, form
from tests.support.gateway import Serve, raw_url, send_raw
from tests.support.waiting import until

INSERT = "/API/IngresarFormulario"
_BODY_BYTES_MAX = 1024 * 1024
HEAD = b"POST /API/IngresarFormulario HTTP/1.1\r\nHost: x\r\n"


async def test_the_largest_body_is_taken(gateway: aiohttp.ClientSession) -> None:
    body = form("a", x="y" * (_BODY_BYTES_MAX - len(form("a", x=""))))
    async with gateway.post(INSERT, data=body) as response:
        assert response.status == 200
    async with gateway.get("/API/ObtenerUnFormulario/a") as response:
        assert await response.read() == body


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_larger_body_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, chunked: bool
) -> None:
    body = form("a") + b" " * (_BODY_BYTES_MAX + 1 - len(form("a")))
    async with gateway.post(INSERT, data=BytesIO(body), chunked=chunked or None) as response:
        assert response.status == 413
        assert "1 MiB" in (await response.json())["message"]
    assert not leader.forms


async def test_an_announced_size_is_refused_before_it_arrives(
    gateway: aiohttp.ClientSession,
) -> None:
    status, answer = await send_raw(gateway, HEAD + b"Content-Length: 99999999999\r\n\r\n{")
    assert status == 413
    assert answer["status"] == "error"


async def test_a_compressed_body_is_taken(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    body = gzip.compress(form("a"))
    async with gateway.post(INSERT, data=body, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 200
    assert leader.forms == {"a": form("a")}


async def test_the_limit_holds_after_decompression(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    bomb = gzip.compress(form("a") + b" " * (64 * _BODY_BYTES_MAX))
    assert len(bomb) < _BODY_BYTES_MAX
    async with gateway.post(INSERT, data=bomb, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 413
    assert not leader.forms


@pytest.mark.parametrize(
    "body",
    [b"not gzip", gzip.compress(form("a"))[:-1], gzip.compress(form("a")) + b"x", b""],
    ids=["other", "cut", "more", "empty"],
)
async def test_a_damaged_compressed_body_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, body: bytes
) -> None:
    async with gateway.post(INSERT, data=body, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400
        assert (await response.json())["status"] == "error"
    assert not leader.forms


@pytest.mark.parametrize("sent", [b"", b'{"id":'])
async def test_a_body_that_arrives_too_slowly_is_refused(
    serve: Serve, leader: FakeLeader, sent: bytes
) -> None:
    gateway = await serve(body_s=0.2)
    status, answer = await send_raw(gateway, HEAD + b"Content-Length: 10\r\n\r\n" + sent)
    assert status == 408
    assert answer["status"] == "error"
    assert not leader.forms


async def test_a_client_that_goes_away_stores_nothing(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    url = raw_url(gateway, "/")
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(HEAD + b'Content-Length: 11\r\n\r\n{"id":"a"}')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with gateway.post(INSERT, data=form("b")) as response:
        assert response.status == 200
    assert list(leader.forms) == ["b"]


async def test_bodies_that_arrive_at_once_have_room_together(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_room", bodies.Room(1_000))
    monkeypatch.setattr(connection, "_PATIENCE_S", 0.0)
    url = raw_url(gateway, "/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = form("a", x="y" * 800)
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:700])

    async def is_refused() -> bool:
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 400)
        told = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                told = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        if told:
            assert told.startswith(b"HTTP/1.1 429 ")
            assert b"Retry-After: 1\r\n" in told
        return bool(told)

    await until(is_refused)
    writer.write(body[700:])
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    async with gateway.post(INSERT, data=form("c", x="y" * 900)) as response:
        assert response.status == 200


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "foo"])
async def test_other_encodings_are_refused(gateway: aiohttp.ClientSession, encoding: str) -> None:
    headers = {"Content-Encoding": encoding}
    async with gateway.post(INSERT, data=form("a"), headers=headers) as response:
        assert response.status == 415
        assert (await response.json())["status"] == "error"


async def test_large_bodies_are_parsed_beside_the_event_loop_and_not_many_at_once() -> None:
    def thread_of(body: bytes) -> str:
        together.wait()
        return threading.current_thread().name

    together = threading.Barrier(1)
    assert await bodies.parsed(thread_of, b"x" * 2**16) == threading.current_thread().name
    together = threading.Barrier(2, timeout=5)
    names = await asyncio.gather(*(bodies.parsed(thread_of, b"x" * (2**16 + 1)) for _ in range(8)))
    assert len(set(names)) == 2
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
async def test_a_large_record_does_not_hold_the_event_loop(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    threads: list[threading.Thread] = []

    def parse(body: bytes) -> ObjectText:
        threads.append(threading.current_thread())
        return parse_object(body)

    monkeypatch.setattr(records, "parse_object", parse)
    body = orjson.dumps({"id": "a", "x": "y" * 2**17})
    path = "/v1/collections/formularios/records" + ("" if method == "POST" else "/a")
    headers = {"Content-Type": "application/json"}
    async with gateway.request(method, path, data=body, headers=headers) as response:
        assert response.status == (404 if method == "PATCH" else 201)
    assert threads
    assert threading.main_thread() not in threads
