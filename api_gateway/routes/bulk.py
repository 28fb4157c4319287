"""Any number of records at once: imports and exports, as streams."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import orjson
from aiohttp import web

from api_gateway.bulk.csv_records import CsvError, RowDecoder, columns_of, parse_header
from api_gateway.bulk.exports import csv_of
from api_gateway.bulk.import_target import CollectionTarget
from api_gateway.bulk.imports import BrokenOff, Import, Line, Pieces, Status
from api_gateway.bulk.record_lines import LineSplitter, Piece, RowSplitter, Splitter
from api_gateway.cluster.forwarding import Writes
from api_gateway.errors import (
    InvalidQueryError,
    InvalidRequestError,
    LeaderError,
    NotAcceptableError,
    RequestError,
    TooManyRequestsError,
    UnsupportedMediaTypeError,
)
from api_gateway.reading.consistency import wish_of
from api_gateway.reading.reads import Reads
from api_gateway.records.definitions import Definition, Definitions, check_name
from api_gateway.web.bodies import is_gzip
from api_gateway.web.body_streams import body_pieces
from api_gateway.web.compression import CodedStream
from api_gateway.web.languages import Language, encode, preferred_language
from api_gateway.web.limits import client_of
from api_gateway.web.negotiation import best_media_type

_NDJSON: Final = "application/x-ndjson"
_CSV: Final = "text/csv"
_CONTENT: Final = {_NDJSON: _NDJSON, _CSV: f"{_CSV}; charset=utf-8; header=present"}
IMPORTS_MAX: Final = 32
"""At once: each may hold some 20 MiB."""
IMPORTS_OF_ONE_MAX: Final = IMPORTS_MAX // 2
"""Of one client at once: whatever it sends, or does not send, others have room."""
# A client that sends nothing for so long is gone. It may take its time to make the next record.
_SILENCE_S: Final = 60.0
# For one piece of the answer: a client that takes longer must not hold up others for ever.
_WRITE_S: Final = 30.0
_DUPLICATE: Final = {
    Language.ENGLISH: "There is a record with this id already.",
    Language.SPANISH: "Ya hay un registro con este id.",
}
_UNKNOWN: Final = {
    Language.ENGLISH: "No answer came in time: import the record again to find out.",
    Language.SPANISH: "No hubo respuesta a tiempo: importe el registro de nuevo para saberlo.",
}


@dataclass(frozen=True, slots=True)
class BulkRoutes:
    """Handlers of imports and exports.

    Attributes:
        writes, reads, definitions: The way to the replicas.
    """

    writes: Writes
    reads: Reads
    definitions: Definitions
    _importing: list[str] = field(default_factory=list)  # The clients.

    def routes(self) -> list[web.RouteDef]:
        """Both."""
        path = "/v1/collections/{collection}/records"
        return [
            web.post(f"{path}:import", self.import_records),
            web.get(f"{path}:export", self.export_records, allow_head=False),
        ]

    async def import_records(self, request: web.Request) -> web.StreamResponse:
        """Store the records of the body, and tell what became of each while they arrive."""
        client = client_of(request.remote)
        if len(self._importing) >= IMPORTS_MAX:
            raise TooManyRequestsError(
                "This gateway is taking as many imports as it may. Try again.",
                "Este gateway ya recibe tantas importaciones como puede. Intente de nuevo.",
                retry_after_s=1,
            )
        if self._importing.count(client) >= IMPORTS_OF_ONE_MAX:
            raise TooManyRequestsError(
                "Your address makes as many imports as it may. Try again when one has ended.",
                "Su dirección hace tantas importaciones como puede. "
                "Intente de nuevo cuando una haya terminado.",
                retry_after_s=1,
            )
        self._importing.append(client)
        try:
            return await self._import(request)
        finally:
            self._importing.remove(client)

    async def _import(self, request: web.Request) -> web.StreamResponse:
        collection = check_name(request.match_info["collection"])
        _check_parameters(request)
        splitter, is_csv = _splitter_of(request)
        body = body_pieces(request, is_compressed=is_gzip(request), silence_s=_SILENCE_S)
        definition = await self.definitions.reread(collection)
        pieces = _pieces(body, splitter)
        decode = None
        if is_csv:
            decode, pieces = await _begin_csv(pieces, definition)
        target = CollectionTarget(self.writes, self.definitions, definition, decode)
        response = CodedStream(headers={"Content-Type": _NDJSON})
        language = preferred_language(request.headers.get("Accept-Language"))
        await _send(request, response, _answers(Import(target), pieces, language))
        return response

    async def export_records(self, request: web.Request) -> web.StreamResponse:
        """Stream all records as of one moment."""
        collection, wish = check_name(request.match_info["collection"]), wish_of(request)
        _check_parameters(request, "fields", "consistency")
        kind = best_media_type(request.headers.get("Accept"), (_NDJSON, _CSV))
        if kind is None:
            raise NotAcceptableError(
                f"Records are exported as {_NDJSON} or {_CSV}.",
                f"Los registros se exportan como {_NDJSON} o {_CSV}.",
            )
        await self.definitions.check_exists(collection, wish)
        columns: list[str] = []
        if kind == _CSV:
            columns = _columns(request, await self.definitions.of(collection))
        elif "fields" in request.query:
            raise InvalidQueryError(
                "Only an export as CSV has fields; NDJSON has records as they are stored.",
                "Solo una exportación CSV tiene fields; NDJSON lleva los registros como están.",
            )
        stream = await self.reads.export(collection, wish)
        chunks = stream.chunks()
        headers = {"Content-Type": _CONTENT[kind], "Vary": "Accept"}
        response = CodedStream(headers=headers | stream.seen.headers(wish.level))
        try:
            await _send(request, response, csv_of(chunks, columns) if columns else chunks)
        finally:
            await chunks.aclose()
            stream.close()
        return response


def _check_parameters(request: web.Request, *known: str) -> None:
    for name in request.query:
        if name not in known:
            raise InvalidQueryError(
                f"The parameter «{name[:64]}» means nothing here.",
                f"El parámetro «{name[:64]}» no significa nada aquí.",
            )


def _splitter_of(request: web.Request) -> tuple[Splitter, bool]:
    """How to cut the body, and whether it is CSV."""
    charset = request.charset or "utf-8"
    if charset.lower() in ("utf-8", "utf8", "us-ascii"):
        match request.content_type:
            case "application/x-ndjson" | "application/jsonl" | "application/ndjson":
                return LineSplitter(), False
            case "text/csv":
                return RowSplitter(), True
    raise UnsupportedMediaTypeError(
        f"Records are imported as {_NDJSON} or {_CSV}, in UTF-8.",
        f"Los registros se importan como {_NDJSON} o {_CSV}, en UTF-8.",
    )


async def _pieces(body: AsyncGenerator[bytes, None], splitter: Splitter) -> Pieces:
    async with aclosing(body):
        async for chunk in body:
            yield splitter.feed(chunk)
        yield splitter.end()
    if line := splitter.unclosed_line:
        raise InvalidRequestError(
            f"A quote in the row that begins in line {line} never closes: what follows it was "
            "not read as rows.",
            f"Una comilla de la fila que comienza en la línea {line} no se cierra: lo que sigue "
            "no se leyó como filas.",
        )


async def _begin_csv(
    pieces: Pieces, definition: Definition
) -> tuple[Callable[[bytes], bytes], Pieces]:
    """Read the header. Returns what decodes the other rows, and these.

    Raises:
        RequestError: There is none, or it does not name columns as it should.
    """
    begun: list[Piece] = []
    while not begun and (arrived := await anext(pieces, None)) is not None:
        begun = list(arrived)
    header = begun[0].data if begun else b""
    if header is None:
        raise InvalidRequestError(
            "The first row exceeds the limit of 1 MiB; rows end with LF or CRLF.",
            "La primera fila supera el límite de 1 MiB; las filas terminan con LF o CRLF.",
        )
    try:
        known = columns_of(definition.schema, definition.key)
        columns = parse_header(header, known, definition.key)
    except CsvError as error:
        raise InvalidRequestError(error.english, error.spanish) from error
    return RowDecoder(columns).decode, _after(begun[1:], pieces)


async def _after(begun: Sequence[Piece], pieces: Pieces) -> Pieces:
    yield begun
    async with aclosing(pieces):
        async for arrived in pieces:
            yield arrived


def _columns(request: web.Request, definition: Definition) -> list[str]:
    """The fields that an export as CSV is to have.

    Raises:
        InvalidQueryError: It names none, or one twice; or neither it nor the schema names any.
    """
    if "fields" not in request.query:
        columns = list(columns_of(definition.schema, definition.key))
        if len(columns) > 1:
            return columns
        raise InvalidQueryError(
            "The collection's schema names no fields: name the columns with fields=a,b.",
            "El esquema de la colección no nombra campos: nombre las columnas con fields=a,b.",
        )
    columns = ",".join(request.query.getall("fields")).split(",")
    if "" in columns or len(set(columns)) < len(columns):
        raise InvalidQueryError(
            "fields must name different fields, separated by commas.",
            "fields debe nombrar campos distintos, separados por comas.",
        )
    return columns


async def _answers(
    importing: Import, pieces: Pieces, language: Language
) -> AsyncGenerator[bytes, None]:
    """A line for each record, one with the reason if the import ends early, and the tally."""
    tally: Counter[Status] = Counter()
    async with aclosing(importing.run(pieces)) as told:
        async for each in told:
            if isinstance(each, BrokenOff):
                detail = _text_of(each.why, language)
                problem = each.why.problem.describe(language, detail, each.why.extensions)
                yield encode({"error": problem}, language) + b"\n"
            else:
                tally.update([line.status for line in each if line.status is not None])
                yield b"".join([_encode(line, language) for line in each])
    yield orjson.dumps({"tally": {status.value: tally[status] for status in Status}}) + b"\n"


def _encode(line: Line, language: Language) -> bytes:
    if line.status is Status.STORED and line.key is not None:  # An id needs no escapes.
        return b'{"line":%d,"id":"%b","status":"stored","reason":null}\n' % (
            *(line.number, line.key.encode()),
        )
    reason = None
    match line.status:
        case Status.INVALID if line.why is not None:
            reason = _reason_of(line.why, language)
        case Status.DUPLICATE:
            reason = _DUPLICATE[language]
        case Status.UNKNOWN:
            reason = _UNKNOWN[language]
    told = {"line": line.number, "id": line.key, "status": line.status, "reason": reason}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def _reason_of(why: RequestError, language: Language) -> str:
    """One text, also of what a schema finds in several places."""
    errors = why.extensions.get("errors")
    if isinstance(errors, list):
        return "; ".join(f"{error['path']}: {error['message'].tell(language)}" for error in errors)
    return _text_of(why, language)


def _text_of(why: RequestError, language: Language) -> str:
    return why.spanish if language is Language.SPANISH else why.english


async def _send(
    request: web.Request, response: CodedStream, chunks: AsyncGenerator[bytes, None]
) -> None:
    try:
        async with aclosing(chunks):
            await response.prepare(request)
            async for chunk in chunks:
                async with asyncio.timeout(_WRITE_S):
                    await response.write(chunk)
    except (LeaderError, RequestError, OSError):
        # A stream cut short must not look complete: no final chunk, no orderly end.
        if request.transport is not None:
            request.transport.abort()
