"""Follows the changes of a collection, whatever gateways and leaders do meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import orjson

from replicad.client.errors import ProtocolError, UnavailableError
from replicad.client.transport import Transport, pauses
from replicad.client.types import Change

_POLL_S: Final = 30
_PAGE: Final = 1000
# The gateway answers an empty poll at its end; a longer silence is a broken connection.
_SILENCE_S: Final = _POLL_S + 10.0


async def follow(
    transport: Transport, path: str, since: str, *, follow_on: bool
) -> AsyncIterator[Change]:
    """Changes after a cursor; when the connection breaks, on from the last one seen.

    Raises:
        ProblemError: The gateway refused, for instance because the log begins later.
        UnavailableError: No gateway served a page for as long as a call may take.
    """
    cursor = since
    while True:
        wait_s = _POLL_S if follow_on else 0
        lines, cursor = await _page(transport, path, cursor, wait_s)
        for line in lines:
            yield _decode(line)
        if not lines and not follow_on:
            return


async def _page(
    transport: Transport, path: str, cursor: str, wait_s: int
) -> tuple[list[bytes], str]:
    params = {"since": cursor, "limit": str(_PAGE), "timeout": str(wait_s)}
    clock = asyncio.get_running_loop().time
    gives_up_at = clock() + transport.timeout_s
    for pause_s in pauses():
        try:
            async with (
                asyncio.timeout(_SILENCE_S),
                transport.stream("GET", path, params=params) as response,
            ):
                body = await response.read()
                return body.splitlines(), response.headers["X-Replicad-Next"]
        except (aiohttp.ClientError, OSError) as error:
            if clock() > gives_up_at:
                raise UnavailableError(f"no gateway served {path}: {error}") from error
        except KeyError as error:
            raise ProtocolError("a page of changes without a cursor") from error
        transport.turn()
        await asyncio.sleep(pause_s)
    raise AssertionError("pauses never end")


def _decode(line: bytes) -> Change:
    try:
        told = orjson.loads(line)
        return Change(
            cursor=f"{told['index']}.{told['position']}",
            index=told["index"],
            position=told["position"],
            time=told["time"],
            operation=told["operation"],
            id=told["id"],
            value=told["value"],
            digest=told["digest"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProtocolError(f"not a change: {line[:60]!r}") from error
