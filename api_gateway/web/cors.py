"""Lets the pages of other origins use the API from a browser; off unless origins are named.

Without credentials: the API has no cookies.

Source: the Fetch standard, 3.2 "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.hdrs import (
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD,
    METH_OPTIONS,
    ORIGIN,
)

ANY_ORIGIN: Final = "*"

_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS: Final = (
    "Accept-Language, Content-Encoding, Content-Type, Idempotency-Key, If-Match, If-None-Match, "
    "Last-Event-ID, X-Replicad-Consistency, X-Replicad-Min-Index"
)
_ANSWER_HEADERS: Final = (
    "Content-Language, ETag, Idempotency-Key, Idempotency-Replayed, Location, Retry-After, "
    "Server-Timing, X-Replicad-Acks, X-Replicad-Consistency, X-Replicad-Digest, X-Replicad-Epoch, "
    "X-Replicad-Index, X-Replicad-Next, X-Replicad-Replica, X-Replicad-Staleness-Ms"
)
_PREFLIGHT: Final = {
    ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
    ACCESS_CONTROL_MAX_AGE: "7200",
}


def cors_headers(origins: frozenset[str], origin: str | None) -> Mapping[str, str]:
    """What an answer carries so that a page of `origin` may read it; nothing if it may not.

    Args:
        origins: As in the option --cors-origin.
        origin: The request's header Origin.
    """
    if origin is None or not (ANY_ORIGIN in origins or origin in origins):
        return {}
    allowed = ANY_ORIGIN if ANY_ORIGIN in origins else origin
    return {
        ACCESS_CONTROL_ALLOW_ORIGIN: allowed,
        ACCESS_CONTROL_EXPOSE_HEADERS: _ANSWER_HEADERS,
    }


def is_preflight(request: web.Request, origins: frozenset[str]) -> bool:
    """Whether a browser asks beforehand what a page of `origins` may send."""
    return (
        request.method == METH_OPTIONS
        and ACCESS_CONTROL_REQUEST_METHOD in request.headers
        and bool(cors_headers(origins, request.headers.get(ORIGIN)))
    )


def preflight_answer() -> web.Response:
    """What it is told."""
    return web.Response(status=204, headers=_PREFLIGHT)
