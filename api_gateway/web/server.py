"""The HTTP server under the application, whose own errors are JSON like all others.

What aiohttp answers by itself, to a request that is not HTTP, to an expectation or to a defect in
a handler, never passes through a middleware.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import InvalidURLError

from api_gateway.errors import (
    ExpectationFailedError,
    InternalError,
    InvalidRequestError,
    RequestError,
)
from api_gateway.web import responses
from api_gateway.web.headers import safe_headers
from replicad.httpd.runner import Runner, Server

_REQUEST_LINE: Final = re.compile(rb"[A-Z]+ (/[!-~]{0,16})")
_NOT_HTTP: Final = (
    "The request is not valid HTTP.",
    "La solicitud no es HTTP válido.",
)
_NOT_A_PATH: Final = (
    "The path is not valid: what is not ASCII must be encoded with %.",
    "La ruta no es válida: lo que no es ASCII debe ir codificado con %.",
)


class JsonErrorRunner(Runner):
    """A Runner whose connections answer every error in JSON."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await server.request_handler(request)
            except web.HTTPExpectationFailed:
                return _refusal(ExpectationFailedError(), request)

        return _JsonErrorServer(
            self.usual, handle, request_factory=server.request_factory, **self._kwargs
        )


def _refusal(failure: RequestError, request: web.BaseRequest) -> web.Response:
    language = request.headers.get("Accept-Language")
    response = responses.refusal(failure, path=request.path, accept_language=language)
    response.headers.update(safe_headers(has_etag=False))
    return response


class _JsonErrorServer(Server):
    def handler(self) -> web.RequestHandler:
        return _JsonErrorHandler(self, loop=self._loop, **self._kwargs)


class _JsonErrorHandler(web.RequestHandler):
    __slots__ = ("_path",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._path = ""
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # Of a request that it cannot parse, aiohttp tells no path. This one only decides how the
        # error is told; with requests in one piece, as most are, it is the right one.
        if line := _REQUEST_LINE.match(data):
            self._path = line[1].decode()
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            # Logs the defect, and raises when part of an answer has been sent already.
            super().handle_error(request, status, exc, message)
            return _refusal(InternalError(), request)
        texts = _NOT_A_PATH if isinstance(exc, InvalidURLError) else _NOT_HTTP
        response = responses.refusal(
            InvalidRequestError(*texts), path=self._path, accept_language=None
        )
        response.force_close()
        return response
