"""How the values of fields compare: one order over everything that JSON can hold.

    missing or null < numbers < strings < false < true < objects and arrays

A field's *key* is what SQLite keeps and compares in this order: -Inf, a number, a text, and a blob
for the rest. Numbers compare by value, those beyond 63 bits as doubles; strings by their code
points, which is the order of their UTF-8 bytes. Objects and arrays are all equal.

Source: docs/api.md, "Queries".
"""

from __future__ import annotations

import re
import sqlite3
from typing import Final

import orjson

Key = int | float | str | bytes

MISSING: Final = float("-inf")
FALSE: Final = b"\x00"
TRUE: Final = b"\x01"
COMPOSITE: Final = b"\x02"
STRINGS_FROM: Final = ""
STRINGS_BELOW: Final = b""
"""The least string, and what is just above all strings."""

_INTEGERS: Final = range(-(2**63), 2**63)
_PLAIN: Final = re.compile(r"[ !#-.0-Z^-~]+")
_FUNCTION: Final = "replicad_key"


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the function that the expressions of this module need."""
    connection.create_function(_FUNCTION, 2, _key_in, deterministic=True)


def json_path(field: str) -> str:
    """SQLite's path to a dotted field, none of whose names is empty or holds a quote."""
    return "$" + "".join(f'."{name}"' for name in field.split("."))


def needs_decoding(field: str, value: str) -> str:
    """An SQL condition: SQLite would not find the field in this JSON, or cut its string short.

    It compares names with the bytes of the text, in which any character may stand escaped, and
    ends strings at U+0000. What cannot matter for this field is not looked for: escapes of accents
    are common.
    """
    escapes = r"*\u00[0-7]*" if _PLAIN.fullmatch(field) else r"*\*"
    return f"{value} GLOB '{escapes}'"


def key_expression(field: str, value: str, path: str) -> str:
    """The SQL expression for a field's key.

    Args:
        field: Its dotted name.
        value: The SQL expression of a record's JSON text.
        path: The SQL expression, a parameter, of `json_path(field)`.
    """
    found = f"json_extract({value},{path})"
    return (
        f"CASE WHEN {needs_decoding(field, value)} THEN {_FUNCTION}({value},{path}) "
        f"ELSE CASE json_type({value},{path}) "
        f"WHEN 'text' THEN {found} WHEN 'integer' THEN {found} WHEN 'real' THEN {found} "
        "WHEN 'false' THEN x'00' WHEN 'true' THEN x'01' "
        "WHEN 'object' THEN x'02' WHEN 'array' THEN x'02' ELSE -9e999 END END"
    )


def text_expression(field: str, value: str, path: str) -> str:
    """The SQL expression for a field's words: a string, and nothing if it is none."""
    return (
        f"CASE WHEN {needs_decoding(field, value)} THEN "
        f"iif(typeof({_FUNCTION}({value},{path})) = 'text', {_FUNCTION}({value},{path}), '') "
        f"WHEN json_type({value},{path}) = 'text' THEN json_extract({value},{path}) ELSE '' END"
    )


def rank(key: Key) -> tuple[int, Key]:
    """What makes keys compare in Python as they do in SQLite."""
    match key:
        case str():
            return 1, key
        case bytes():
            return 2, key
    return 0, key


def key_of(value: object) -> Key:
    """The key of a decoded JSON value."""
    match value:
        case None:
            return MISSING
        case bool():
            return TRUE if value else FALSE
        case int():
            return value if value in _INTEGERS else float(value)
        case float() | str():
            return value
    return COMPOSITE


def _key_in(text: str, path: str) -> Key:
    """The key at a path of `json_path` in a record, found without SQLite."""
    value: object = orjson.loads(text)
    for name in path[3:-1].split('"."'):
        value = value.get(name) if isinstance(value, dict) else None
    return key_of(value)
