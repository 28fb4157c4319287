"""How answers look: JSON in UTF-8, errors included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from aiohttp import web

from api_gateway.errors import RequestError
from api_gateway.web import problems
from api_gateway.web.languages import Language, encode, preferred_language
from api_gateway.web.ready import JSON_CONTENT

_PROBLEM_PATHS: Final = ("/v1", "/docs", "/openapi.json")


def raw_json(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer whose body is JSON already."""
    return web.Response(body=body, status=status, headers={**JSON_CONTENT, **(headers or {})})


def ok_body(message: str) -> bytes:
    """What the older paths say of a success."""
    return orjson.dumps({"status": "ok", "message": message})


def error(message: str, *, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error with a message in Spanish, as the older paths tell it."""
    return raw_json(error_body(message), status=status, headers=headers)


def error_body(message: str) -> bytes:
    """What the older paths say of an error."""
    return orjson.dumps({"status": "error", "message": message})


def refusal(failure: RequestError, *, path: str, accept_language: str | None) -> web.Response:
    """The answer that a RequestError describes: a problem, or what the older paths say.

    Args:
        failure: What to tell.
        path: Of the request.
        accept_language: Its header, if it has one.
    """
    if path.startswith(_PROBLEM_PATHS):
        response = _problem(failure, accept_language)
    else:
        message = failure.older_spanish or failure.spanish
        response = error(message, status=failure.status, headers=failure.headers)
    if failure.closes:
        response.force_close()
    return response


def _problem(failure: RequestError, accept_language: str | None) -> web.Response:
    language = preferred_language(accept_language)
    members = failure.problem.describe(
        language,
        failure.spanish if language is Language.SPANISH else failure.english,
        failure.extensions,
    )
    headers = {
        "Content-Type": problems.CONTENT_TYPE,
        "Content-Language": language,
        "Vary": "Accept-Language",
        **failure.headers,
    }
    return web.Response(body=encode(members, language), status=failure.status, headers=headers)
