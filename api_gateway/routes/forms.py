"""The REST API for forms. Paths and messages are those that its users know."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from api_gateway.cluster.leader import Stored
from api_gateway.errors import (
    InvalidRecordError,
    InvalidRequestError,
    LeaderError,
    NoSuchRecordError,
    RecordExistsError,
    RequestError,
)
from api_gateway.idempotency import key_of
from api_gateway.reading.consistency import Wish, wish_by, wish_of
from api_gateway.reading.reads import Reads
from api_gateway.records.definitions import FORMS
from api_gateway.records.forms import check_id, parse_form
from api_gateway.records.receipts import proof_of
from api_gateway.records.record_writes import RecordWrites
from api_gateway.web import responses
from api_gateway.web.bodies import parsed
from api_gateway.web.compression import CodedStream
from api_gateway.web.express import CONSISTENCY, ID, ExpressRoute, routed
from api_gateway.web.ready import JSON_CONTENT, as_response, ready
from replicad.httpd.messages import Answer, Request

_GENERO_CHARACTERS_MAX: Final = 128
_STORED: Final = responses.ok_body("Registro ingresado correctamente.")
# Slashes and line ends included, which `.` would leave out.
_ANYTHING: Final = r"[\s\S]*"
# For one chunk of a streamed answer: a client that takes longer must not hold a replica's read
# for ever.
_CHUNK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class FormRoutes:
    """Handlers of the forms' paths.

    Attributes:
        writes, reads: The way to the replicas.
        body_timeout_s: How long a request's body may take to arrive.
    """

    writes: RecordWrites
    reads: Reads
    body_timeout_s: float

    def routes(self) -> list[web.RouteDef]:
        """All of them. An id's path takes anything, so that a bad id is always told as one."""
        everything = "/API/ObtenerTodosLosFormularios"
        return [
            web.get(f"/API/VerificaFormularioDuplicado/{{id:{_ANYTHING}}}", self.verify),
            web.post("/API/IngresarFormulario", routed(self.insert, self.body_timeout_s)),
            web.get(f"/API/ObtenerUnFormulario/{{id:{_ANYTHING}}}", self.get_one),
            web.get(everything, self.get_all, allow_head=False),
            web.get(f"{everything}/{{anything:{_ANYTHING}}}", self.get_all, allow_head=False),
            web.get("/API/ObtenerGeneros/{genero:[^/]+}", self.get_genero, allow_head=False),
        ]

    def express_routes(self) -> list[ExpressRoute]:
        """Those of them that most requests take."""
        one, insert = "/API/ObtenerUnFormulario/", "/API/IngresarFormulario"
        pattern = re.compile(re.escape(one) + ID + CONSISTENCY)
        name = web.DynamicResource(f"{one}{{id:{_ANYTHING}}}").canonical
        return [
            ExpressRoute("POST", re.compile(re.escape(insert)), insert, self.insert),
            ExpressRoute("GET", pattern, name, self.get_one_by),
        ]

    async def verify(self, request: web.Request) -> web.StreamResponse:
        """Tell whether there is a form with this id."""
        stored, headers = await self._get(request.match_info["id"], wish_of(request))
        if stored is None:
            body = responses.ok_body(NoSuchRecordError.older_spanish)
            return as_response(ready(body, headers=headers))
        return responses.error(RecordExistsError.older_spanish, status=200, headers=headers)

    async def insert(self, request: Request) -> Answer:
        """Store a new form."""
        idempotency_key = key_of(request.headers)
        form = await parsed(parse_form, request.body)
        try:
            _, committed = await self.writes.insert(FORMS, form, idempotency_key)
        except InvalidRecordError as error:
            # To these users a form that breaks a rule is a bad request, whoever made the rule.
            raise InvalidRequestError(error.english, error.spanish) from error
        return ready(_STORED, headers=proof_of(committed))

    async def get_one(self, request: web.Request) -> web.StreamResponse:
        """Give one form back, byte for byte as it is stored."""
        return as_response(await self._get_one(request.match_info["id"], wish_of(request)))

    async def get_one_by(self, request: Request, key: str, level: str | None) -> Answer:
        """The same, by what is in the path and in the query."""
        return await self._get_one(key, wish_by(request.headers, [level] if level else []))

    async def _get_one(self, key: str, wish: Wish) -> Answer:
        stored, headers = await self._get(key, wish)
        if stored is None:
            body = responses.error_body(NoSuchRecordError.older_spanish)
            return ready(body, status=404, headers=headers)
        return ready(stored.value, headers=headers)

    async def _get(self, key: str, wish: Wish) -> tuple[Stored | None, Mapping[str, str]]:
        stored, seen = await self.reads.get(FORMS, check_id(key), wish)
        return stored, seen.headers(wish.level)

    async def get_all(self, request: web.Request) -> web.StreamResponse:
        """Stream all forms in the order in which they were stored."""
        return await self._stream(request, None)

    async def get_genero(self, request: web.Request) -> web.StreamResponse:
        """Stream the forms of one genero."""
        genero = request.match_info["genero"]
        if len(genero) > _GENERO_CHARACTERS_MAX:
            raise InvalidRequestError(
                f"The genero may have at most {_GENERO_CHARACTERS_MAX} characters.",
                f"El genero debe tener a lo más {_GENERO_CHARACTERS_MAX} caracteres.",
            )
        return await self._stream(request, genero)

    async def _stream(self, request: web.Request, genero: str | None) -> web.StreamResponse:
        wish = wish_of(request)
        stream = await self.reads.records(FORMS, genero, wish)
        headers = {**JSON_CONTENT, **stream.seen.headers(wish.level)}
        response = CodedStream(headers=headers)
        try:
            await response.prepare(request)
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    async with asyncio.timeout(_CHUNK_S):
                        await response.write(chunk)
        except (LeaderError, RequestError, OSError):
            # An array cut short must not look complete: no final chunk, no orderly end.
            if request.transport is not None:
                request.transport.abort()
        finally:
            stream.close()
        return response
