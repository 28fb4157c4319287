"""How answers look: JSON in UTF-8, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from aiohttp import web

from api_gateway.errors import RequestError

JSON_CONTENT: Final = {"Content-Type": "application/json; charset=utf-8"}


def raw_json(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer whose body is JSON already."""
    return web.Response(body=body, status=status, headers={**JSON_CONTENT, **(headers or {})})


def ok(message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A success that says something."""
    return raw_json(orjson.dumps({"status": "ok", "message": message}), headers=headers)


def error(message: str, *, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error with a message in Spanish."""
    body = orjson.dumps({"status": "error", "message": message})
    return raw_json(body, status=status, headers=headers)


def from_request_error(failure: RequestError) -> web.Response:
    """The answer that a RequestError describes."""
    response = error(failure.message, status=failure.status, headers=failure.headers)
    if failure.closes:
        response.force_close()
    return response
