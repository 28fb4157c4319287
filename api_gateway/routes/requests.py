"""What became of a write, asked by its idempotency key alone."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from aiohttp import web

from api_gateway.idempotency import check_key
from api_gateway.reading.consistency import Level
from api_gateway.reading.reads import Reads
from api_gateway.web import responses


@dataclass(frozen=True, slots=True)
class RequestRoutes:
    """Handlers of the outcomes' paths."""

    reads: Reads

    def routes(self) -> list[web.RouteDef]:
        """All of them. The path takes anything, so that a bad key is always told as one."""
        return [web.get(r"/v1/requests/{key:[\s\S]*}", self.outcome)]

    async def outcome(self, request: web.Request) -> web.Response:
        """200 once it is committed; 404 while the leader knows of no such write."""
        outcome, seen = await self.reads.outcome(check_key(request.match_info["key"]))
        return responses.raw_json(
            orjson.dumps(outcome),
            status=200 if outcome["state"] == "committed" else 404,
            headers=seen.headers(Level.STRONG),
        )
