"""Records as CSV rows, and rows as records. Pure.

An empty cell stands for a field that is not there, or is null; a quoted empty one, in a column of
text, for the empty text. Nested values are cells of JSON text.

A spreadsheet would run a text that begins with `=` as a formula. An apostrophe in front, added
when records are written and removed when they are read, prevents that; numbers need none.

Source: RFC 4180; OWASP, "CSV Injection", for what begins a formula.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from api_gateway.records.strict_json import members_of

_CELL: Final = r'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",]*+))'
_ROW: Final = re.compile(rf"{_CELL}(?:,{_CELL})*+", re.DOTALL)
_EACH_CELL: Final = re.compile(rf"(?:\A|,){_CELL}", re.DOTALL)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_HARMLESS: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_FORMULA: Final = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_BRACKET: Final = {"object": "{", "array": "["}
_NEEDS_QUOTES: Final = re.compile('[",\r\n]')


class CsvError(ValueError):
    """A row cannot be read; the text says why, in English and in Spanish.

    Attributes:
        english, spanish: The texts.
    """

    def __init__(self, english: str, spanish: str) -> None:
        """Take both texts."""
        super().__init__(english)
        self.english, self.spanish = english, spanish


@dataclass(frozen=True, slots=True)
class Column:
    """A column and what may stand in it.

    Attributes:
        name: The field's.
        types: JSON Schema's names of the types that the field may have. A cell is of the first
            one that it can be; a text it always can be.
    """

    name: str
    types: tuple[str, ...] = ("string",)


def columns_of(schema: Mapping[str, Any] | None, key: str) -> dict[str, Column]:
    """The fields that a schema names, the key first. The types of all others are not known.

    A field whose schema does not say its type, or says it only by reference, holds text.
    """
    properties = (schema or {}).get("properties", {})
    columns = {key: Column(key)}
    for name, field in properties.items():
        types = field.get("type", "string") if isinstance(field, Mapping) else "string"
        listed = [types] if isinstance(types, str) else types
        columns[name] = columns[name] if name == key else Column(name, tuple(listed))
    return columns


def parse_cells(row: bytes) -> list[str | None]:
    """The cells of one row; None for an empty one without quotes.

    Raises:
        CsvError: It is not UTF-8, or has a quote or a carriage return where there must be none.
    """
    try:
        text = row.decode()
    except UnicodeDecodeError:
        raise CsvError("The row is not UTF-8.", "La fila no es UTF-8.") from None
    # Two quotes within quotes leave nothing between them: what is outside keeps its turn.
    if "\r" in text and any("\r" in outside for outside in text.split('"')[::2]):
        raise CsvError(
            "A carriage return stands outside quotes: rows end with LF or CRLF.",
            "Hay un retorno de carro fuera de comillas: las filas terminan con LF o CRLF.",
        )
    if '"' not in text:
        return [cell or None for cell in text.split(",")]
    if not _ROW.fullmatch(text):
        raise CsvError(
            "A quote stands where there must be none, or does not close.",
            "Una comilla está donde no debe, o no se cierra.",
        )
    return [
        match[1].replace('""', '"') if match[1] is not None else match[2] or None
        for match in _EACH_CELL.finditer(text)
    ]


def parse_header(row: bytes, known: Mapping[str, Column], key: str) -> list[Column]:
    """The columns that a header names, typed where they are known.

    Raises:
        CsvError: A name is missing or repeated, or the key's is not among them.
    """
    names = [_undefuse(cell or "") for cell in parse_cells(row)]
    if "" in names:
        raise CsvError("A column has no name.", "Una columna no tiene nombre.")
    (commonest, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise CsvError(
            f"{times} columns are named {commonest[:64]}.",
            f"{times} columnas se llaman {commonest[:64]}.",
        )
    if key not in names:
        raise CsvError(
            f"The first row must name the columns, separated by commas, {key} among them.",
            f"La primera fila debe nombrar las columnas, separadas por comas, y {key} entre ellas.",
        )
    return [known.get(name, Column(name)) for name in names]


class RowDecoder:
    """Makes records of rows with known columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        """Take the columns in the order of the cells."""
        self._columns = [(orjson.dumps(each.name) + b":", each.types) for each in columns]

    def decode(self, row: bytes) -> bytes:
        """One record: a JSON object, not checked any further.

        Raises:
            CsvError: It is no row, or has more or fewer cells than there are columns.
        """
        cells = parse_cells(row)
        if len(cells) != len(self._columns):
            raise CsvError(
                f"The row has {len(cells)} cells, and there are {len(self._columns)} columns.",
                f"La fila tiene {len(cells)} celdas, y hay {len(self._columns)} columnas.",
            )
        members = [
            name + _json_of(cell, types)
            for (name, types), cell in zip(self._columns, cells, strict=True)
            if cell or (cell is not None and "string" in types)
        ]
        return b"{%b}" % b",".join(members)


def _json_of(cell: str, types: Sequence[str]) -> bytes:
    """What cannot be of the column's types is a text: the schema refuses it, and says why."""
    for each in types:
        match each:
            case "string":
                break
            case "integer" | "number" if _NUMBER.fullmatch(cell):
                return cell.encode()
            case "boolean" if cell.lower() in ("true", "false"):
                return cell.lower().encode()
            case "object" | "array" if cell[0] == _BRACKET[each] and _is_json(cell):
                return cell.encode()
    return orjson.dumps(_undefuse(cell))


def _is_json(cell: str) -> bool:
    try:
        orjson.loads(cell)
    except orjson.JSONDecodeError:
        return False
    return True


def encode_header(columns: Sequence[str]) -> bytes:
    """The row that names the columns, with its line end."""
    return ",".join(_text_cell(name) for name in columns).encode() + b"\r\n"


def encode_row(value: bytes, columns: Sequence[str]) -> bytes:
    """A stored record as a row, with its line end."""
    members = _members(value)
    return ",".join([members.get(name, "") for name in columns]).encode() + b"\r\n"


def _members(value: bytes) -> dict[str, str]:
    """Each top-level field as a cell. Numbers and nested values keep the text that is stored."""
    record = orjson.loads(value)
    if orjson.dumps(record) == value:
        return {name: _cell_of(field) for name, field in record.items()}
    return {
        orjson.loads(name): (
            _cell_of(orjson.loads(text)) if text[:1] in b'"n' else _quoted(text.decode())
        )
        for name, text in members_of(value)
    }


def _cell_of(field: object) -> str:
    if isinstance(field, str):
        return _text_cell(field)
    return "" if field is None else _quoted(orjson.dumps(field).decode())


def _text_cell(text: str) -> str:
    if _FORMULA.match(text) and not _HARMLESS.fullmatch(text):
        text = f"'{text}"
    return _quoted(text) if text else '""'


def _quoted(cell: str) -> str:
    if _NEEDS_QUOTES.search(cell):
        cell = '"{}"'.format(cell.replace('"', '""'))
    return cell


def _undefuse(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell
