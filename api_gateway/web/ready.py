"""Answers that are there as a whole: JSON, with the headers that all such answers carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.hdrs import ACCEPT_ENCODING

from api_gateway.web.headers import safe_headers
from replicad.httpd.messages import Answer, lines

JSON_CONTENT: Final = {"Content-Type": "application/json; charset=utf-8"}

# One join for each answer: headers looked at one by one would take longer than a small read.
_COMMON: Final = {
    has_etag: lines({**JSON_CONTENT, **safe_headers(has_etag=has_etag), "Vary": ACCEPT_ENCODING})
    for has_etag in (False, True)
}


def ready(body: bytes, *, status: int = 200, headers: Mapping[str, str]) -> Answer:
    """A JSON answer.

    Args:
        body: JSON.
        status: Of HTTP.
        headers: What it has besides those of all answers, named as RFC 9110 writes them.
    """
    return Answer(status, headers, body, _COMMON["ETag" in headers])


def as_response(answer: Answer) -> web.Response:
    """The same for aiohttp to complete and to send."""
    headers = {**JSON_CONTENT, **answer.headers} if answer.more else answer.headers
    return web.Response(body=answer.body or None, status=answer.status, headers=headers)
