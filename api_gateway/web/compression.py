"""Compresses answers with zstd or gzip, where the client accepts it and it is worth the while.

Source: RFC 9110, 8.4 and 12.5.3; RFC 8878 and RFC 9659 for zstd.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol

import zstandard
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import ACCEPT_ENCODING, CONTENT_ENCODING, METH_HEAD

from api_gateway.web.negotiation import qualities

BODY_BYTES_MIN: Final = 1024
"""A smaller body fits into one packet anyway."""
# A turn of the event loop: about a millisecond of gzip.
_SLICE_BYTES: Final = 64 * 1024
_GZIP_LEVEL: Final = 4
# Level 3 as for inputs of 128 KiB: a window of that size, and some 1 MB of memory for a stream.
_ZSTD: Final = zstandard.ZstdCompressionParameters.from_level(3, source_size=128 * 1024)


class Coding(StrEnum):
    """A content coding that answers may have, best first."""

    ZSTD = "zstd"
    GZIP = "gzip"


class Encoder(Protocol):
    """Compresses one body."""

    def encode(self, data: bytes) -> bytes:
        """Take more of the body. What comes out may lag behind."""

    def flush(self) -> bytes:
        """What is needed to decode all that was taken so far."""

    def finish(self) -> bytes:
        """The end of the body."""


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(_GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(compression_params=_ZSTD).compressobj()

    def encode(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._stream.flush()


def preferred_coding(header: str | None) -> Coding | None:
    """The coding that an Accept-Encoding header asks for; None to send the body as it is.

    Without the header nothing is compressed: some clients could not read it.
    """
    if not header:
        return None
    weights = qualities(header)
    if "x-gzip" in weights:  # RFC 9110, 8.4.1.3: the same thing.
        weights.setdefault(Coding.GZIP, weights["x-gzip"])
    anything = weights.get("*", 0.0)
    best = max(Coding, key=lambda coding: weights.get(coding, anything))
    weight = weights.get(best, anything)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else None


def encoder_of(coding: Coding) -> Encoder:
    """A new encoder."""
    return _Zstd() if coding is Coding.ZSTD else _Gzip()


async def encode_whole(body: bytes, coding: Coding) -> bytes:
    """The whole body, compressed without holding up the event loop."""
    encoder = encoder_of(coding)
    parts = []
    for start in range(0, len(body), _SLICE_BYTES):
        if start:
            await asyncio.sleep(0)
        parts.append(encoder.encode(body[start : start + _SLICE_BYTES]))
    return b"".join((*parts, encoder.finish()))


async def compress_body(asked: Mapping[str, str], response: web.StreamResponse) -> None:
    """Compress an answer that is there as a whole, if the request's headers allow it.

    See CodedStream for the others.
    """
    if (
        isinstance(response, web.Response)
        and isinstance(response.body, bytes)
        and len(response.body) >= BODY_BYTES_MIN
        and CONTENT_ENCODING not in response.headers
        and (coding := preferred_coding(asked.get(ACCEPT_ENCODING)))
    ):
        response.body = await encode_whole(response.body, coding)
        response.headers[CONTENT_ENCODING] = coding


class CodedStream(web.StreamResponse):
    """A StreamResponse that is compressed if the client accepts it.

    What one `write` takes can be read by the client at once: nothing waits inside the encoder.
    """

    _encoder: Encoder | None = None
    _is_head = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Choose the coding, then send the head."""
        self._is_head = request.method == METH_HEAD
        coding = preferred_coding(request.headers.get(ACCEPT_ENCODING))
        if coding is not None and not self.prepared:
            self.headers[CONTENT_ENCODING] = coding
            self._encoder = None if self._is_head else encoder_of(coding)
        return await super().prepare(request)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send more of the body; nothing if only the head was asked for."""
        if self._is_head:
            return
        if self._encoder is not None:
            data = self._encoder.encode(bytes(data)) + self._encoder.flush()
        await super().write(data)

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the end of the body."""
        if self._encoder is not None and not self._eof_sent:
            data = self._encoder.encode(data) + self._encoder.finish()
            self._encoder = None
        await super().write_eof(data)
