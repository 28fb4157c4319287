"""What happens around every request: it is measured, and each refusal becomes JSON.

Defects are not caught here but by the server below: see `server.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.hdrs import METH_ALL
from aiohttp.typedefs import Handler, Middleware

from api_gateway import responses
from api_gateway.errors import RequestError
from api_gateway.metrics import Metrics

_MESSAGES: Final = {
    404: "La ruta solicitada no existe.",
    405: "El método no está permitido en esta ruta.",
}


@web.middleware
async def json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into a status and a JSON body."""
    try:
        return await handler(request)
    except RequestError as failure:
        return responses.from_request_error(failure)
    except web.HTTPException as failure:
        allow = {"Allow": failure.headers["Allow"]} if "Allow" in failure.headers else None
        message = _MESSAGES.get(failure.status, "La solicitud no es válida.")
        return responses.error(message, status=failure.status, headers=allow)


def measuring(metrics: Metrics) -> Middleware:
    """A middleware that counts requests and their seconds."""

    @web.middleware
    async def measure(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        route = _route(request)
        # Routes and methods are the server's: a client must not be able to make up labels.
        method = request.method if request.method in METH_ALL else "other"
        status = 500
        try:
            with metrics.seconds.labels(route).time():
                response = await handler(request)
            status = response.status
        finally:
            metrics.requests.labels(route, method, status).inc()
        return response

    return measure


def _route(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"
