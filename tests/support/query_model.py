"""What a query finds, in plain Python: decoded records, looked at one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cmp_to_key
from typing import Any

from replicad.core.query import Condition, Query, Relation

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def field_of(record: object, name: str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a dotted field; None if it is not there."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _kind(value: object) -> int:
    """Which kind of value sorts before which."""
    if value is None:
        return 0
    if isinstance(value, bool):
        return 4 if value else 3
    if isinstance(value, int | float):
        return 1
    return 2 if isinstance(value, str) else 5


def compare(left: Any, right: Any) -> int:  # noqa: ANN401
    """Negative if `left` sorts first, 0 if they are level."""
    kinds = _kind(left), _kind(right)
    if kinds[0] != kinds[1]:
        return kinds[0] - kinds[1]
    if kinds[0] == 1:
        left, right = _number(left), _number(right)
    if kinds[0] in (1, 2):
        return int(left > right) - int(left < right)
    return 0


def _number(value: float) -> float:
    """What does not fit 63 bits and a sign is a double."""
    return value if -(2**63) <= value < 2**63 else float(value)


def meanings(text: str) -> list[Any]:
    """All values that a text without a type may stand for."""
    values: list[Any] = [text]
    if _NUMBER.fullmatch(text):
        values.append(int(text) if text.lstrip("-").isdigit() else float(text))
    if text in ("true", "false"):
        values.append(text == "true")
    return values


def holds(condition: Condition, record: Mapping[str, Any]) -> bool:
    """Whether a record fulfils a condition on a field without a schema."""
    value, relation = field_of(record, condition.field), condition.relation
    if condition.field == "id":
        known: list[Any] = list(condition.texts)
    else:
        known = [each for text in condition.texts for each in meanings(text)]
    same = any(value is not None and compare(value, each) == 0 for each in known)
    match relation:
        case Relation.EQUAL | Relation.IN:
            return same
        case Relation.NOT_EQUAL:
            return not same
        case Relation.EXISTS:
            return (value is not None) == (condition.texts[0] == "true")
        case Relation.PREFIX:
            return isinstance(value, str) and value.startswith(condition.texts[0])
    orders = [
        compare(value, each)
        for each in known
        if _kind(each) == _kind(value) and _kind(value) in (1, 2)
    ]
    allowed = {
        Relation.ABOVE: lambda order: order > 0,
        Relation.FROM: lambda order: order >= 0,
        Relation.BELOW: lambda order: order < 0,
        Relation.UPTO: lambda order: order <= 0,
    }[relation]
    return any(map(allowed, orders))


def find(query: Query, records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The ids of all records that a query finds, in its order, on however many pages."""
    found = [each for each in records if all(holds(c, each) for c in query.conditions)]

    def order(left: Mapping[str, Any], right: Mapping[str, Any]) -> int:
        down = False
        for each in query.order:
            down = each.descending
            result = compare(field_of(left, each.field), field_of(right, each.field))
            if result:
                return -result if down else result
        result = compare(left["id"], right["id"])
        return -result if down else result

    return [each["id"] for each in sorted(found, key=cmp_to_key(order))]
