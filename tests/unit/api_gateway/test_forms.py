from __future__ import annotations

import json
import time
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.errors import InvalidRequestError
from api_gateway.forms import DEPTH_MAX, INTEGER_MAX, INTEGER_MIN, check_id, parse_form

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INTEGER_MIN, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)
white_space = st.text(" \t\r\n", max_size=3)


@st.composite
def spaced(draw: st.DrawFn, value: object, *, ascii_only: bool) -> tuple[str, str]:
    """The compact JSON of a value, and the same tokens with white space between them."""
    if isinstance(value, dict):
        parts = [
            (draw(spaced(name, ascii_only=ascii_only)), draw(spaced(member, ascii_only=ascii_only)))
            for name, member in value.items()
        ]
        compact = ",".join(f"{name[0]}:{member[0]}" for name, member in parts)
        loose = ",".join(
            f"{draw(white_space)}{name[1]}{draw(white_space)}:{draw(white_space)}{member[1]}"
            for name, member in parts
        )
        return f"{{{compact}}}", f"{{{loose}{draw(white_space)}}}"
    if isinstance(value, list):
        items = [draw(spaced(item, ascii_only=ascii_only)) for item in value]
        loose = ",".join(f"{draw(white_space)}{item[1]}{draw(white_space)}" for item in items)
        return f"[{','.join(item[0] for item in items)}]", f"[{loose}{draw(white_space)}]"
    token = json.dumps(value, ensure_ascii=ascii_only)
    return token, token


@given(st.data(), st.dictionaries(st.text(), json_values, max_size=4), st.booleans())
def test_only_white_space_between_tokens_is_removed(
    data: st.DataObject, fields: dict[str, object], ascii_only: bool
) -> None:
    fields = {name.encode(errors="replace").decode(): member for name, member in fields.items()} | {
        "id": "a"
    }
    compact, loose = data.draw(spaced(fields, ascii_only=ascii_only))
    body = f" {loose}\n".encode()
    form = parse_form(body)
    assert form.value == compact.encode()
    assert orjson.loads(form.value) == orjson.loads(body)
    assert parse_form(form.value) == form


@given(st.binary() | st.text('{}[]",:\\u0129.eE-+ntid \t').map(str.encode))
def test_arbitrary_bytes_raise_nothing_else(body: bytes) -> None:
    with suppress(InvalidRequestError):
        assert orjson.loads(parse_form(body).value) == orjson.loads(body)


