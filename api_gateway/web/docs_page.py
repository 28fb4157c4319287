"""Serves the description of the API, and the page that shows it in a browser.

Everything the page loads comes from the gateway itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import orjson
from aiohttp import web
from aiohttp.hdrs import ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH

from api_gateway.errors import NoSuchRouteError
from api_gateway.openapi.document import describe_api
from api_gateway.web.compression import Coding, encode_whole, preferred_coding
from api_gateway.web.headers import CONTENT_SECURITY_POLICY
from api_gateway.web.ready import JSON_CONTENT

_INDEX: Final = "index.html"
_TYPES: Final = {
    _INDEX: "text/html; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
# Its icons are data.
_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that never changes while the gateway runs."""

    body: bytes
    content_type: str
    etag: str


class DocumentationRoutes:
    """Handlers of the documentation's paths."""

    def __init__(self) -> None:
        """Read nothing yet: most gateways are never asked."""
        self._coded: dict[tuple[str, Coding], bytes] = {}

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/openapi.json", self.description),
            web.get("/docs", self.page),
            web.get("/docs/{file}", self.file),
        ]

    async def description(self, request: web.Request) -> web.Response:
        """The API as an OpenAPI document."""
        return await self._serve(request, _description())

    async def page(self, request: web.Request) -> web.Response:
        """The page that shows it."""
        return await self._serve(request, _load(_INDEX))

    async def file(self, request: web.Request) -> web.Response:
        """What the page loads."""
        name = request.match_info["file"]
        if name not in _TYPES or name == _INDEX:
            raise NoSuchRouteError
        return await self._serve(request, await asyncio.to_thread(_load, name))

    async def _serve(self, request: web.Request, file: _File) -> web.Response:
        headers = {
            CONTENT_TYPE: file.content_type,
            CONTENT_SECURITY_POLICY: _PAGE,
            ETAG: file.etag,
        }
        if file.etag in request.headers.get(IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        body = file.body
        if coding := preferred_coding(request.headers.get(ACCEPT_ENCODING)):
            headers[CONTENT_ENCODING] = coding
            body = await self._encoded(file, coding)
        return web.Response(body=body, headers=headers)

    async def _encoded(self, file: _File, coding: Coding) -> bytes:
        """Compressed once: the files are large, and browsers load them again and again."""
        key = (file.etag, coding)
        if key not in self._coded:
            self._coded[key] = await encode_whole(file.body, coding)
        return self._coded[key]


@cache
def _load(name: str) -> _File:
    body = (resources.files("api_gateway.openapi") / "static" / name).read_bytes()
    return _file(body, _TYPES[name])


@cache
def _description() -> _File:
    return _file(orjson.dumps(describe_api()), JSON_CONTENT["Content-Type"])


def _file(body: bytes, content_type: str) -> _File:
    return _File(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
