"""What every answer carries: for browsers, caches and the pages of other origins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.hdrs import ACCEPT_ENCODING, CACHE_CONTROL, ETAG, ORIGIN, VARY
from multidict import CIMultiDict

from api_gateway.web.cors import ANY_ORIGIN, cors_headers

CONTENT_SECURITY_POLICY: Final = "Content-Security-Policy"

# Data is never a page: should a browser be led to show it as one, it can load and run nothing.
_NOT_A_PAGE: Final = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS: Final = {
    "Referrer-Policy": "no-referrer",
    "Server": "replicad",
    "X-Content-Type-Options": "nosniff",
}


def safe_headers(*, has_etag: bool) -> dict[str, str]:
    """What all answers carry that are no pages, whoever asks.

    What has an ETag may be kept, and is asked about again each time; nothing else is kept.
    """
    cached = "no-cache" if has_etag else "no-store"
    return {**_ALWAYS, CONTENT_SECURITY_POLICY: _NOT_A_PAGE, CACHE_CONTROL: cached}


def complete(headers: CIMultiDict[str], vary: str = ACCEPT_ENCODING) -> None:
    """Complete the headers of an answer."""
    headers.update(_ALWAYS)
    for name, value in safe_headers(has_etag=ETAG in headers).items():
        headers.setdefault(name, value)
    headers.add(VARY, vary)


def completing(
    origins: frozenset[str],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A hook that completes an answer's headers just before they are sent.

    Args:
        origins: Those whose pages may read answers; see `cors.py`.
    """
    vary: str = ACCEPT_ENCODING
    if origins and ANY_ORIGIN not in origins:
        vary = f"{ACCEPT_ENCODING}, {ORIGIN}"

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        complete(response.headers, vary)
        if origins:
            response.headers.update(cors_headers(origins, request.headers.get(ORIGIN)))

    return on_prepare
