from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import zstandard
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.metrics import Metrics
from api_gateway.web.compression import (
    CodedStream,
    Coding,
    encode_whole,
    encoder_of,
    preferred_coding,
)
from api_gateway.web.limits import DEFAULT_LIMITS, Admission
from api_gateway.web.middleware import Around
from tests.support.web import serving

LARGE = b'{"a":"' + b"x" * 300_000 + b'"}'
PARTS = (b"one\n" * 1000, b"two\n", b"three\n" * 50_000)


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


DECODE: dict[str, Callable[[bytes], bytes]] = {"zstd": unzstd, "gzip": gzip.decompress}


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br, deflate", None),
        ("gzip", Coding.GZIP),
        ("x-gzip", Coding.GZIP),
        ("gzip, deflate, br, zstd", Coding.ZSTD),
        ("gzip, zstd;q=0.9", Coding.GZIP),
        ("zstd;q=0, *", Coding.GZIP),
        ("*", Coding.ZSTD),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", Coding.GZIP),
        ("identity;q=0", None),
    ],
)
def test_coding(header: str | None, coding: Coding | None) -> None:
    assert preferred_coding(header) is coding


@given(coding=st.sampled_from(Coding), parts=st.lists(st.binary(max_size=2000), max_size=10))
def test_streams_decode_to_what_was_encoded(coding: Coding, parts: list[bytes]) -> None:
    encoder = encoder_of(coding)
    data = b"".join(encoder.encode(part) + encoder.flush() for part in parts) + encoder.finish()
    assert DECODE[coding](data) == b"".join(parts)


@pytest.mark.parametrize("coding", Coding)
async def test_bodies_decode_to_what_was_encoded(coding: Coding) -> None:
    assert DECODE[coding](await encode_whole(LARGE, coding)) == LARGE


class Answers:
    """One handler for each way to answer."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        around = Around(Metrics(), Admission(DEFAULT_LIMITS), frozenset())
        self.app = web.Application(middlewares=[around.middleware()])
        self.app.add_routes(
            [
                web.get("/large", self.large),
                web.get("/small", self.small),
                web.get("/stream", self.stream),
                web.get("/slow", self.slow),
            ]
        )

    async def large(self, request: web.Request) -> web.Response:
        return web.Response(body=LARGE)

    async def small(self, request: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = CodedStream()
        await response.prepare(request)
        for part in PARTS:
            await response.write(part)
        return response

    async def slow(self, request: web.Request) -> web.StreamResponse:
        response = CodedStream()
        await response.prepare(request)
        await response.write(b"id: 1\n\n")
        await self.go_on.wait()
        return response


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
async def client(answers: Answers) -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(answers.app) as client:
        yield client


@pytest.mark.parametrize("coding", Coding)
async def test_large_bodies_and_streams_are_compressed(
    client: aiohttp.ClientSession, coding: Coding
) -> None:
    for path, body in (("/large", LARGE), ("/stream", b"".join(PARTS))):
        async with client.get(path, headers={"Accept-Encoding": coding}) as response:
            data = await response.read()
            assert response.headers["Content-Encoding"] == coding
            assert len(data) < len(body) / 50
            assert DECODE[coding](data) == body


@pytest.mark.parametrize("coding", Coding)
async def test_a_head_says_what_a_get_would(client: aiohttp.ClientSession, coding: Coding) -> None:
    accepting = {"Accept-Encoding": coding}
    async with client.get("/large", headers=accepting) as response:
        length = response.headers["Content-Length"]
    async with client.head("/large", headers=accepting) as response:
        assert response.headers["Content-Length"] == length
    async with client.head("/stream", headers=accepting) as response:
        assert await response.read() == b""


async def test_nothing_is_compressed_unasked(client: aiohttp.ClientSession) -> None:
    for path, body in (("/large", LARGE), ("/stream", b"".join(PARTS))):
        async with client.get(path) as response:
            assert "Content-Encoding" not in response.headers
            assert await response.read() == body


async def test_a_tiny_body_is_not_worth_it(client: aiohttp.ClientSession) -> None:
    async with client.get("/small", headers={"Accept-Encoding": "gzip"}) as response:
        assert "Content-Encoding" not in response.headers
        assert await response.read() == b"{}"


@pytest.mark.parametrize("coding", Coding)
async def test_what_was_written_can_be_read_at_once(
    client: aiohttp.ClientSession, answers: Answers, coding: Coding
) -> None:
    async with client.get("/slow", headers={"Accept-Encoding": coding}) as response:
        decoder = (
            zstandard.ZstdDecompressor().decompressobj()
            if coding is Coding.ZSTD
            else zlib.decompressobj(16 + zlib.MAX_WBITS)
        )
        read = b""
        async with asyncio.timeout(5):
            while read != b"id: 1\n\n":
                read += decoder.decompress(await response.content.readany())
        answers.go_on.set()
        await response.read()
