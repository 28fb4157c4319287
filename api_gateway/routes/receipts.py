"""What each replica holds of one record, side by side."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from api_gateway.cluster.leader import LeaderClient
from api_gateway.cluster.watch import ClusterWatch, Source
from api_gateway.errors import BehindError, InvalidQueryError, LeaderError
from api_gateway.reading.changes import Changes
from api_gateway.records.definitions import check_name
from api_gateway.records.forms import check_id
from api_gateway.web import responses

# Longer than a replica waits until it is as far as it is asked for.
_REPLICA_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ReceiptRoutes:
    """The handler of `?verify=all` of a record's path.

    Attributes:
        client, watch: The way to all replicas.
        changes: Tells what is committed.
    """

    client: LeaderClient
    watch: ClusterWatch
    changes: Changes

    async def verify(self, request: web.Request) -> web.Response:
        """Ask every replica for the record as of one index, the latest committed one."""
        collection = check_name(request.match_info["collection"])
        key = check_id(request.match_info["id"])
        if list(request.query.items()) != [("verify", "all")]:
            raise InvalidQueryError(
                "verify must be all, and stand alone.", "verify debe ser all, sin más parámetros."
            )
        index = (await self.changes.now(collection)).index
        names = self._names()
        query = {"collection": collection, "key": key, "index": str(index)}
        told = await asyncio.gather(*(self._ask(name, query, index) for name in names))
        held = {(each.get("version"), each.get("sha256")) for each in told}
        body = {
            "collection": collection,
            "id": key,
            "agree": len(held) == 1 and not any("error" in each for each in told),
            "replicas": dict(zip(names, told, strict=True)),
        }
        headers = {"X-Replicad-Index": str(index)}
        return responses.raw_json(orjson.dumps(body), headers=headers)

    def _names(self) -> list[str]:
        """All replicas that there should be, and all that were ever seen."""
        view = self.watch.view
        configured = view.config.replicas if view is not None and view.config is not None else ()
        return sorted({*configured, *self.watch.urls})

    async def _ask(self, name: str, query: dict[str, str], index: int) -> dict[str, Any]:
        url = self.watch.urls.get(name)
        if url is None:
            return {"error": "unreachable"}
        source = Source(name, url, index)
        try:
            async with asyncio.timeout(_REPLICA_S):
                body, _, seen = await self.client.read(source, "record-digest", query)
            told = orjson.loads(body)
            version, digest = told["version"], told["sha256"]
        except BehindError:
            return {"error": "behind"}
        except (LeaderError, TimeoutError, ValueError, KeyError, TypeError):
            return {"error": "unreachable"}
        return {"version": version, "sha256": digest, "applied_index": seen.index}
