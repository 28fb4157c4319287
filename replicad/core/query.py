"""What clients ask of a collection: which records, in which order, how many, from where on.

The gateway reads a query out of a URL and checks its form; a replica, which knows the collection's
definition, gives it its meaning (`replicad/storage/query_spans.py`).

Source: docs/api.md, "Queries".
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

import orjson

from replicad.errors import MalformedQueryError

LIMIT_MAX: Final = 1000
LIMIT_DEFAULT: Final = 100
CONDITIONS_MAX: Final = 32
MEMBERS_MAX: Final = 1000
"""Of one list of values."""
ORDERS_MAX: Final = 8
FIELDS_MAX: Final = 64
FIELD_CHARACTERS_MAX: Final = 256
CURSOR_CHARACTERS_MAX: Final = 16 * 1024

# No name is empty, and none holds what would have to be escaped in JSON, or brackets.
_FIELD: Final = re.compile(
    r"""[^."\\\[\]\x00-\x1f\ud800-\udfff]+(?:\.[^."\\\[\]\x00-\x1f\ud800-\udfff]+)*"""
)

Bound = int | float | str | bool | dict[str, Any] | None
"""A value as it sorts: null also for what is missing, {} for any object or array."""


_BOUNDS: Final = frozenset({int, float, str, bool, type(None), dict})


class Relation(StrEnum):
    """What is asked of a field."""

    EQUAL = "eq"
    NOT_EQUAL = "ne"
    ABOVE = "gt"
    FROM = "gte"
    BELOW = "lt"
    UPTO = "lte"
    PREFIX = "prefix"
    IN = "in"
    EXISTS = "exists"


class Refused(StrEnum):
    """Why a collection cannot answer a query, or a question about the past."""

    NO_COLLECTION = "no-such-collection"
    NOT_A_NUMBER = "not-a-number"
    """By its schema the field is a number, and is compared with something else."""
    NOT_A_BOOLEAN = "not-a-boolean"
    """By its schema the field is true or false, and is compared with something else."""
    NO_FULL_TEXT = "no-full-text"
    """Words were asked for where there is no full-text index."""
    BUILDING = "building"
    """This replica is still making its full-text index."""
    TOO_BROAD = "too-broad"
    """It is more work than a query may be; told with the fields to which an index would help."""
    PLACE_TOO_LONG = "place-too-long"
    """A page ends with a value so long that no cursor can name it."""
    GONE = "gone"
    """What was then is not known any more."""
    NOT_YET = "not-yet"
    """The entry is not applied here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of one field.

    Attributes:
        field: Its dotted name.
        relation: How it is compared.
        texts: With what, as the client wrote it: several for IN, `true` or `false` for EXISTS.
    """

    field: str
    relation: Relation
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One of the fields to sort by."""

    field: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: what its last record is sorted by, and its id."""

    bounds: tuple[Bound, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Query:
    """One page of the records of a collection that fulfil all conditions.

    Attributes:
        collection: Whose records.
        conditions: All must hold.
        words: Texts that the collection's full-text index is searched for; all must be there, each
            as a whole word or, with a `*` at its end, as the beginning of one.
        order: By what to sort; the id comes last, in the direction of the one before it.
        fields: Which fields to give; None for the records as they are stored.
        limit: How many records at most, 1 to LIMIT_MAX.
        after: Go on after this place; None to begin.
        counted: Whether to count all records that fulfil the conditions.
    """

    collection: str
    conditions: tuple[Condition, ...] = ()
    words: tuple[str, ...] = ()
    order: tuple[Order, ...] = ()
    fields: tuple[str, ...] | None = None
    limit: int = LIMIT_DEFAULT
    after: Place | None = None
    counted: bool = False


def is_field(text: str) -> bool:
    """Whether this is a dotted name that a query, an index or a full-text index can use."""
    return len(text) <= FIELD_CHARACTERS_MAX and _FIELD.fullmatch(text) is not None


def encode_cursor(query: Query, place: Place) -> str:
    """The cursor of the page that follows `place`: a text for URLs."""
    told = orjson.dumps([_mark(query), place.bounds, place.key])
    return urlsafe_b64encode(told).decode().rstrip("=")


def decode_cursor(query: Query, cursor: str) -> Place:
    """The inverse, for the query that the cursor was made for, whatever its `after`.

    Raises:
        MalformedQueryError: It is no cursor, or another query's.
    """
    try:
        if len(cursor) > CURSOR_CHARACTERS_MAX:
            raise ValueError("too long")
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        mark, bounds, key = orjson.loads(urlsafe_b64decode(padded))
        if mark != _mark(query):
            raise ValueError("another query's")
        place = Place(tuple(bounds), key)
        if encode_cursor(query, place) != cursor:
            raise ValueError("not as it was given out")
        _check_place(query, place)
    except (ValueError, TypeError) as error:
        raise MalformedQueryError(f"not a cursor of this query: {error}") from error
    return place


def encode_query(query: Query) -> bytes:
    """A query as the gateway sends it to a replica: a JSON object."""
    return orjson.dumps(query)


def decode_query(body: bytes) -> Query:
    """The inverse of `encode_query`.

    Raises:
        MalformedQueryError: This is no query.
    """
    try:
        told = orjson.loads(body)
        after, fields = told.pop("after"), told.pop("fields")
        query = Query(
            conditions=tuple(
                Condition(each["field"], Relation(each["relation"]), tuple(each["texts"]))
                for each in told.pop("conditions")
            ),
            words=tuple(told.pop("words")),
            order=tuple(Order(**each) for each in told.pop("order")),
            fields=None if fields is None else tuple(fields),
            after=None if after is None else Place(tuple(after["bounds"]), after["key"]),
            **told,
        )
        _check(query)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MalformedQueryError(f"not a query: {error}") from error
    return query


def _check(query: Query) -> None:
    told = [each.field for each in query.conditions] + [each.field for each in query.order]
    if not all(is_field(field) for field in (*told, *(query.fields or ()))):
        raise ValueError("a field's name is none")
    texts = [text for each in query.conditions for text in each.texts]
    if not all(isinstance(text, str) for text in (query.collection, *query.words, *texts)):
        raise TypeError("a text is none")
    if not all(each.texts for each in query.conditions):
        raise ValueError("a condition compares with nothing")
    if type(query.limit) is not int or not 1 <= query.limit <= LIMIT_MAX:
        raise ValueError("the limit is out of bounds")
    if not all(
        type(flag) is bool for flag in (query.counted, *(o.descending for o in query.order))
    ):
        raise TypeError("what is true or false is neither")
    if query.after is not None:
        _check_place(query, query.after)


def _check_place(query: Query, place: Place) -> None:
    if len(place.bounds) != len(query.order) or not isinstance(place.key, str):
        raise ValueError("a place has a value for each field of the order, and an id")
    if any(type(b) not in _BOUNDS or (isinstance(b, dict) and b) for b in place.bounds):
        raise TypeError("a value that nothing sorts by")


def _mark(query: Query) -> str:
    """Tells queries apart of which one's cursor would lead nowhere in the other."""
    told = orjson.dumps([query.collection, query.conditions, query.words, query.order])
    return sha256(told).hexdigest()[:12]
