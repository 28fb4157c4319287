"""Finds records at the replicas: those that a query asks for, and what records were before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from api_gateway.cluster.leader import LeaderClient, Stored, decode_record
from api_gateway.cluster.watch import Leader, Source
from api_gateway.errors import (
    HistoryGoneError,
    InvalidQueryError,
    InvalidRequestError,
    NoAnswerError,
    NoSuchCollectionError,
    QueryTooBroadError,
    RequestError,
    UnavailableError,
)
from api_gateway.reading.consistency import Seen, Wish
from api_gateway.reading.reads import Reads
from replicad.core.query import Query, Refused, encode_query

_REFUSED: Final = b'{"refused":'
# A replica takes some seconds for a query at most, and others may come first.
_SOURCE_S: Final = 5.0

_ERRORS: Final[Mapping[Refused, tuple[type[RequestError], str, str]]] = MappingProxyType(
    {
        Refused.NO_COLLECTION: (NoSuchCollectionError, "", ""),
        Refused.NOT_A_NUMBER: (
            InvalidQueryError,
            "{} is a number by the collection's schema, and is compared with something else.",
            "{} es un número según el esquema de la colección, y se compara con otra cosa.",
        ),
        Refused.NOT_A_BOOLEAN: (
            InvalidQueryError,
            "{} is true or false by the collection's schema, and is compared with something else.",
            "{} es true o false según el esquema de la colección, y se compara con otra cosa.",
        ),
        Refused.NO_FULL_TEXT: (
            InvalidQueryError,
            "The collection has no full-text index: its definition has no search fields.",
            "La colección no tiene índice de texto: su definición no tiene campos search.",
        ),
        Refused.BUILDING: (
            UnavailableError,
            "The full-text index is still being made. Try again.",
            "El índice de texto todavía se está creando. Intente de nuevo.",
        ),
        Refused.PLACE_TOO_LONG: (
            QueryTooBroadError,
            "The values of {} are too long to sort pages by them.",
            "Los valores de {} son demasiado largos para ordenar páginas por ellos.",
        ),
        Refused.GONE: (HistoryGoneError, "", ""),
        Refused.NOT_YET: (
            InvalidRequestError,
            "The log has no entry of this index yet.",
            "El registro de cambios todavía no tiene una entrada con este índice.",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Queries:
    """Asks replicas; `client` and `reads` are the way to them."""

    client: LeaderClient
    reads: Reads

    async def find(self, query: Query, wish: Wish) -> tuple[bytes, Seen]:
        """One page of what a query finds, as JSON, and what it reflects.

        Raises:
            NoSuchCollectionError: There is none of this name.
            InvalidQueryError: The collection's definition does not allow such a query.
            QueryTooBroadError: It would be too much work.
            UnavailableError: Nobody could answer by the deadline.
        """
        encoded = encode_query(query)

        async def ask(source: Leader | Source) -> tuple[bytes, Seen]:
            return await self.client.query(source, encoded)

        body, seen = await self.reads.ask("query", wish, ask, source_s=_SOURCE_S)
        _check_refused(body)
        return body, seen

    async def history(
        self, collection: str, key: str, *, after: int, limit: int, wish: Wish
    ) -> tuple[bytes, Seen]:
        """What happened to a record after an entry, as JSON, and what that reflects.

        Raises:
            UnavailableError: Nobody could answer by the deadline.
        """
        asked = {"collection": collection, "key": key, "after": str(after), "limit": str(limit)}

        async def ask(source: Leader | Source) -> tuple[bytes, Seen]:
            body, _, seen = await self.client.read(source, "versions", asked)
            return body, seen

        return await self.reads.ask("history", wish, ask, source_s=_SOURCE_S)

    async def past(
        self, collection: str, key: str, moment: int | str, wish: Wish
    ) -> tuple[Stored | None, Seen]:
        """A record as it was after an entry, or at a time; None if there was none.

        Args:
            collection: Whose record.
            key: Its id.
            moment: The entry's index; or a time as entries have it.
            wish: How fresh the replica's knowledge has to be.

        Raises:
            InvalidRequestError: There is no such entry yet.
            HistoryGoneError: What was then is not known any more.
            UnavailableError: Nobody could answer by the deadline.
        """
        when = {"index": str(moment)} if isinstance(moment, int) else {"time": moment}
        asked = {"collection": collection, "key": key, **when}

        async def ask(source: Leader | Source) -> tuple[Stored | None, Seen]:
            line, _, seen = await self.client.read(source, "past", asked)
            _check_refused(line)
            try:
                return decode_record(line.removesuffix(b"\n")), seen
            except ValueError as error:
                raise NoAnswerError(f"{source.name} sent a record that is none") from error

        return await self.reads.ask("past", wish, ask, source_s=_SOURCE_S)


def _check_refused(body: bytes) -> None:
    if body.startswith(_REFUSED):
        told: dict[str, Any] = orjson.loads(body)
        raise _error_of(Refused(told["refused"]), told["fields"])


def _error_of(reason: Refused, fields: Sequence[str]) -> RequestError:
    if reason is Refused.TOO_BROAD:
        return _too_broad(fields)
    error, english, spanish = _ERRORS[reason]
    named = ", ".join(fields)
    return error(english.format(named), spanish.format(named))


def _too_broad(fields: Sequence[str]) -> QueryTooBroadError:
    if fields:
        named = ", ".join(fields)
        return QueryTooBroadError(
            "The query would look at too many records. An index might help; there is none yet, or "
            f"it is still being made, on: {named}.",
            "La consulta tendría que mirar demasiados registros. Podría ayudar un índice, que "
            f"falta o todavía se está creando, sobre: {named}.",
            extensions={"fields": fields},
        )
    return QueryTooBroadError(
        "The query would look at too many records. Ask for fewer of them.",
        "La consulta tendría que mirar demasiados registros. Pida menos.",
    )