@pytest.mark.parametrize(
    "member",
    [
        b"1.0",
        b"1e2",
        b"1E+2",
        b"-0",
        b"1.10",
        b"0.1000000000000000055511151231257827",
        b'"\\u00e9"',
        b'"\\/"',
        b'"\\ud83d\\ude00"',
        b'" \\" , : \\\\"',
        b"18446744073709551615",
        b"-9223372036854775808",
        b'{"z":1,"a":2}',
        '"ñandú\u2028"'.encode(),
    ],
)
def test_what_was_sent_is_what_is_kept(member: bytes) -> None:
    kept = b'{"id":"a","x":' + member + b"}"
    assert parse_form(kept).value == kept
    assert parse_form(b'{ "id" :\t"a",\n"x" : ' + member + b"\r\n}").value == kept


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no es JSON"),
        (b"hola", "no es JSON"),
        (b'{"id":"a"', "no es JSON"),
        (b'{"id":"a"} {}', "no es JSON"),
        (b'{"id":"a","x":NaN}', "no es JSON"),
        (b'{"id":"a","x":-Infinity}', "no es JSON"),
        (b'{"id":"a","x":01}', "no es JSON"),
        (b'{"id":"a",}', "no es JSON"),
        (b"{'id':'a'}", "no es JSON"),
        (b'{"id":"a","x":"\n"}', "no es JSON"),
        (b'\xef\xbb\xbf{"id":"a"}', "no es JSON"),
        ('{"id":"a"}'.encode("utf-16"), "UTF-8"),
        (b'{"id":"a","x":"\xff"}', "UTF-8"),
        (b'{"id":"a","x":"\xed\xa0\x80"}', "UTF-8"),
        (b"[]", "objeto"),
        (b'"a"', "objeto"),
        (b"null", "objeto"),
        (b"7", "objeto"),
        (b"{}", "Falta"),
        (b'{"ID":"a"}', "Falta"),
        (b'{"id":"a","id":"a"}', "«id» está repetido"),
        (b'{"id":"a","\\u0069d":"b"}', "«id» está repetido"),
        (b'{"id":"a","x":[{"y":1,"y":1}]}', "«y» está repetido"),
        (b'{"id":"a","x":"\\ud800"}', "sustituto"),
        (b'{"id":"a","\\udc00":1}', "sustituto"),
        (b'{"id":"a","x":"\\ude00\\ud83d"}', "sustituto"),
        (b'{"id":"a","x":18446744073709551616}', "64 bits"),
        (b'{"id":"a","x":-9223372036854775809}', "64 bits"),
        (b'{"id":"a","x":1' + b"0" * 400 + b"}", "64 bits"),
        (b'{"id":"a","x":1e999}', "double"),
        (b'{"id":"a","x":[-1e999]}', "double"),
        (b'{"id":"a","x":1' + b"0" * 400 + b".0}", "double"),
    ],
)
def test_refuses(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        parse_form(body)


@pytest.mark.parametrize(
    "key", ["a", "9", "A.b_c-D", "x" * 128, "1..", "a-"], ids=lambda key: key[:8]
)
def test_takes_ids(key: str) -> None:
    assert check_id(key) == key
    assert parse_form(orjson.dumps({"id": key})).key == key


@pytest.mark.parametrize(
    "key",
    ["", ".", "-a", "_a", "x" * 129, "a\n", "a b", "ñ", "a/b", "a%", "٣", 7, None, True, ["a"], {}],
    ids=lambda key: repr(key)[:8],
)
def test_refuses_ids(key: object) -> None:
    with pytest.raises(InvalidRequestError, match="El id debe ser"):
        parse_form(orjson.dumps({"id": key}))


def nested(depth: int, inner: bytes = b"") -> bytes:
    """A form that is nested `depth` deep, itself included."""
    return b'{"id":"a","x":' + b"[" * (depth - 1) + inner + b"]" * (depth - 1) + b"}"


def test_nesting_ends_at_the_limit() -> None:
    assert parse_form(nested(DEPTH_MAX)).key == "a"
    with pytest.raises(InvalidRequestError, match="niveles"):
        parse_form(nested(DEPTH_MAX + 1))
    with pytest.raises(InvalidRequestError, match="niveles"):
        parse_form(nested(1500))


def test_brackets_in_strings_and_beside_each_other_are_not_nesting() -> None:
    brackets_in_string = b'"' + b"[{" * 100 + b'\\"' + b"[{" * 100 + b'"'
    assert parse_form(nested(DEPTH_MAX, brackets_in_string)).key == "a"
    assert parse_form(b'{"id":"a","x":[' + b",".join([b"[]"] * 1000) + b"]}").key == "a"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2**20,
        b'{"id":"a","x":' + b"9" * 2**20,
        b'{"id":"a","x":' + b"9" * 2**20 + b"}",
        b'{"id":"a","x":1.' + b"9" * 2**20 + b"}",
        b'{"id":"a","x":' + b"9" * 2**20 + b"e5}",
        b'\\"' * 2**19 + b"[" * 33,
        b'"' * 2**20,
        b'{"id":"a","x":' + b" " * 2**20 + b"1}",
        b'{"id":"a","x":[' + b"{},\n" * 2**18 + b"1]}",
        b'{"id":"a","x":["' + b"\\\\" * 2**19 + b'", 1]}',
    ],
    ids=range(10),
)
def test_hostile_megabytes_take_linear_time(body: bytes) -> None:
    started = time.process_time()
    with suppress(InvalidRequestError):
        parse_form(body)
    # Ten times what they take; anything quadratic needs minutes.
    assert time.process_time() - started < 5
