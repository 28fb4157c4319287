"""Reads a query out of a URL's parameters. Pure.

Source: docs/api.md, "Queries".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from api_gateway.errors import InvalidQueryError
from replicad.core.query import (
    CONDITIONS_MAX,
    FIELD_CHARACTERS_MAX,
    FIELDS_MAX,
    LIMIT_DEFAULT,
    LIMIT_MAX,
    MEMBERS_MAX,
    ORDERS_MAX,
    Condition,
    Order,
    Query,
    Relation,
    decode_cursor,
    is_field,
)
from replicad.errors import MalformedQueryError

_OWN: Final = frozenset({"sort", "fields", "limit", "cursor", "count", "q"})
_ELSEWHERE: Final = frozenset({"consistency", "at_index", "at_time", "verify"})
"""Parameters of other meaning. Fields of all these names are asked for as `name[eq]`."""

_CONDITION: Final = re.compile(r"(?P<field>.*?)(?:\[(?P<relation>[^\]\[]*)\])?", re.DOTALL)
_WORD: Final = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+\*?")
_LONE_PERCENT: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_WORDS_MAX: Final = 16
_LIMIT: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_RELATIONS: Final = frozenset(Relation)


def check_encoding(query: str) -> None:
    """Make sure that a query string, as it was sent, decodes to text: bad input is no other input.

    Raises:
        InvalidQueryError: It holds a percent sign without two hexadecimal digits, or not UTF-8.
    """
    try:
        unquote_to_bytes(query).decode()
        is_good = not _LONE_PERCENT.search(query)
    except UnicodeError:
        is_good = False
    if not is_good:
        raise _invalid(
            "The query string is not percent-encoded UTF-8.",
            "La cadena de consulta no es UTF-8 codificado con porcentajes.",
        )


def parse_query(collection: str, parameters: Iterable[tuple[str, str]]) -> Query:
    """What the parameters of a URL ask of a collection.

    Args:
        collection: Its name.
        parameters: Decoded names and values, in their order; names may come more than once.

    Raises:
        InvalidQueryError: One breaks a rule; the error says which.
    """
    own: dict[str, str] = {}
    conditions: list[Condition] = []
    for name, text in parameters:
        _check_text(text)
        if name in _OWN:
            if name in own:
                raise _invalid(f"{name} may come only once.", f"{name} puede venir una sola vez.")
            own[name] = text
        elif name != "consistency":
            conditions.append(_condition(name, text))
    if len(conditions) > CONDITIONS_MAX:
        raise _invalid(
            f"There are more than {CONDITIONS_MAX} conditions.",
            f"Hay más de {CONDITIONS_MAX} condiciones.",
        )
    query = Query(
        collection,
        conditions=tuple(conditions),
        words=_words(own["q"]) if "q" in own else (),
        order=_order(own["sort"]) if "sort" in own else (),
        fields=_fields(own["fields"]) if "fields" in own else None,
        limit=_limit(own),
        counted=_is_counted(own),
    )
    return _placed(query, own["cursor"]) if "cursor" in own else query


def _condition(name: str, text: str) -> Condition:
    match = _CONDITION.fullmatch(name)
    field, told = (match["field"], match["relation"]) if match else (name, None)
    if told is None and name in _ELSEWHERE:
        raise _invalid(
            f"{name} means nothing here; a field of this name is asked for as {name}[eq].",
            f"{name} no significa nada aquí; un campo con ese nombre se consulta como {name}[eq].",
        )
    if told is not None and told not in _RELATIONS:
        known = ", ".join(sorted(_RELATIONS))
        raise _invalid(
            f"There is no comparison [{told[:16]}]; there are {known}.",
            f"No existe la comparación [{told[:16]}]; existen {known}.",
        )
    relation = Relation(told) if told is not None else Relation.EQUAL
    texts = tuple(text.split(",")) if relation is Relation.IN else (text,)
    if len(texts) > MEMBERS_MAX:
        raise _invalid(
            f"A list has more than {MEMBERS_MAX} values.",
            f"Una lista tiene más de {MEMBERS_MAX} valores.",
        )
    if relation is Relation.EXISTS and text not in ("true", "false"):
        raise _invalid("exists must be true or false.", "exists debe ser true o false.")
    return Condition(_field(field), relation, texts)


def _words(text: str) -> tuple[str, ...]:
    words = tuple(_WORD.findall(text))
    if not 1 <= len(words) <= _WORDS_MAX:
        raise _invalid(
            f"q must have 1 to {_WORDS_MAX} words.", f"q debe tener de 1 a {_WORDS_MAX} palabras."
        )
    return words


def _order(text: str) -> tuple[Order, ...]:
    names = text.split(",")
    order = tuple(Order(_field(name.removeprefix("-")), name.startswith("-")) for name in names)
    if len(order) > ORDERS_MAX or len({each.field for each in order}) < len(order):
        raise _invalid(
            f"sort must name at most {ORDERS_MAX} fields, each of them once.",
            f"sort debe nombrar a lo más {ORDERS_MAX} campos, cada uno una vez.",
        )
    return order


def _fields(text: str) -> tuple[str, ...]:
    fields = tuple(map(_field, text.split(",")))
    if len(fields) > FIELDS_MAX:
        raise _invalid(
            f"fields names more than {FIELDS_MAX} fields.",
            f"fields nombra más de {FIELDS_MAX} campos.",
        )
    return fields


def _limit(own: Mapping[str, str]) -> int:
    text = own.get("limit", str(LIMIT_DEFAULT))
    if not _LIMIT.fullmatch(text) or not 1 <= int(text) <= LIMIT_MAX:
        raise _invalid(
            f"limit must be an integer from 1 to {LIMIT_MAX}.",
            f"limit debe ser un entero de 1 a {LIMIT_MAX}.",
        )
    return int(text)


def _is_counted(own: Mapping[str, str]) -> bool:
    text = own.get("count", "false")
    if text not in ("true", "false"):
        raise _invalid("count must be true or false.", "count debe ser true o false.")
    return text == "true"


def _placed(query: Query, cursor: str) -> Query:
    try:
        return Query(
            query.collection,
            query.conditions,
            query.words,
            query.order,
            query.fields,
            query.limit,
            decode_cursor(query, cursor),
            query.counted,
        )
    except MalformedQueryError:
        raise _invalid(
            "cursor is none that was given out for this query: conditions, q and sort must stay "
            "the same from page to page.",
            "cursor no es uno que se haya entregado para esta consulta: las condiciones, q y sort "
            "deben ser los mismos en todas las páginas.",
        ) from None


def _field(name: str) -> str:
    if not is_field(name):
        shown = name[:64].encode(errors="replace").decode()
        raise _invalid(
            f"«{shown}» is no field: fields are dotted paths of at most {FIELD_CHARACTERS_MAX} "
            "characters without quotes, brackets, backslashes and control characters.",
            f"«{shown}» no es un campo: los campos son rutas con puntos de a lo más "
            f"{FIELD_CHARACTERS_MAX} caracteres sin comillas, corchetes, barras invertidas ni "
            "caracteres de control.",
        )
    return name


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _invalid(
            "A parameter is not valid UTF-8.", "Un parámetro no es UTF-8 válido."
        ) from None


def _invalid(english: str, spanish: str) -> InvalidQueryError:
    return InvalidQueryError(english, spanish)
