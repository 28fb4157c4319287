"""The REST API for collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from api_gateway.errors import InvalidQueryError, NoSuchCollectionError
from api_gateway.idempotency import key_of
from api_gateway.reading.consistency import wish_of
from api_gateway.reading.reads import Reads
from api_gateway.records.collection_writes import CollectionWrites
from api_gateway.records.conditions import condition_of, etag_of, is_known
from api_gateway.records.definitions import check_name, definition_from
from api_gateway.records.receipts import proof_of, receipt_of, status_of
from api_gateway.records.strict_json import parse_object
from api_gateway.web import responses
from api_gateway.web.bodies import check_media_type, parsed, read_body
from api_gateway.web.languages import encode, preferred_language
from replicad.core.write import DEFINITIONS, Condition

_COLLECTIONS: Final = "/v1/collections"
_COLLECTION: Final = f"{_COLLECTIONS}/{{collection}}"
_FORCE: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class CollectionRoutes:
    """Handlers of the collections' paths.

    Attributes:
        collections: The way of their definitions to the replicas.
        reads: The way of reads.
        body_timeout_s: How long a request's body may take to arrive.
    """

    collections: CollectionWrites
    reads: Reads
    body_timeout_s: float

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get(_COLLECTIONS, self.get_all),
            web.get(_COLLECTION, self.get),
            web.put(_COLLECTION, self.put),
            web.delete(_COLLECTION, self.delete),
        ]

    async def get_all(self, request: web.Request) -> web.Response:
        """List all collections."""
        wish = wish_of(request)
        found = await self.collections.all(wish)
        items = [definition.describe() for definition in found]
        return responses.raw_json(orjson.dumps({"items": items}))

    async def get(self, request: web.Request) -> web.Response:
        """Show one collection."""
        name, wish = _name_of(request), wish_of(request)
        stored, seen = await self.reads.get(DEFINITIONS, name, wish)
        definition = definition_from(name, stored)
        if definition is None:
            raise NoSuchCollectionError
        headers = {**seen.headers(wish.level), "ETag": etag_of(definition.version)}
        if is_known(request.headers.getall("If-None-Match", []), definition.version):
            return web.Response(status=304, headers=headers)
        return responses.raw_json(orjson.dumps(definition.describe()), headers=headers)

    async def put(self, request: web.Request) -> web.Response:
        """Define a collection, anew or otherwise than before."""
        name, idempotency, condition = (
            _name_of(request),
            key_of(request.headers),
            _condition_of(request),
        )
        force = _force_of(request)
        check_media_type(request.headers, "application/json")
        body = await parsed(parse_object, await read_body(request, self.body_timeout_s))
        definition, committed, failing = await self.collections.put(
            name, body.document, condition, idempotency, force=force
        )
        told = definition.describe() | {
            "epoch": committed.epoch,
            "digest": committed.digest,
            "replicas": committed.acks,
        }
        if failing is not None:
            told["failing"] = failing.describe()
        headers = proof_of(committed) | {"ETag": etag_of(definition.version)}
        status = status_of(committed)
        if status == 201:
            headers["Location"] = f"{_COLLECTIONS}/{name}"
        language = preferred_language(request.headers.get("Accept-Language"))
        return responses.raw_json(encode(told, language), status=status, headers=headers)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a collection that is empty."""
        name, idempotency, condition = (
            _name_of(request),
            key_of(request.headers),
            _condition_of(request),
        )
        committed = await self.collections.delete(name, condition, idempotency)
        receipt = orjson.dumps(receipt_of(committed, DEFINITIONS, name))
        return responses.raw_json(receipt, headers=proof_of(committed))


def _name_of(request: web.Request) -> str:
    return check_name(request.match_info["collection"])


def _condition_of(request: web.Request) -> Condition:
    return condition_of(
        request.headers.getall("If-Match", []), request.headers.getall("If-None-Match", [])
    )


def _force_of(request: web.Request) -> bool:
    try:
        return _FORCE[request.query.get("force", "false")]
    except KeyError:
        raise InvalidQueryError(
            "force must be true or false.", "force debe ser true o false."
        ) from None
