"""What happens around every request: it is limited and measured, and each refusal becomes JSON.

Defects are not caught here but by the server below: see `server.py`.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

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
from api_gateway.web.compression import compress_body
from api_gateway.web.cors import is_preflight, preflight_answer
from api_gateway.web.limits import Admission

# Of these bad encoding is told; elsewhere it means nothing, or any was taken always.
_CHECKED: Final = "/v1/collections"


class Around:
    """All of it in one place: a request pays for each layer around its handler."""

    def __init__(self, metrics: Metrics, admission: Admission, origins: frozenset[str]) -> None:
        """Count into `metrics`, let in what `admission` allows, and serve pages of `origins`."""
        self._requests = metrics.requests
        self._admission = admission
        self._origins = origins
        metrics.in_flight.set_function(lambda: admission.in_flight)

    def middleware(self) -> Middleware:
        """The same for an application's handlers."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else "unmatched"
            return await self.run(request, route, handler)

        return around

    async def run(self, request: web.Request, route: str, handler: Handler) -> web.StreamResponse:
        """Have `handler` answer the request, which counts as one of `route`."""
        # Routes and methods are the server's: a client must not be able to make up labels.
        method = request.method if request.method in METH_ALL else "other"
        status, started = 500, perf_counter()
        try:
            response = await self._answer(request, handler)
            status = response.status
        finally:
            self._requests.observe(route, method, status, perf_counter() - started)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            query = request.rel_url.raw_query_string
            if query and request.path.startswith(_CHECKED):
                check_encoding(query)
            if is_preflight(request, self._origins):
                return preflight_answer()
            response = await self._admission.run(request, handler)
        except RequestError as failure:
            response = _refusal(request, failure)
        except web.HTTPException as failure:
            response = _refusal(request, _as_request_error(failure))
        await compress_body(request.headers, response)
        return response


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
