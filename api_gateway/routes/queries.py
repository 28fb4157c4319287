"""The REST API for finding records, and for what they were before."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from aiohttp import web

from api_gateway.errors import InvalidQueryError, NoSuchRecordError
from api_gateway.reading.consistency import Wish, wish_of
from api_gateway.reading.queries import Queries
from api_gateway.reading.query_strings import parse_query
from api_gateway.records.conditions import etag_of
from api_gateway.records.definitions import Definitions, check_name
from api_gateway.records.forms import check_id
from api_gateway.routes.records import RECORD, RECORDS
from api_gateway.web import responses
from replicad.core.entry import format_time
from replicad.core.query import LIMIT_DEFAULT, LIMIT_MAX

# Log indexes fit into 63 bits.
_INDEX: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_LIMIT: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
# A plus in a URL may arrive as a space.
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)[0-9]*"
    r"(Z|[+ -][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING_HAPPENED: Final = b'{"items":[],'


@dataclass(frozen=True, slots=True)
class QueryRoutes:
    """Handlers of the paths that find records.

    Attributes:
        queries: The way to the replicas.
        definitions: Of the collections.
    """

    queries: Queries
    definitions: Definitions

    def routes(self) -> list[web.RouteDef]:
        """All of them, except the views of one record in the past."""
        return [web.get(RECORDS, self.find), web.get(f"{RECORD}/history", self.history)]

    async def find(self, request: web.Request) -> web.Response:
        """Give one page of the records that fulfil all conditions."""
        collection, wish = check_name(request.match_info["collection"]), wish_of(request)
        query = parse_query(collection, request.query.items())
        body, seen = await self.queries.find(query, wish)
        return responses.raw_json(body, headers=seen.headers(wish.level))

    async def history(self, request: web.Request) -> web.Response:
        """Tell what happened to a record, oldest first."""
        collection, key = _name_of(request)
        wish = wish_of(request)
        _check_parameters(request, "limit", "cursor")
        limit, after = _limit(request), _index(request, "cursor")
        body, seen = await self.queries.history(
            collection, key, after=after, limit=limit, wish=wish
        )
        if after == 0 and body.startswith(_NOTHING_HAPPENED):
            # It may be older than the log.
            stored, _ = await self.queries.reads.get(collection, key, wish)
            if stored is None:
                raise await self._no_such_record(collection, wish)
        return responses.raw_json(body, headers=seen.headers(wish.level))

    async def at_index(self, request: web.Request) -> web.Response:
        """Give a record back as it was after an entry of the log."""
        return await self._past(request, "at_index", _index(request, "at_index"))

    async def at_time(self, request: web.Request) -> web.Response:
        """Give a record back as it was at a time."""
        return await self._past(request, "at_time", _time(request))

    async def _past(self, request: web.Request, name: str, moment: int | str) -> web.Response:
        collection, key = _name_of(request)
        wish = wish_of(request)
        _check_parameters(request, name)
        stored, seen = await self.queries.past(collection, key, moment, wish)
        if stored is None:
            raise await self._no_such_record(collection, wish)
        headers = {**seen.headers(wish.level), "ETag": etag_of(stored.version)}
        return responses.raw_json(stored.value, headers=headers)

    async def _no_such_record(self, collection: str, wish: Wish) -> NoSuchRecordError:
        await self.definitions.check_exists(collection, wish)
        return NoSuchRecordError()


def _name_of(request: web.Request) -> tuple[str, str]:
    return check_name(request.match_info["collection"]), check_id(request.match_info["id"])


def _check_parameters(request: web.Request, *known: str) -> None:
    for name in request.query:
        if name not in (*known, "consistency") or len(request.query.getall(name)) > 1:
            raise InvalidQueryError(
                f"The parameter «{name[:64]}» means nothing here, or comes twice.",
                f"El parámetro «{name[:64]}» no significa nada aquí, o viene dos veces.",
            )


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(LIMIT_DEFAULT))
    if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidQueryError(
            f"limit must be an integer from 1 to {LIMIT_MAX}.",
            f"limit debe ser un entero de 1 a {LIMIT_MAX}.",
        )
    return int(text)


def _index(request: web.Request, name: str) -> int:
    text = request.query.get(name, "0")
    if not _INDEX.fullmatch(text):
        raise InvalidQueryError(
            f"{name} must be an index of the log.",
            f"{name} debe ser un índice del registro de cambios.",
        )
    return int(text)


def _time(request: web.Request) -> str:
    """The time that is asked for, as entries have it: in UTC, to the millisecond."""
    match = _TIME.fullmatch(request.query["at_time"])
    try:
        if match is None:
            raise ValueError
        zone = match[2].replace(" ", "+")
        moment = datetime.fromisoformat(match[1] + ("+00:00" if zone == "Z" else zone))
        return format_time(max(0, (moment - _EPOCH) // timedelta(milliseconds=1)))
    except (ValueError, OverflowError):
        raise InvalidQueryError(
            "at_time must be a time as in 2026-03-04T05:06:07.890Z (RFC 3339).",
            "at_time debe ser una hora como 2026-03-04T05:06:07.890Z (RFC 3339).",
        ) from None
