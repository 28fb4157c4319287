"""Reads a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from aiohttp import web
from aiohttp.hdrs import CONTENT_ENCODING

from api_gateway.errors import (
    BodyTooLargeError,
    BodyTooSlowError,
    InvalidRequestError,
    UnsupportedEncodingError,
)

BODY_BYTES_MAX: Final = 1024 * 1024
_DAMAGED: Final = "El cuerpo de la solicitud está dañado."


async def read_body(request: web.Request, timeout_s: float) -> bytes:
    """The whole body, decompressed if it came compressed with gzip.

    Raises:
        BodyTooLargeError: It has more than BODY_BYTES_MAX, or says so, or decompresses to that;
            the rest was not read.
        BodyTooSlowError: It did not arrive within `timeout_s`.
        InvalidRequestError: It is not compressed as it says, or the client went away.
        UnsupportedEncodingError: It says that it is encoded in another way.
    """
    encoding = ",".join(request.headers.getall(CONTENT_ENCODING, [])).strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise UnsupportedEncodingError
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise BodyTooLargeError
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise BodyTooLargeError
    except TimeoutError:
        raise BodyTooSlowError from None
    except ConnectionError as error:  # Nobody is left to read this.
        raise InvalidRequestError("La conexión se cortó antes de llegar todo el cuerpo.") from error
    except web.RequestPayloadError as error:
        raise InvalidRequestError(_DAMAGED) from error
    return _gunzip(bytes(body)) if encoding == "gzip" else bytes(body)


def _gunzip(data: bytes) -> bytes:
    """Decompress one whole gzip member; its checksum and length must be there and be right."""
    member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        body = member.decompress(data, BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise InvalidRequestError(_DAMAGED) from error
    if len(body) > BODY_BYTES_MAX:
        raise BodyTooLargeError
    if not member.eof or member.unused_data:
        raise InvalidRequestError(_DAMAGED)
    return body
