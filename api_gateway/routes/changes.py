"""The feed of a collection's changes: as a long poll, and as Server-Sent Events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from api_gateway.errors import (
    InvalidQueryError,
    NoAnswerError,
    NotAcceptableError,
    RequestError,
    UnavailableError,
)
from api_gateway.reading.changes import Changes, Page
from api_gateway.records.definitions import check_name
from api_gateway.web.compression import CodedStream
from api_gateway.web.negotiation import best_media_type
from replicad.core.feed import Cursor

_NDJSON: Final = "application/x-ndjson"
_EVENTS: Final = "text/event-stream"
_PARAMETERS: Final = ("since", "limit", "timeout")
_LIMIT_MAX: Final = 10_000
_LIMIT: Final = 1_000
_TIMEOUT_S_MAX: Final = 60
_TIMEOUT_S: Final = 30.0
_INTEGER: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,20})?(?:[eE]-?[0-9]{1,3})?", re.ASCII)
# How long an event stream is silent: below what proxies take for a dead connection.
_KEEP_ALIVE_S: Final = 10.0
# For one page: a client that takes longer is as good as gone.
_WRITE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ChangeRoutes:
    """The handler of the feeds' path; `changes` is the way to the replicas."""

    changes: Changes

    def routes(self) -> list[web.RouteDef]:
        """The one route."""
        path = "/v1/collections/{collection}/changes"
        return [web.get(path, self.follow, allow_head=False)]

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Tell what happened after a place in the log, and what happens next."""
        collection = check_name(request.match_info["collection"])
        _check_parameters(request)
        limit, timeout_s, since = _limit(request), _timeout_s(request), _since(request)
        media_type = best_media_type(request.headers.get("Accept"), (_NDJSON, _EVENTS))
        if media_type is None:
            raise NotAcceptableError(
                f"Changes come as {_NDJSON} or {_EVENTS}.",
                f"Los cambios se entregan como {_NDJSON} o {_EVENTS}.",
            )
        if since is None:
            since = await self.changes.now(collection)
        else:
            await self.changes.check_exists(collection)
        if media_type == _EVENTS:
            return await self._stream(request, collection, since)
        page = await self.changes.page(
            collection, since, limit=limit, wait_s=timeout_s, is_wanted=_is_there(request)
        )
        return web.Response(
            body=page.lines,
            content_type=_NDJSON,
            headers={"X-Replicad-Next": str(page.next)},
        )

    async def _stream(
        self, request: web.Request, collection: str, since: Cursor
    ) -> web.StreamResponse:
        # What is wrong from the start must be told while there is a status to tell it by.
        is_there = _is_there(request)
        page = await self.changes.page(
            collection, since, limit=_LIMIT, wait_s=0, is_wanted=is_there
        )
        response = CodedStream(
            headers={
                "Content-Type": f"{_EVENTS}; charset=utf-8",
                "X-Accel-Buffering": "no",  # nginx would hold events back.
            }
        )
        try:
            await response.prepare(request)
            while is_there():
                async with asyncio.timeout(_WRITE_S):
                    await response.write(page.events())
                since = page.next
                try:
                    page = await self.changes.page(
                        collection,
                        since,
                        limit=_LIMIT,
                        wait_s=_KEEP_ALIVE_S,
                        is_wanted=is_there,
                    )
                except UnavailableError:
                    page = Page(b"", since, applied=0)  # There may be one again.
        except (NoAnswerError, RequestError, OSError):
            # Whoever reads this connects again, after the last id that it has seen.
            if request.transport is not None:
                request.transport.abort()
        return response


def _is_there(request: web.Request) -> Callable[[], bool]:
    def is_there() -> bool:
        return request.transport is not None and not request.transport.is_closing()

    return is_there


def _since(request: web.Request) -> Cursor | None:
    """The place that the request names; None for now.

    Raises:
        InvalidQueryError: It names none.
    """
    told = request.headers.get("Last-Event-ID") or request.query.get("since", "0")
    if told == "now":
        return None
    try:
        return Cursor.parse(told)
    except ValueError:
        raise InvalidQueryError(
            "since must be a place in the feed, INDEX or INDEX.POSITION, or now.",
            "since debe ser un lugar en la serie de cambios, INDEX o INDEX.POSITION, o now.",
        ) from None


def _limit(request: web.Request) -> int:
    told = request.query.get("limit", str(_LIMIT))
    if not _INTEGER.fullmatch(told) or not 1 <= int(told) <= _LIMIT_MAX:
        raise InvalidQueryError(
            f"limit must be an integer from 1 to {_LIMIT_MAX}.",
            f"limit debe ser un entero de 1 a {_LIMIT_MAX}.",
        )
    return int(told)


def _timeout_s(request: web.Request) -> float:
    told = request.query.get("timeout", str(_TIMEOUT_S))
    if not _SECONDS.fullmatch(told) or float(told) > _TIMEOUT_S_MAX:
        raise InvalidQueryError(
            f"timeout must be a number of seconds from 0 to {_TIMEOUT_S_MAX}.",
            f"timeout debe ser un número de segundos de 0 a {_TIMEOUT_S_MAX}.",
        )
    return float(told)


def _check_parameters(request: web.Request) -> None:
    for name in request.query:
        if name not in _PARAMETERS or len(request.query.getall(name)) > 1:
            raise InvalidQueryError(
                f"A feed takes since, limit and timeout, each at most once; not «{name[:64]}».",
                "Una serie de cambios admite since, limit y timeout, cada uno a lo más una vez; "
                f"no «{name[:64]}».",
            )
