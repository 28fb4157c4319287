"""How fresh a read has to be, as its client wishes, and how fresh its answer is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from aiohttp import web
from multidict import MultiMapping

from api_gateway.errors import InvalidRequestError

_LEVEL: Final = "X-Replicad-Consistency"
_MIN_INDEX: Final = "X-Replicad-Min-Index"
# Log indexes fit into 63 bits.
_INDEX: Final = re.compile(r"[0-9]{1,18}")


class Level(StrEnum):
    """Which states a read may show (docs/protocol.md, rule 11).

    STRONG: everything that was acknowledged before the read began, whoever led then.
    SESSION: at least what the log held up to an index that the client names.
    LOCAL: whatever a replica holds.
    """

    STRONG = "strong"
    SESSION = "session"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks of a read.

    Attributes:
        level: How fresh it must be.
        min_index: The log index that it must show; 0 unless the level is SESSION.
    """

    level: Level = Level.STRONG
    min_index: int = 0


STRONG: Final = Wish()
"""What a read is unless its client asks for less."""
_BY_NAME: Final = {each.value: Wish(each) for each in (Level.STRONG, Level.LOCAL)}


@dataclass(frozen=True, slots=True)
class Seen:
    """What an answer reflects.

    Attributes:
        replica: Who answered.
        index: The log index up to which the answer shows everything, and nothing above it.
        staleness_ms: The replica was level with its leader at most so long ago; None if it cannot
            say.
    """

    replica: str
    index: int
    staleness_ms: int | None

    def headers(self, level: Level) -> dict[str, str]:
        """The headers of an answer. A strong one is never stale, whatever else is known."""
        staleness = 0 if level is Level.STRONG else self.staleness_ms
        return {
            _LEVEL: level,
            "X-Replicad-Index": str(self.index),
            "X-Replicad-Replica": self.replica,
            "X-Replicad-Staleness-Ms": "unknown" if staleness is None else str(staleness),
        }


def wish_of(request: web.Request) -> Wish:
    """What the request's headers ask for, or its query, or the default, which is strong.

    Raises:
        InvalidRequestError: There is no such level, or the index is none or missing.
    """
    in_query = request.query.getall("consistency", []) if request.query_string else []
    return wish_by(request.headers, in_query)


def wish_by(headers: MultiMapping[str], in_query: Sequence[str]) -> Wish:
    """The same, by what the query says."""
    named = headers.getall(_LEVEL, []) or in_query or ["strong"]
    if len(named) == 1 and named[0] in _BY_NAME and _MIN_INDEX not in headers:
        return _BY_NAME[named[0]]
    try:
        (level,) = map(Level, named)
    except ValueError:
        raise InvalidRequestError(
            "The consistency of a read must be strong, session or local.",
            "La consistencia de una lectura debe ser strong, session o local.",
        ) from None
    indexes = headers.getall(_MIN_INDEX, [])
    if len(indexes) > 1 or not all(map(_INDEX.fullmatch, indexes)):
        raise InvalidRequestError(
            f"The header {_MIN_INDEX} must be one log index.",
            f"El encabezado {_MIN_INDEX} debe ser un índice del registro.",
        )
    if level is not Level.SESSION:
        return Wish(level)
    if not indexes:
        raise InvalidRequestError(
            f"A session read needs the header {_MIN_INDEX}.",
            f"Una lectura session necesita el encabezado {_MIN_INDEX}.",
        )
    return Wish(level, int(indexes[0]))
