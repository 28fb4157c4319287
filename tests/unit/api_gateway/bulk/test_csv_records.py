from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.bulk.csv_records import (
    Column,
    CsvError,
    RowDecoder,
    columns_of,
    encode_header,
    encode_row,
    parse_cells,
    parse_header,
)
from api_gateway.bulk.record_lines import RowSplitter
from api_gateway.records.strict_json import parse_object

SCHEMA = {
    "properties": {
        "id": {"type": "string"},
        "text": {"type": "string"},
        "edad": {"type": "integer"},
        "peso": {"type": "number"},
        "vive": {"type": "boolean"},
        'más, "etc"': {"type": "string"},
        "=1+1": {"type": ["string"]},
        "lista": {"type": "array"},
    }
}
TYPED = columns_of(SCHEMA, "id")

texts = st.text(
    st.one_of(st.sampled_from("'=+-@\t\r\n\",;0. e\uff1d"), st.characters(codec="utf-8")),
    max_size=9,
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.fixed_dictionaries(
    {"id": texts},
    optional={
        "text": texts,
        "edad": st.integers(-(2**63), 2**64 - 1),
        "peso": numbers,
        "vive": st.booleans(),
        'más, "etc"': texts,
        "=1+1": texts,
        "lista": st.lists(st.one_of(numbers, texts), max_size=3),
    },
)


def read(data: bytes, columns: dict[str, Column] | None = None) -> list[bytes]:
    """The records of a CSV file."""
    splitter = RowSplitter()
    header, *rows = [
        piece.data for piece in (*splitter.feed(data), *splitter.end()) if piece.data is not None
    ]
    decoder = RowDecoder(parse_header(header, columns or {}, "id"))
    return [decoder.decode(row) for row in rows]


def written(values: list[bytes], columns: list[str]) -> bytes:
    return encode_header(columns) + b"".join(encode_row(value, columns) for value in values)


@given(st.lists(records))
def test_what_is_written_is_read_again(documents: list[dict[str, Any]]) -> None:
    values = [orjson.dumps(each) for each in documents]
    again = read(written(values, list(TYPED)), TYPED)
    assert [orjson.loads(value) for value in again] == documents


@given(st.lists(records))
def test_other_readers_see_the_same_cells(documents: list[dict[str, Any]]) -> None:
    file = written([orjson.dumps(each) for each in documents], list(TYPED)).decode()
    rows = list(csv.reader(StringIO(file, newline=""), strict=True))
    assert all(len(row) == len(TYPED) for row in rows)
    formulas = [cell for row in rows for cell in row if cell[:1] in ("=", "@", "\t", "\r")]
    assert not formulas
    assert all(float(cell) is not None for row in rows for cell in row if cell[:1] in ("+", "-"))


@given(st.binary())
def test_any_bytes_are_cells_or_are_refused(row: bytes) -> None:
    try:
        cells = parse_cells(row)
    except CsvError:
        return
    assert cells


@pytest.mark.parametrize("row", [b"a\rb", b'"a"\r"b"', b'a,"b"\r', b'"a""\n"\r,5'])
def test_a_carriage_return_outside_quotes_is_refused(row: bytes) -> None:
    with pytest.raises(CsvError, match="carriage return"):
        parse_cells(row)


def test_a_carriage_return_within_quotes_is_text() -> None:
    assert parse_cells(b'"a\r","""\r""",b') == ["a\r", '"\r"', "b"]


def test_numbers_keep_the_text_that_is_stored() -> None:
    value = (
        b'{"id":"a","peso":1.50,"edad":-0,"lista":[1.50,1E2,"\\/"],"vive":true,'
        b'"text":"\\u0041\\/","=1+1":null}'
    )
    assert encode_row(value, list(TYPED)) == b'a,A/,-0,1.50,true,,,"[1.50,1E2,""\\/""]"\r\n'
    (again,) = read(written([value], ["id", "edad", "peso", "lista"]), TYPED)
    assert again == b'{"id":"a","edad":-0,"peso":1.50,"lista":[1.50,1E2,"\\/"]}'


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", b"'=1+1"),
        ("'=1+1", b"''=1+1"),
        ("@x", b"'@x"),
        ("-x", b"'-x"),
        ("\tx", b"'\tx"),
        ("\rx", b'"\'\rx"'),
        ("\uff1dx", "'\uff1dx".encode()),
        ("-5", b"-5"),
        ("+56912345678", b"+56912345678"),
        ("-5-5", b"'-5-5"),
        ("'s-Gravenhage", b"'s-Gravenhage"),
        ("007", b"007"),
        ("", b'""'),
        ('a"b', b'"a""b"'),
    ],
)
def test_only_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str, cell: bytes) -> None:
    value = orjson.dumps({"id": text})
    assert encode_row(value, ["id"]) == cell + b"\r\n"
    if text:
        assert read(b"id\r\n" + cell) == [value]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"a,b,5,1.5,true", {"id": "a", "text": "b", "edad": 5, "peso": 1.5, "vive": True}),
        (b'a,"",,,', {"id": "a", "text": ""}),
        (b'a,,"","",""', {"id": "a"}),
        (
            b'"a","x\r\n""y"",",007,1,FALSE',
            {"id": "a", "text": 'x\r\n"y",', "edad": "007", "peso": 1, "vive": False},
        ),
        (b"a,7,seis,1e3,no", {"id": "a", "text": "7", "edad": "seis", "peso": 1e3, "vive": "no"}),
    ],
)
def test_cells_take_the_type_of_their_column(row: bytes, expected: dict[str, Any]) -> None:
    (value,) = read(b"id,text,edad,peso,vive\r\n" + row, TYPED)
    assert orjson.loads(value) == expected


