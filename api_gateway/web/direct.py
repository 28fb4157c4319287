"""The few routes that most requests take, found without aiohttp's router.

They are also in the router, which serves whatever does not look quite as usual.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.hdrs import EXPECT

from api_gateway.web.headers import Complete
from api_gateway.web.limits import Answering
from api_gateway.web.middleware import Around
from api_gateway.web.ready import Ready

ID: Final = r"([A-Za-z0-9._-]+)"
"""Of a pattern: ids without anything that would have to be decoded."""
CONSISTENCY: Final = r"(?:\?consistency=(strong|session|local))?"
"""Of a pattern: the one parameter that reads have."""


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route.

    Attributes:
        method: Of HTTP.
        path: Matches the request's target as it is sent.
        name: What the router calls the same route.
        handler: Takes the request and what `path` has caught.
    """

    method: str
    path: re.Pattern[str]
    name: str
    handler: Answering


class DirectRoutes:
    """A table of them."""

    def __init__(self, around: Around, complete: Complete, routes: Sequence[DirectRoute]) -> None:
        """Serve `routes`, with `around` around them; `complete` gets what is not ready."""
        self._around = around
        self._complete = complete
        self._by_method: dict[str, list[DirectRoute]] = {}
        for route in routes:
            self._by_method.setdefault(route.method, []).append(route)

    async def serve(self, request: web.Request) -> web.StreamResponse | None:
        """The answer; None if the request has to go through the router."""
        for route in self._by_method.get(request.method, ()):
            caught = route.path.fullmatch(request.raw_path)
            if caught is not None and EXPECT not in request.headers:
                response = await self._around.run(
                    request, route.name, route.handler, *caught.groups()
                )
                if not isinstance(response, Ready):
                    await self._complete(request, response)
                return response
        return None
