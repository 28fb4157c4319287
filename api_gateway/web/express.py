"""The few routes that most requests take, served without aiohttp's server and router.

They are also in the router, which serves whatever does not look quite as usual.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.hdrs import ACCEPT_ENCODING

from api_gateway.errors import InternalError, RequestError
from api_gateway.metrics import Metrics
from api_gateway.web import responses
from api_gateway.web.bodies import whole
from api_gateway.web.compression import BODY_BYTES_MIN, compress_body
from api_gateway.web.headers import complete
from api_gateway.web.limits import Admission
from api_gateway.web.ready import as_response
from replicad.httpd.messages import Answer, Request

ID: Final = r"([A-Za-z0-9._-]+)"
"""Of a pattern: ids without anything that would have to be decoded."""
CONSISTENCY: Final = r"(?:\?consistency=(strong|session|local))?"
"""Of a pattern: the one parameter that reads have."""
Handler = Callable[..., Awaitable[Answer]]
"""Answers a request, and gets what was caught in its target, too."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ExpressRoute:
    """A route.

    Attributes:
        method: Of HTTP.
        target: Matches the request's target as it is sent.
        name: What the router calls the same route.
        handler: Takes the request and what `target` has caught.
    """

    method: str
    target: re.Pattern[str]
    name: str
    handler: Handler


class Express:
    """A table of them."""

    def __init__(
        self, metrics: Metrics, admission: Admission, routes: Sequence[ExpressRoute]
    ) -> None:
        """Serve `routes` as long as `admission` has no reason to refuse."""
        self._requests = metrics.requests
        self._admission = admission
        self._by_method: dict[str, list[ExpressRoute]] = {}
        for route in routes:
            self._by_method.setdefault(route.method, []).append(route)

    def serve(self, request: Request) -> Coroutine[Any, Any, Answer] | None:
        """Answer a request; None if it has to go through aiohttp."""
        if not self._admission.is_open:
            return None
        for route in self._by_method.get(request.method, ()):
            caught = route.target.fullmatch(request.target)
            if caught is not None:
                self._admission.in_flight += 1  # Before another request that came with this one.
                return self._run(request, route, caught.groups())
        return None

    async def _run(
        self, request: Request, route: ExpressRoute, caught: tuple[str | None, ...]
    ) -> Answer:
        status, started = 500, perf_counter()
        try:
            try:
                answer = await route.handler(request, *caught)
            except RequestError as failure:
                answer = await _refusal(request, failure)
            except Exception:  # A defect; aiohttp's server does the same with one.
                _log.exception("request_failed", route=route.name)
                answer = await _refusal(request, InternalError())
            else:
                if len(answer.body) >= BODY_BYTES_MIN and ACCEPT_ENCODING in request.headers:
                    answer = await _complete(request, as_response(answer))
            status = answer.status
        finally:
            self._admission.in_flight -= 1
            self._requests.observe(route.name, route.method, status, perf_counter() - started)
        return answer


async def _refusal(request: Request, failure: RequestError) -> Answer:
    path, language = request.target.partition("?")[0], request.headers.get("Accept-Language")
    refusal = responses.refusal(failure, path=path, accept_language=language)
    return await _complete(request, refusal)


async def _complete(request: Request, response: web.Response) -> Answer:
    """What aiohttp and its hooks would have made of an answer."""
    await compress_body(request.headers, response)
    complete(response.headers)
    body = response.body
    return Answer(response.status, response.headers, body if isinstance(body, bytes) else b"")


def routed(
    handler: Handler, body_timeout_s: float
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The same handler for the router; it gets what stands in the path."""

    async def handle(request: web.Request) -> web.StreamResponse:
        usual = await whole(request, body_timeout_s)
        return as_response(await handler(usual, *request.match_info.values()))

    return handle
