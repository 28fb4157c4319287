"""The REST API for records: one at a time, and several at once."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web
from multidict import MultiMapping

from api_gateway.cluster.leader import Committed
from api_gateway.errors import InvalidQueryError, InvalidRequestError, NoSuchRecordError
from api_gateway.idempotency import key_of
from api_gateway.reading.consistency import Wish, wish_by, wish_of
from api_gateway.reading.reads import Reads
from api_gateway.records.batches import BATCH_MEBIBYTES_MAX, parse_batch
from api_gateway.records.conditions import condition_of, etag_of, is_known
from api_gateway.records.definitions import Definitions, check_name
from api_gateway.records.forms import check_id
from api_gateway.records.receipts import (
    batch_receipt_of,
    etag_after,
    proof_of,
    receipt_of,
    status_of,
)
from api_gateway.records.record_writes import RecordWrites
from api_gateway.records.strict_json import parse_object
from api_gateway.web import responses
from api_gateway.web.bodies import check_media_type, parsed, read_body
from api_gateway.web.express import CONSISTENCY, ID, ExpressRoute, routed
from api_gateway.web.ready import as_response, ready
from replicad.core.write import Condition, Wanted
from replicad.httpd.messages import Answer, Request

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
RECORDS: Final = "/v1/collections/{collection}/records"
RECORD: Final = RECORDS + "/{id:[^/]+}"
Aspect = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class RecordRoutes:
    """Handlers of the records' paths.

    Attributes:
        writes: The way of writes to the leader.
        reads: The way of reads to the replicas.
        definitions: Of the collections.
        body_timeout_s: How long a request's body may take to arrive.
        aspects: Other ways to see a record, by the query parameter that asks for them.
    """

    writes: RecordWrites
    reads: Reads
    definitions: Definitions
    body_timeout_s: float
    aspects: Mapping[str, Aspect]

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.post(RECORDS, self.insert),
            web.post(f"{RECORDS}:batch", self.batch),
            web.get(RECORD, self.get),
            web.put(RECORD, routed(self.put, self.body_timeout_s)),
            web.patch(RECORD, self.patch),
            web.delete(RECORD, self.delete),
        ]

    def express_routes(self) -> list[ExpressRoute]:
        """Those of them that most requests take."""
        path = f"/v1/collections/{ID}/records/{ID}"
        name = web.DynamicResource(RECORD).canonical
        return [
            ExpressRoute("GET", re.compile(path + CONSISTENCY), name, self.get_by),
            ExpressRoute("PUT", re.compile(path), name, self.put),
        ]

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Give a record back, byte for byte as it is stored."""
        collection, key = _name_of(request)
        for parameter in request.query:
            if parameter in self.aspects:
                return await self.aspects[parameter](request)
            if parameter != "consistency":
                raise InvalidQueryError(
                    f"A record has no view by the parameter «{parameter[:64]}».",
                    f"Un registro no se puede ver por el parámetro «{parameter[:64]}».",
                )
        return as_response(await self._get(request.headers, collection, key, wish_of(request)))

    async def get_by(
        self, request: Request, collection: str, key: str, level: str | None
    ) -> Answer:
        """The same, by what is in the path and in the query."""
        wish = wish_by(request.headers, [level] if level else [])
        return await self._get(request.headers, check_name(collection), check_id(key), wish)

    async def _get(self, asked: MultiMapping[str], collection: str, key: str, wish: Wish) -> Answer:
        stored, seen = await self.reads.get(collection, key, wish)
        if stored is None:
            await self.definitions.check_exists(collection, wish)
            error = NoSuchRecordError()
            error.headers = seen.headers(wish.level)
            raise error
        headers = {**seen.headers(wish.level), "ETag": etag_of(stored.version)}
        if is_known(asked.getall("If-None-Match", []), stored.version):
            return ready(b"", status=304, headers=headers)
        return ready(stored.value, headers=headers)

    async def put(self, request: Request, collection: str, key: str) -> Answer:
        """Store a record, new or not."""
        check_name(collection)
        check_id(key)
        idempotency, condition = key_of(request.headers), _condition_of(request.headers)
        check_media_type(request.headers, JSON)
        body = await parsed(parse_object, request.body)
        committed = await self.writes.put(collection, key, body, condition, idempotency)
        return _receipt(committed, collection, key)

    async def insert(self, request: web.Request) -> web.StreamResponse:
        """Store a new record under the id that it holds."""
        collection, idempotency = _collection_of(request), key_of(request.headers)
        _check_unconditional(request)
        check_media_type(request.headers, JSON)
        body = await parsed(parse_object, await read_body(request, self.body_timeout_s))
        key, committed = await self.writes.insert(collection, body, idempotency)
        return as_response(_receipt(committed, collection, key))

    async def patch(self, request: web.Request) -> web.StreamResponse:
        """Apply a merge patch to a record."""
        collection, key = _name_of(request)
        idempotency, condition = key_of(request.headers), _condition_on_what_is_there(request)
        check_media_type(request.headers, MERGE_PATCH, JSON)
        body = await parsed(parse_object, await read_body(request, self.body_timeout_s))
        committed = await self.writes.patch(collection, key, body.canonical, condition, idempotency)
        return as_response(_receipt(committed, collection, key))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a record."""
        collection, key = _name_of(request)
        idempotency, condition = key_of(request.headers), _condition_on_what_is_there(request)
        committed = await self.writes.delete(collection, key, condition, idempotency)
        return as_response(_receipt(committed, collection, key))

    async def batch(self, request: web.Request) -> web.Response:
        """Do several operations, all or none."""
        collection, idempotency = _collection_of(request), key_of(request.headers)
        _check_unconditional(request)
        check_media_type(request.headers, JSON)
        body = await read_body(request, self.body_timeout_s, BATCH_MEBIBYTES_MAX)
        batch = await parsed(parse_batch, body)
        committed = await self.writes.batch(collection, batch, idempotency)
        keys = [each.operation.key for each in batch]
        receipt = orjson.dumps(batch_receipt_of(committed, collection, keys))
        return responses.raw_json(receipt, headers=proof_of(committed))


def _collection_of(request: web.Request) -> str:
    return check_name(request.match_info["collection"])


def _name_of(request: web.Request) -> tuple[str, str]:
    return _collection_of(request), check_id(request.match_info["id"])


def _condition_of(headers: MultiMapping[str]) -> Condition:
    return condition_of(headers.getall("If-Match", []), headers.getall("If-None-Match", []))


def _condition_on_what_is_there(request: web.Request) -> Condition:
    condition = _condition_of(request.headers)
    if condition is Wanted.ABSENT:
        raise InvalidRequestError(
            "If-None-Match makes no sense here: the record must be there.",
            "If-None-Match no tiene sentido aquí: el registro debe existir.",
        )
    return condition


def _check_unconditional(request: web.Request) -> None:
    if _condition_of(request.headers) is not Wanted.ANYTHING:
        raise InvalidRequestError(
            "This request takes neither If-Match nor If-None-Match.",
            "Esta solicitud no admite If-Match ni If-None-Match.",
        )


def _receipt(committed: Committed, collection: str, key: str) -> Answer:
    headers, status = proof_of(committed), status_of(committed)
    etag = etag_after(committed)
    if etag is not None:
        headers["ETag"] = etag
    if status == 201:
        headers["Location"] = f"/v1/collections/{collection}/records/{key}"
    receipt = orjson.dumps(receipt_of(committed, collection, key))
    return ready(receipt, status=status, headers=headers)
