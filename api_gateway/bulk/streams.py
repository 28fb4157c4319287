"""Records on their way to a client, whatever happens to the replica that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import aiohttp

from api_gateway.errors import NoAnswerError
from api_gateway.reading.consistency import Seen

# A replica that sends nothing for so long is given up; a living one sends a page at a time.
_SILENCE_S: Final = 4.0
_RESUMPTIONS_MAX: Final = 3


class RecordStream:
    """The bytes of one answer.

    As of one log index, all replicas that have applied it give the same bytes, whatever was
    written since: records stand in the order of the log. So what one replica breaks off, another
    one that is asked for the same index completes.

    Attributes:
        seen: What they reflect.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        seen: Seen,
        resume: Callable[[], Awaitable[aiohttp.ClientResponse]],
    ) -> None:
        """Go on with `response`.

        Args:
            response: Open, nothing read yet.
            seen: What it reflects.
            resume: Opens the same answer anew at any replica.
        """
        self.seen = seen
        self._response = response
        self._resume = resume

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All bytes, once each.

        Raises:
            NoAnswerError: It broke off too often, or differently: it is not complete.
            UnavailableError: No replica could go on with it.
        """
        passed = 0
        for _ in range(_RESUMPTIONS_MAX + 1):
            skip = passed
            try:
                while chunk := await self._read():
                    fresh = chunk[skip:]
                    skip -= len(chunk) - len(fresh)
                    passed += len(fresh)
                    if fresh:
                        yield fresh
            except (aiohttp.ClientError, OSError):
                self._response.close()
                self._response = await self._resume()
                continue
            if skip:
                break
            return
        raise NoAnswerError("a stream broke off and could not be completed")

    async def _read(self) -> bytes:
        async with asyncio.timeout(_SILENCE_S):
            return await self._response.content.readany()

    def close(self) -> None:
        """End the connection to the replica."""
        self._response.close()