def test_columns_that_the_schema_does_not_name_hold_text() -> None:
    assert read(b"otro,id\n5,a\n{},b") == [b'{"otro":"5","id":"a"}', b'{"otro":"{}","id":"b"}']


def test_what_looks_like_an_object_and_is_none_stays_text() -> None:
    columns = {"o": Column("o", ("object",)), "a": Column("a", ("array",))}
    (value,) = read(b"id,o,a\nx,{b,[1]\n", columns)
    assert value == b'{"id":"x","o":"{b","a":[1]}'
    parse_object(value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"\xff,b", "UTF-8"),
        (b'a,"b', "quote"),
        (b'a,b"c', "quote"),
        (b'"a"b,c', "quote"),
        (b"a", "1 cells"),
        (b"a,b,c", "3 cells"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: bytes, reason: str) -> None:
    with pytest.raises(CsvError, match=reason):
        RowDecoder([Column("id"), Column("x")]).decode(row)


@pytest.mark.parametrize("header", [b"a,a,id", b"a,,id", b"a,b", b"id;a", b'id,"a'])
def test_a_bad_header_is_refused(header: bytes) -> None:
    with pytest.raises(CsvError):
        parse_header(header, {}, "id")


def test_columns_come_from_the_schema() -> None:
    schema = {
        "properties": {"a": {"type": ["integer", "null"]}, "k": {"type": "integer"}, "b": True}
    }
    assert columns_of(schema, "k") == {
        "k": Column("k"),
        "a": Column("a", ("integer", "null")),
        "b": Column("b"),
    }
    assert columns_of(None, "id") == {"id": Column("id")}


@pytest.mark.parametrize(
    ("types", "cell", "value"),
    [
        (("number", "string", "null"), "30", b"30"),
        (("number", "string"), "030", b'"030"'),
        (("string", "number", "null"), "30", b'"30"'),
        (("null", "boolean", "integer"), "1", b"1"),
        (("boolean",), "1", b'"1"'),
        (("array", "object"), '{"a":1}', b'{"a":1}'),
        (("integer",), '""', None),
        (("integer", "string"), '""', b'""'),
        (("string",), "", None),
    ],
)
def test_a_cell_is_of_the_first_type_that_it_can_be(
    types: tuple[str, ...], cell: str, value: bytes | None
) -> None:
    cell = '"{}"'.format(cell.replace('"', '""')) if cell[:1] == "{" else cell
    decoder = RowDecoder([Column("id"), Column("x", types)])
    expected = b'{"id":"a"}' if value is None else b'{"id":"a","x":%b}' % value
    assert decoder.decode(f"a,{cell}".encode()) == expected


def test_a_header_of_very_many_columns_is_read_in_linear_time() -> None:
    names = [f"{number:x}" for number in range(150_000)]
    assert len(parse_header(",".join(["id", *names]).encode(), {}, "id")) == 150_001
