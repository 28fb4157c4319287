"""What the conditions of a query mean: where in the order of keys a field's key must lie.

A text in a URL has no type. What it is compared with says what it stands for: the types that the
collection's schema gives the field, or those of the values that are stored. So `edad[gte]=18` finds
numbers from 18 on and, unless the schema says that `edad` is a number, also strings from "18" on.

Source: docs/api.md, "Queries".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from replicad.core.query import Condition, Refused, Relation
from replicad.errors import QueryRefusedError
from replicad.storage.keys import (
    COMPOSITE,
    FALSE,
    MISSING,
    STRINGS_BELOW,
    STRINGS_FROM,
    TRUE,
    Key,
    rank,
)

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMBER_CHARACTERS_MAX: Final = 400
_LAST: Final = "\U0010ffff"


class Kind(Enum):
    """What a field may be compared as."""

    STRING = auto()
    NUMBER = auto()
    BOOLEAN = auto()


ANY_KIND: Final = frozenset(Kind)
_KINDS: Final = {
    "string": Kind.STRING,
    "number": Kind.NUMBER,
    "integer": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
}


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the order of keys: from `low` to `high`, with or without these themselves."""

    low: Key
    high: Key
    low_open: bool = False
    high_open: bool = False

    @property
    def is_point(self) -> bool:
        """Whether just one key lies in it."""
        return not (self.low_open or self.high_open) and rank(self.low) == rank(self.high)

    @property
    def is_empty(self) -> bool:
        """Whether no key lies in it."""
        if rank(self.low) == rank(self.high):
            return self.low_open or self.high_open
        return rank(self.low) > rank(self.high)

    def meet(self, other: Span) -> Span:
        """What lies in both."""
        lows = [(rank(each.low), each.low_open, each.low) for each in (self, other)]
        highs = [(rank(each.high), not each.high_open, each.high) for each in (self, other)]
        (_, low_open, low), (_, high_closed, high) = max(lows), min(highs)
        return Span(low, high, low_open, not high_closed)


_STRINGS: Final = Span(STRINGS_FROM, STRINGS_BELOW, high_open=True)
_PRESENT: Final = Span(MISSING, COMPOSITE, low_open=True)
_ABSENT: Final = Span(MISSING, MISSING)


@dataclass(frozen=True, slots=True)
class Clause:
    """Where a field's key must lie: in one of the spans or, if negated, in none of them."""

    field: str
    spans: tuple[Span, ...]
    negated: bool = False

    def meet(self, other: Clause) -> Clause:
        """Both, of the same field; neither is negated."""
        met = (mine.meet(theirs) for mine in self.spans for theirs in other.spans)
        return Clause(self.field, tuple(span for span in met if not span.is_empty))


def kinds_of(schema: Mapping[str, Any] | None, field: str) -> frozenset[Kind]:
    """As what a collection's schema lets a field be compared; anything if it does not say."""
    at: object = schema
    for name in field.split("."):
        properties = at.get("properties") if isinstance(at, dict) else None
        at = properties.get(name) if isinstance(properties, dict) else None
    types = at.get("type") if isinstance(at, dict) else None
    named = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    kinds = frozenset(_KINDS[each] for each in named if each in _KINDS)
    return kinds or ANY_KIND


def clause_of(
    condition: Condition, kinds: frozenset[Kind], number: Callable[[str], int | float]
) -> Clause:
    """Give a condition its meaning.

    Args:
        condition: Well-formed.
        kinds: As what its field may be compared.
        number: Makes the key of a JSON number.

    Raises:
        QueryRefusedError: The field can never be what it is compared with.
    """
    field, texts = condition.field, condition.texts

    def points() -> tuple[Span, ...]:
        keys = [key for text in texts for key in _keys_of(field, text, kinds, number)]
        return tuple(Span(key, key) for key in keys)

    match condition.relation:
        case Relation.EQUAL | Relation.IN:
            return Clause(field, points())
        case Relation.NOT_EQUAL:
            return Clause(field, points(), negated=True)
        case Relation.EXISTS:
            return Clause(field, (_PRESENT if texts[0] == "true" else _ABSENT,))
        case Relation.PREFIX:
            found = Kind.STRING in kinds
            return Clause(field, (_with_prefix(texts[0]),) if found else ())
    keys = _keys_of(field, texts[0], kinds, number)
    spans = [_range(condition.relation, key) for key in keys if not isinstance(key, bytes)]
    return Clause(field, tuple(spans))


def _keys_of(
    field: str, text: str, kinds: frozenset[Kind], number: Callable[[str], int | float]
) -> Sequence[Key]:
    """All keys that a text may stand for; at least one."""
    keys: list[Key] = []
    if Kind.STRING in kinds:
        keys.append(text)
    if Kind.NUMBER in kinds and len(text) <= _NUMBER_CHARACTERS_MAX and _NUMBER.fullmatch(text):
        keys.append(number(text))
    if Kind.BOOLEAN in kinds and text in ("true", "false"):
        keys.append(TRUE if text == "true" else FALSE)
    if not keys:
        is_number = Kind.NUMBER in kinds
        raise QueryRefusedError(
            Refused.NOT_A_NUMBER if is_number else Refused.NOT_A_BOOLEAN, (field,)
        )
    return keys


def _range(relation: Relation, key: int | float | str) -> Span:
    """What lies on one side of a key, among the keys of its own kind."""
    lowest: Key
    highest: Key
    if isinstance(key, str):
        lowest, highest, is_lowest_open = STRINGS_FROM, STRINGS_BELOW, False
    else:
        lowest, highest, is_lowest_open = MISSING, STRINGS_FROM, True
    match relation:
        case Relation.ABOVE:
            return Span(key, highest, low_open=True, high_open=True)
        case Relation.FROM:
            return Span(key, highest, high_open=True)
        case Relation.BELOW:
            return Span(lowest, key, low_open=is_lowest_open, high_open=True)
    return Span(lowest, key, low_open=is_lowest_open)


def _with_prefix(prefix: str) -> Span:
    """The strings that begin with it."""
    head = prefix.rstrip(_LAST)
    if not head:
        return Span(prefix, STRINGS_BELOW, high_open=True)
    last = ord(head[-1]) + 1
    following = chr(last if not 0xD800 <= last <= 0xDFFF else 0xE000)
    return Span(prefix, head[:-1] + following, high_open=True)
