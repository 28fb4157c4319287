"""The REST API for forms. Paths and messages are those that its users know."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web

from api_gateway import responses
from api_gateway.bodies import read_body
from api_gateway.errors import FormExistsError, FormNotFoundError, InvalidRequestError
from api_gateway.forms import check_id, parse_form
from api_gateway.forwarding import Reads, Writes
from api_gateway.leader import Committed

_GENERO_CHARACTERS_MAX: Final = 128
# Slashes and line ends included, which `.` would leave out.
_ANYTHING: Final = r"[\s\S]*"
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
# For one chunk of a streamed answer, from the leader and on to the client: whoever takes longer
# must not hold a leader's read for ever.
_CHUNK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class FormRoutes:
    """Handlers of the forms' paths.

    Attributes:
        writes, reads: The way to the leader.
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
        if await self.reads.get(check_id(request.match_info["id"])) is None:
            return responses.ok(FormNotFoundError().message)
        return responses.error(FormExistsError().message, status=200)

    async def insert(self, request: web.Request) -> web.Response:
        """Store a new form."""
        idempotency_key = _idempotency_key(request)
        form = parse_form(await read_body(request, self.body_timeout_s))
        committed = await self.writes.insert(form, idempotency_key)
        return responses.ok("Registro ingresado correctamente.", _proof(committed))

    async def get_one(self, request: web.Request) -> web.Response:
        """Give one form back, byte for byte as it is stored."""
        value = await self.reads.get(check_id(request.match_info["id"]))
        if value is None:
            raise FormNotFoundError
        return responses.raw_json(value)

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
        source = await self.reads.records(genero)
        response = web.StreamResponse(headers=responses.JSON_CONTENT)
        try:
            await response.prepare(request)
            while True:
                async with asyncio.timeout(_CHUNK_S):
                    chunk = await source.content.readany()
                    if not chunk:
                        break
                    await response.write(chunk)
        except (aiohttp.ClientError, OSError):
            # An array cut short must not look complete: no final chunk, no orderly end.
            if request.transport is not None:
                request.transport.abort()
        finally:
            source.close()
        return response


def _idempotency_key(request: web.Request) -> str:
    match request.headers.getall("Idempotency-Key", []):
        case []:
            return _new_request_id()
        case [key] if _IDEMPOTENCY_KEY.fullmatch(key):
            return key
    raise InvalidRequestError(
        "El encabezado Idempotency-Key debe tener de 1 a 128 caracteres ASCII visibles."
    )


def _new_request_id() -> str:
    """48 bits of time in milliseconds, then 80 random bits, in hex: as a UUIDv7, RFC 9562.

    Ids that grow with time keep the record store's index of request ids small to touch.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _proof(committed: Committed) -> dict[str, str]:
    """Headers that say where the write is, and what took how long."""
    headers = {
        "X-Replicad-Index": str(committed.index),
        "X-Replicad-Epoch": str(committed.epoch),
        "X-Replicad-Digest": committed.digest,
        "X-Replicad-Acks": ",".join(committed.acks),
    }
    if committed.timing:
        headers["Server-Timing"] = ", ".join(
            f"{name};dur={milliseconds}" for name, milliseconds in committed.timing.items()
        )
    return headers
