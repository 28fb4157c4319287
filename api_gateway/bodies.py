"""Reads a request's body within bounds of size and time."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from api_gateway.errors import BodyTooLargeError, BodyTooSlowError, InvalidRequestError

BODY_BYTES_MAX: Final = 1024 * 1024


async def read_body(request: web.Request, timeout_s: float) -> bytes:
    """The whole body, decompressed if it came compressed.

    Raises:
        BodyTooLargeError: It has more than BODY_BYTES_MAX, or says so, or decompresses to that;
            the rest was not read.
        BodyTooSlowError: It did not arrive within `timeout_s`.
        InvalidRequestError: It is not compressed as it says, or the client went away.
    """
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
    except (ContentEncodingError, web.RequestPayloadError) as error:
        raise InvalidRequestError("El cuerpo de la solicitud está dañado.") from error
    return bytes(body)
