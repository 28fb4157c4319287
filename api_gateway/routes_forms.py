"""The REST API for forms. Paths and messages are those that its users know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from api_gateway import responses
from api_gateway.bodies import read_body
from api_gateway.consistency import wish_of
from api_gateway.errors import (
    FormExistsError,
    FormNotFoundError,
    InvalidRequestError,
    LeaderError,
    RequestError,
)
from api_gateway.forms import check_id, parse_form
from api_gateway.forwarding import Writes
from api_gateway.idempotency import key_of
from api_gateway.leader import Committed
from api_gateway.reads import Reads

_GENERO_CHARACTERS_MAX: Final = 128
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

    writes: Writes
    reads: Reads
    body_timeout_s: float

    def routes(self) -> list[web.RouteDef]:
        """All of them. An id's path takes anything, so that a bad id is always told as one."""
        everything = "/API/ObtenerTodosLosFormularios"
        return [
            web.get(f"/API/VerificaFormularioDuplicado/{{id:{_ANYTHING}}}", self.verify),
            web.post("/API/IngresarFormulario", self.insert),
            web.get(f"/API/ObtenerUnFormulario/{{id:{_ANYTHING}}}", self.get_one),
            web.get(everything, self.get_all, allow_head=False),
            web.get(f"{everything}/{{anything:{_ANYTHING}}}", self.get_all, allow_head=False),
            web.get("/API/ObtenerGeneros/{genero:[^/]+}", self.get_genero, allow_head=False),
        ]

    async def verify(self, request: web.Request) -> web.Response:
        """Tell whether there is a form with this id."""
        value, headers = await self._get(request)
        if value is None:
            return responses.ok(FormNotFoundError.message, headers)
        return responses.error(FormExistsError.message, status=200, headers=headers)

    async def insert(self, request: web.Request) -> web.Response:
        """Store a new form."""
        idempotency_key = key_of(request)
        form = parse_form(await read_body(request, self.body_timeout_s))
        committed = await self.writes.insert(form, idempotency_key)
        return responses.ok("Registro ingresado correctamente.", _proof(committed))

    async def get_one(self, request: web.Request) -> web.Response:
        """Give one form back, byte for byte as it is stored."""
        value, headers = await self._get(request)
        if value is None:
            return responses.error(FormNotFoundError.message, status=404, headers=headers)
        return responses.raw_json(value, headers=headers)

    async def _get(self, request: web.Request) -> tuple[bytes | None, Mapping[str, str]]:
        key, wish = check_id(request.match_info["id"]), wish_of(request)
        value, seen = await self.reads.get(key, wish)
        return value, seen.headers(wish.level)

    async def get_all(self, request: web.Request) -> web.StreamResponse:
        """Stream all forms in the order in which they were stored."""
        return await self._stream(request, None)

    async def get_genero(self, request: web.Request) -> web.StreamResponse:
        """Stream the forms of one genero."""
        genero = request.match_info["genero"]
        if len(genero) > _GENERO_CHARACTERS_MAX:
            raise InvalidRequestError(
                f"El genero debe tener a lo más {_GENERO_CHARACTERS_MAX} caracteres."
            )
        return await self._stream(request, genero)

    async def _stream(self, request: web.Request, genero: str | None) -> web.StreamResponse:
        wish = wish_of(request)
        stream = await self.reads.records(genero, wish)
        headers = {**responses.JSON_CONTENT, **stream.seen.headers(wish.level)}
        response = web.StreamResponse(headers=headers)
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


def _proof(committed: Committed) -> dict[str, str]:
    """Headers that say where the write is, and what took how long."""
    headers = {
        "X-Replicad-Index": str(committed.index),
        "X-Replicad-Acks": ",".join(committed.acks),
    }
    if committed.epoch is not None and committed.digest is not None:
        headers["X-Replicad-Epoch"] = str(committed.epoch)
        headers["X-Replicad-Digest"] = committed.digest
    if committed.timing:
        headers["Server-Timing"] = ", ".join(
            f"{name};dur={milliseconds}" for name, milliseconds in committed.timing.items()
        )
    return headers
