"""The HTTP server under the application, whose own errors are JSON in Spanish like all others.

What aiohttp answers by itself, to a request that is not HTTP or to a defect in a handler, never
passes through a middleware; its one hook is `RequestHandler.handle_error`.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.http_exceptions import InvalidURLError

from api_gateway import responses


class JsonErrorRunner(web.AppRunner):
    """An AppRunner whose connections answer every error in JSON."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _JsonErrorServer(
            server.request_handler, request_factory=server.request_factory, **self._kwargs
        )


class _JsonErrorServer(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _JsonErrorHandler(self, loop=self._loop, **self._kwargs)


class _JsonErrorHandler(web.RequestHandler):
    __slots__ = ()

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
            text = "Ocurrió un error interno en el sistema."
        elif isinstance(exc, InvalidURLError):
            text = "La ruta no es válida: lo que no es ASCII debe ir codificado con %."
        else:
            text = "La solicitud no es HTTP válido."
        response = responses.error(text, status=status)
        response.force_close()
        return response
