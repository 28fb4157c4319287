"""Reads a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_TYPE

from api_gateway.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    InvalidRequestError,
    TooManyRequestsError,
    UnsupportedEncodingError,
    UnsupportedMediaTypeError,
)
from replicad.httpd.messages import Request

RECORD_MEBIBYTES_MAX: Final = 1
_MEBIBYTE: Final = 1024 * 1024
_INLINE_BYTES_MAX: Final = 64 * 1024
"""A longer body is parsed beside the event loop."""
T = TypeVar("T")
DAMAGED: Final = (
    "The body of the request is damaged.",
    "El cuerpo de la solicitud está dañado.",
)
CUT: Final = (
    "The connection ended before the whole body had arrived.",
    "La conexión se cortó antes de llegar todo el cuerpo.",
)

_NO_ROOM: Final = (
    "Too many large bodies arrive at this gateway at once. Try again.",
    "Llegan demasiados cuerpos grandes a este gateway a la vez. Intente de nuevo.",
)


class Room:
    """Memory for bodies that are on their way in, of all requests together."""

    def __init__(self, bytes_max: int) -> None:
        """Begin empty."""
        self._left = bytes_max

    def take(self, count: int) -> None:
        """Use so many bytes more.

        Raises:
            TooManyRequestsError: There are not so many left.
        """
        if count > self._left:
            raise TooManyRequestsError(*_NO_ROOM, retry_after_s=1)
        self._left -= count

    def give_back(self, count: int) -> None:
        """Use so many bytes less."""
        self._left += count


# What has arrived counts elsewhere: a coalescer bounds what waits for the leader.
_room: Final = Room(512 * _MEBIBYTE)

# Few: what is parsed takes many times the memory of its text, and nothing else should wait for it.
_parsers: Final = ThreadPoolExecutor(2, thread_name_prefix="parser")


async def whole(request: web.Request, timeout_s: float) -> Request:
    """A request that aiohttp has read the head of, with its body, in the form of usual ones.

    Raises:
        RequestError: As `read_body`.
    """
    body = await read_body(request, timeout_s)
    return Request(request.method, request.raw_path, request.headers, body)


async def read_body(
    request: web.Request, timeout_s: float, mebibytes_max: int = RECORD_MEBIBYTES_MAX
) -> bytes:
    """The whole body, decompressed if it came compressed with gzip.

    Raises:
        BodyTooLargeError: It has more than `mebibytes_max`, or says so, or decompresses to that;
            the rest was not read.
        BodyTooSlowError: It did not arrive within `timeout_s`.
        InvalidRequestError: It is not compressed as it says, or the client went away.
        TooManyRequestsError: There is no room for it now; the rest was not read.
        UnsupportedEncodingError: It says that it is encoded in another way.
    """
    is_compressed = is_gzip(request)
    if (request.content_length or 0) > mebibytes_max * _MEBIBYTE:
        raise BodyTooLargeError(mebibytes_max)
    try:
        if request.content.is_eof():  # A small body mostly comes together with its head.
            body = request.content.read_nowait()
        else:
            async with asyncio.timeout(timeout_s):
                body = await _arriving(request, mebibytes_max)
    except TimeoutError:
        raise BodyTooSlowError from None
    except ConnectionError as error:  # Nobody is left to read this.
        raise InvalidRequestError(*CUT) from error
    except web.RequestPayloadError as error:
        raise InvalidRequestError(*DAMAGED) from error
    return _gunzip(body, mebibytes_max) if is_compressed else body


async def _arriving(request: web.Request, mebibytes_max: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            _room.take(len(chunk))
            body += chunk
            if len(body) > mebibytes_max * _MEBIBYTE:
                raise BodyTooLargeError(mebibytes_max)
    finally:
        _room.give_back(len(body))
    return bytes(body)


async def parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    """What `parse` makes of a body; the event loop goes on meanwhile.

    Raises:
        RequestError: As `parse`.
    """
    if len(body) <= _INLINE_BYTES_MAX:
        return parse(body)
    return await asyncio.get_running_loop().run_in_executor(_parsers, parse, body)


def check_media_type(headers: Mapping[str, str], *media_types: str) -> None:
    """Make sure that the body comes as one of these, or does not say as what it comes.

    Raises:
        UnsupportedMediaTypeError: It says that it is something else.
    """
    told = headers.get(CONTENT_TYPE)
    if told is not None and told.partition(";")[0].strip().lower() not in media_types:
        raise UnsupportedMediaTypeError(
            f"The body must come with Content-Type: {' or '.join(media_types)}.",
            f"El cuerpo debe enviarse con Content-Type: {' o '.join(media_types)}.",
        )


def is_gzip(request: web.Request) -> bool:
    """Whether the body comes compressed with gzip.

    Raises:
        UnsupportedEncodingError: It says that it is encoded in another way.
    """
    if CONTENT_ENCODING not in request.headers:
        return False
    encoding = ",".join(request.headers.getall(CONTENT_ENCODING)).strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise UnsupportedEncodingError
    return encoding == "gzip"


def _gunzip(data: bytes, mebibytes_max: int) -> bytes:
    """Decompress one whole gzip member; its checksum and length must be there and be right."""
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        body = member.decompress(data, mebibytes_max * _MEBIBYTE + 1)
    except zlib.error as error:
        raise InvalidRequestError(*DAMAGED) from error
    if len(body) > mebibytes_max * _MEBIBYTE:
        raise BodyTooLargeError(mebibytes_max)
    if not member.eof or member.unused_data:
        raise InvalidRequestError(*DAMAGED)
    return body
