"""What happens around every request: it is measured, and each refusal becomes JSON.

Defects are not caught here but by the server below: see `server.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.hdrs import METH_ALL
from aiohttp.typedefs import Handler, Middleware

from api_gateway.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NoSuchRouteError,
    RequestError,
)
from api_gateway.metrics import Metrics
from api_gateway.reading.query_strings import check_encoding
from api_gateway.web import responses


@web.middleware
async def tell_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into a status and a JSON body."""
    try:
        if request.path.startswith("/v1/collections"):  # Elsewhere it means nothing, or took any.
            check_encoding(request.rel_url.raw_query_string)
        return await handler(request)
    except RequestError as failure:
        return _refusal(request, failure)
    except web.HTTPException as failure:
        return _refusal(request, _as_request_error(failure))


def _refusal(request: web.Request, failure: RequestError) -> web.Response:
    language = request.headers.get("Accept-Language")
    return responses.refusal(failure, path=request.path, accept_language=language)


def _as_request_error(failure: web.HTTPException) -> RequestError:
    """What aiohttp's router refuses."""
    match failure.status:
        case 404:
            return NoSuchRouteError()
        case 405:
            return MethodNotAllowedError(failure.headers["Allow"])
    return InvalidRequestError()


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
