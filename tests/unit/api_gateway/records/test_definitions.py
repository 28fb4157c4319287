from __future__ import annotations

from contextlib import suppress
from importlib import resources
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.cluster.leader import Stored
from api_gateway.errors import InvalidDefinitionError, InvalidIdError, InvalidRecordError
from api_gateway.records.definitions import (
    built_in,
    check_name,
    definition_from,
    parse_definition,
)

SCHEMA = {"properties": {"n": {"type": "integer"}}}


def test_what_is_stored_is_what_was_defined() -> None:
    told = {"schema": SCHEMA, "indexes": ["a.b", "c d"], "search": ["ñ"], "key": "dni"}
    definition = parse_definition("c", told)
    again = definition_from("c", Stored(7, definition.encode()))
    assert again is not None
    assert again.describe() == {
        "name": "c",
        "schema": SCHEMA,
        "indexes": ("a.b", "c d"),
        "search": ("ñ",),
        "key": "dni",
        "version": 7,
    }
    shown = orjson.loads(orjson.dumps(again.describe()))
    assert parse_definition("c", shown).encode() == definition.encode()  # May be sent back.


def test_everything_may_be_left_out() -> None:
    definition = parse_definition("c", {})
    assert definition.describe() == {
        "name": "c",
        "schema": None,
        "indexes": (),
        "search": (),
        "key": "id",
        "version": 0,
    }
    assert definition.check({"id": "a", "x": [1]}) == "a"


@pytest.mark.parametrize(
    "told",
    [
        {"schema": True},
        {"schema": "x"},
        {"schema": {"type": "x"}},
        {"schema": {"enum": ["x" * 2**18]}},
        {"key": "a.b"},
        {"key": ""},
        {"key": None},
        {"key": 'a"b'},
        {"indexes": "a"},
        {"indexes": [7]},
        {"indexes": ["a", "a"]},
        {"indexes": [""]},
        {"indexes": ["a..b"]},
        {"indexes": ["a[0]"]},
        {"indexes": ["a\\b"]},
        {"indexes": ["a\x00"]},
        {"indexes": ["a'b"]},
        {"indexes": ["x" * 129]},
        {"indexes": [f"f{n}" for n in range(17)]},
        {"search": [f"f{n}" for n in range(9)]},
        {"search": None},
        {"name": "other"},
        {"index": []},
    ],
    ids=lambda told: repr(told)[:30],
)
def test_refuses_definitions(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinitionError):
        parse_definition("c", told)


@given(
    st.dictionaries(
        st.sampled_from(["schema", "indexes", "search", "key", "name", "x"]),
        st.none()
        | st.text()
        | st.lists(st.text() | st.integers())
        | st.dictionaries(
            st.sampled_from(["type", "$ref", "pattern", "items", "enum"]), st.text() | st.none()
        ),
    )
)
def test_arbitrary_definitions_raise_nothing_else(told: dict[str, Any]) -> None:
    with suppress(InvalidDefinitionError):
        parse_definition("c", told)


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-D", "x" * 64])
def test_takes_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "_collections", "x" * 65, "a b", "a/b", "ñ", "a\n"])
def test_refuses_names(name: str) -> None:
    with pytest.raises(InvalidIdError):
        check_name(name)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "/dni"),
        ({"dni": 7}, "/dni"),
        ({"dni": "-"}, "/dni"),
        ({"dni": "b"}, "/dni"),
        ({"dni": "a", "n": "x"}, "/n"),
    ],
)
def test_checks_records_and_their_keys(document: dict[str, Any], path: str) -> None:
    definition = parse_definition("c", {"schema": SCHEMA, "key": "dni"})
    assert definition.check({"dni": "a", "n": 1}, "a") == "a"
    with pytest.raises(InvalidRecordError) as caught:
        definition.check(document, "a")
    errors = caught.value.extensions["errors"]
    assert isinstance(errors, list)
    assert [error["path"] for error in errors] == [path]
    assert path in caught.value.spanish


def test_the_forms_are_defined_from_the_start() -> None:
    assert definition_from("formularios", None) == built_in()
    assert definition_from("other", None) is None
    assert built_in().version == 0
    forms = resources.files("replicad").joinpath("examples", "legisladores.ndjson")
    for line in forms.read_bytes().splitlines():
        assert not built_in().errors_of(orjson.loads(line))
    assert not built_in().errors_of({"id": "a", "nombres": None, "x": {"y": [1]}})
    assert built_in().errors_of({"id": "a", "nombres": 7})
    assert built_in().errors_of({"nombres": "a"})
