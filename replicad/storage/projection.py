"""Records as an answer shows them: as they are stored, or the fields that were asked for.

What is shown of a record is cut out of the bytes that are stored, so numbers and texts stay as
they were written.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from replicad.storage.keys import json_path, needs_decoding

_WHOLE: Final = "SELECT CAST(value AS BLOB) FROM records WHERE at = ?"

_Tree = dict[str, Any]
"""Names of fields, each with the tree below it or, at its end, its column."""


class Projection:
    """Shows the same fields of one record after the other."""

    def __init__(self, fields: Sequence[str] | None) -> None:
        """Show these dotted fields; the whole record if None."""
        self._fields = None if fields is None else _outermost(fields)
        self._tree: _Tree = {}
        if self._fields is None:
            return
        for column, field in enumerate(self._fields):
            *above, last = field.split(".")
            at = self._tree
            for name in above:
                at = at.setdefault(name, {})
            at[last] = column
        hidden = " OR ".join(needs_decoding(field, "value") for field in self._fields)
        shown = "".join(f",value->?{at + 2}" for at in range(len(self._fields)))
        # What SQLite cannot find is looked for in the whole value.
        whole = f"CASE WHEN {hidden or '0'} THEN value END"
        self._statement = f"SELECT {whole}{shown} FROM records WHERE at = ?1"  # noqa: S608
        self._paths = [json_path(field) for field in self._fields]

    def read(self, connection: sqlite3.Connection, at: int) -> bytes:
        """What is shown of the record at a place, which must be there: a JSON object's bytes."""
        if self._fields is None:
            value: bytes
            (value,) = connection.execute(_WHOLE, (at,)).fetchone()
            return value
        found = connection.execute(self._statement, (at, *self._paths)).fetchone()
        whole, *columns = found
        if whole is not None:
            record = json.loads(whole, parse_float=_Number, parse_int=_Number)
            columns = [_at(record, field) for field in self._fields]
        return _object(self._tree, columns) or b"{}"


class _Number(str):
    """A number as it stands in the text."""

    __slots__ = ()


def _outermost(fields: Iterable[str]) -> list[str]:
    """Without those that stand twice, or within another one."""
    wanted = list(dict.fromkeys(fields))
    return [f for f in wanted if not any(f.startswith(f"{other}.") for other in wanted)]


def _object(tree: _Tree, columns: Sequence[str | None]) -> bytes | None:
    """The object that has what there is of a tree's fields; None if there is nothing."""
    members = []
    for name, below in tree.items():
        if isinstance(below, dict):
            value = _object(below, columns)
        else:
            text = columns[below]
            value = None if text is None else text.encode()
        if value is not None:
            members.append(orjson.dumps(name) + b":" + value)
    return b"{%b}" % b",".join(members) if members else None


def _at(record: object, field: str) -> str | None:
    """The JSON text of a dotted field of a decoded record."""
    at = record
    for name in field.split("."):
        if not isinstance(at, dict) or name not in at:
            return None
        at = at[name]
    return _text(at)


def _text(value: object) -> str:
    match value:
        case _Number():
            return str(value)
        case dict():
            members = (f"{_text(str(name))}:{_text(each)}" for name, each in value.items())
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(map(_text, value)) + "]"
    return orjson.dumps(value).decode()
