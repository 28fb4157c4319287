from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.errors import InvalidJsonError
from api_gateway.records.strict_json import (
    DEPTH_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    depth_of,
    elements_of,
    members_of,
    parse_object,
)

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
    form = parse_object(body)
    assert form.canonical == compact.encode()
    assert orjson.loads(form.canonical) == orjson.loads(body)
    assert parse_object(form.canonical) == form


@given(st.binary() | st.text('{}[]",:\\u0129.eE-+ntid \t').map(str.encode))
def test_arbitrary_bytes_raise_nothing_else(body: bytes) -> None:
    with suppress(InvalidJsonError):
        assert orjson.loads(parse_object(body).canonical) == orjson.loads(body)


def token_by_token(body: str) -> bytes:
    """What parse_object is to keep of valid JSON, found out slowly.

    Raises:
        InvalidJsonError: It breaks one of the rules that valid JSON may break.
    """

    def fields(pairs: list[tuple[str, object]]) -> None:
        if len(dict(pairs)) < len(pairs):
            raise InvalidJsonError

    def integer(digits: str) -> None:
        if not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
            raise InvalidJsonError

    json.loads(body, object_pairs_hook=fields, parse_int=integer)
    kept, is_inside, is_escaped = [], False, False
    for character in body:
        if is_inside or character not in " \t\r\n":
            kept.append(character)
        if character == '"' and not is_escaped:
            is_inside = not is_inside
        is_escaped = character == "\\" and not is_escaped
    return "".join(kept).encode()


@given(st.data(), st.sampled_from(["", " ", "\n\t "]))
def test_shortcuts_take_what_a_look_at_every_token_takes(data: st.DataObject, space: str) -> None:
    strings = st.lists(
        st.sampled_from(
            [
                "a",
                " ",
                "\\u0020",
                "\\/",
                "/",
                "\\\\",
                '\\"',
                "ñ",
                "\\u00f1",
                ":",
                "[",
                "}",
                "\\t",
                "9" * 19,
            ]
        ),
        max_size=3,
    ).map(lambda parts: f'"{"".join(parts)}"')
    numbers = st.sampled_from(
        [
            *("0", "-0", "1.50", "1e2", "1E+20", "0." + "7" * 20, "-" + "9" * 19, "9" * 19),
            *map(str, (INTEGER_MAX, INTEGER_MAX + 1, INTEGER_MIN, INTEGER_MIN - 1)),
            *("1" * 25 + ".0", "1" * 25 + "e5", "12e-" + "1" * 20),
        ]
    )

    def between(opening: str, parts: list[str], closing: str) -> str:
        inner = f"{space},{space}".join(parts)
        return f"{opening}{space}{inner}{space}{closing}"

    values = st.recursive(
        strings | numbers | st.sampled_from(["true", "null"]),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda parts: between("[", parts, "]"))
            | st.lists(st.tuples(strings, inner), max_size=3).map(
                lambda fields: between("{", [f"{name}:{space}{each}" for name, each in fields], "}")
            )
        ),
        max_leaves=8,
    )
    body = between("{", [f'"x":{space}{data.draw(values)}'], "}")
    try:
        kept = token_by_token(body)
    except InvalidJsonError:
        with pytest.raises(InvalidJsonError):
            parse_object(body.encode())
    else:
        assert parse_object(body.encode()).canonical == kept


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
    assert parse_object(kept).canonical == kept
    assert parse_object(b'{ "id" :\t"a",\n"x" : ' + member + b"\r\n}").canonical == kept


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
    with pytest.raises(InvalidJsonError, match=reason):
        parse_object(body)


def nested(depth: int, inner: bytes = b"") -> bytes:
    """A form that is nested `depth` deep, itself included."""
    return b'{"id":"a","x":' + b"[" * (depth - 1) + inner + b"]" * (depth - 1) + b"}"


def test_nesting_ends_at_the_limit() -> None:
    assert parse_object(nested(DEPTH_MAX)).document["id"] == "a"
    with pytest.raises(InvalidJsonError, match="niveles"):
        parse_object(nested(DEPTH_MAX + 1))
    with pytest.raises(InvalidJsonError, match="niveles"):
        parse_object(nested(1500))


def test_brackets_in_strings_and_beside_each_other_are_not_nesting() -> None:
    brackets_in_string = b'"' + b"[{" * 100 + b'\\"' + b"[{" * 100 + b'"'
    assert parse_object(nested(DEPTH_MAX, brackets_in_string)).document["id"] == "a"
    assert (
        parse_object(b'{"id":"a","x":[' + b",".join([b"[]"] * 1000) + b"]}").document["id"] == "a"
    )


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
    with suppress(InvalidJsonError):
        parse_object(body)
    # Ten times what they take; anything quadratic needs minutes.
    assert time.process_time() - started < 5


@given(st.lists(json_values, max_size=5))
def test_elements_are_what_an_array_is_made_of(values: list[object]) -> None:
    array = orjson.dumps(values)
    assert [orjson.loads(element) for element in elements_of(array)] == orjson.loads(array)
    assert b"[%b]" % b",".join(elements_of(array)) == array


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), json_values, max_size=5))
def test_members_are_what_an_object_is_made_of(fields: dict[str, object]) -> None:
    body = json.dumps(fields, separators=(",", ":")).encode()
    members = list(members_of(body))
    assert {orjson.loads(name): orjson.loads(value) for name, value in members} == fields
    assert b"{%b}" % b",".join(b"%b:%b" % member for member in members) == body


@given(json_values)
def test_depth_is_that_of_brackets_outside_strings(value: object) -> None:
    def depth(value: object) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0) if isinstance(inner, Iterable) else 0

    def without_text(value: object) -> object:
        if isinstance(value, dict):
            return {name: without_text(member) for name, member in value.items()}
        if isinstance(value, list):
            return [without_text(member) for member in value]
        return None if isinstance(value, str) else value

    assert depth_of(orjson.dumps(value)) == depth(without_text(value))
