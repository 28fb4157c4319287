"""Handlers of the requests that come most often, which need no aiohttp."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from replicad.httpd.messages import Answer, Request

JSON: Final = {"Content-Type": "application/json"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}

Handler = Callable[[Request], Awaitable[Answer]]
"""Answers a request, or raises what aiohttp would answer with."""

_log = structlog.get_logger(__name__)


async def answered(handler: Handler, request: Request) -> Answer:
    """The handler's answer, or the refusal that it raised."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        body = refusal.body
        return Answer(refusal.status, refusal.headers, body if isinstance(body, bytes) else b"")
    except Exception:  # A defect; aiohttp's server does the same with one.
        _log.exception("request_failed", target=request.target)
        return Answer(500, JSON, b'{"error":"internal error"}')


def routed(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The same handler for aiohttp's router."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        answer = await handler(Request(request.method, request.raw_path, request.headers, body))
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    return handle
