"""Reads a request's body of any length, a piece at a time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from aiohttp import web

from api_gateway.errors import BodyTooSlowError, InvalidRequestError
from api_gateway.web.bodies import CUT, DAMAGED

# Of what a compressed body expands to: no more of it is ever held.
_PIECE_BYTES: Final = 64 * 1024


async def body_pieces(
    request: web.Request, *, is_compressed: bool, silence_s: float
) -> AsyncGenerator[bytes, None]:
    """The body in pieces as they arrive, decompressed.

    Nothing is read ahead: a client that sends faster than the pieces are used has to wait.

    Args:
        request: Nothing of its body was read yet.
        is_compressed: As `is_gzip` tells.
        silence_s: How long it may take until something more arrives.

    Raises:
        BodyTooSlowError: It took longer.
        InvalidRequestError: The connection ended, or it is not compressed as it says. What came
            before was given.
    """
    expanding = _Gzip() if is_compressed else None
    while True:
        try:
            async with asyncio.timeout(silence_s):
                piece = await request.content.readany()
        except TimeoutError:
            raise BodyTooSlowError from None
        except ConnectionError as error:
            raise InvalidRequestError(*CUT) from error
        except web.RequestPayloadError as error:
            raise InvalidRequestError(*DAMAGED) from error
        if not piece:
            break
        if expanding is None:
            yield piece
            continue
        for expanded in expanding.feed(piece):
            yield expanded
    if expanding is not None:
        expanding.end()


class _Gzip:
    """Expands gzip members, one after the other, as RFC 1952 allows them."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                expanded = self._member.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise InvalidRequestError(*DAMAGED) from error
            if expanded:
                yield expanded
            data = self._member.unused_data or self._member.unconsumed_tail
            # What is left inside may be more than the input that is left shows.
            if not data and len(expanded) == _PIECE_BYTES:
                yield from self._drain()

    def _drain(self) -> Iterator[bytes]:
        while not self._member.eof and (rest := self._member.decompress(b"", _PIECE_BYTES)):
            yield rest

    def end(self) -> None:
        """Check that the last member is whole: its checksum and length were there and right."""
        if not self._member.eof:
            raise InvalidRequestError(*DAMAGED)
