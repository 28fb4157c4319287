from __future__ import annotations

import time
from importlib import resources
from typing import Any

import orjson
import pytest

from api_gateway.errors import InvalidDefinitionError
from api_gateway.records.validation import ERRORS_MAX, Validator, pointer_to


def example(name: str) -> dict[str, Any]:
    path = resources.files("replicad").joinpath("examples", f"{name}.schema.json")
    schema: dict[str, Any] = orjson.loads(path.read_bytes())
    return schema


def test_tells_where_what_is_wrong() -> None:
    schema = {
        "required": ["id"],
        "properties": {
            "a/b": {"items": {"type": "integer"}},
            "d": {"format": "date"},
            "s": {"type": "string"},
        },
    }
    document = {"a/b": [1, "x"], "d": "2020-13-01", "s": "fine"}
    errors = Validator(schema).errors_of(document)
    assert sorted(errors, key=lambda error: error["path"]) == [
        {"path": "", "message": '"id" is a required property'},
        {"path": "/a~1b/1", "message": 'value is not of type "integer"'},
        {"path": "/d", "message": 'value is not a "date"'},
    ]
    assert not Validator(schema).errors_of({"id": "a", "a/b": [], "d": "2020-12-01"})


def test_neither_many_errors_nor_long_values_are_repeated() -> None:
    validator = Validator({"additionalProperties": {"type": "integer"}, "maxProperties": 3})
    errors = validator.errors_of({f"f{n}": "x" * 10_000 for n in range(100)})
    assert len(errors) == ERRORS_MAX
    assert len(orjson.dumps(errors)) < 10_000


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "text"}, "not valid"),
        ({"type": 7}, "not valid"),
        ({"properties": []}, "not valid"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(?=a)b"}, "regex"),  # Would need an engine that can take for ever.
        ({"pattern": r"(a)\1"}, "regex"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "begin with #"),
        ({"$ref": "file:///etc/passwd"}, "begin with #"),
        ({"$ref": "other.json"}, "begin with #"),
        ({"properties": {"a": {"anyOf": [{"$dynamicRef": "x#y"}]}}}, "begin with #"),
        ({"$id": "http://example.com/", "$ref": "other"}, "begin with #"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"$schema": 7}, "2020-12"),
    ],
    ids=repr,
)
def test_what_is_no_schema(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDefinitionError, match=reason):
        Validator(schema)


def test_a_property_may_be_called_like_a_keyword() -> None:
    validator = Validator({"properties": {"$ref": {"type": "string"}}})
    assert not validator.errors_of({"$ref": "http://example.com/"})
    assert validator.errors_of({"$ref": 7})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"$ref": "#"}}},
    ],
    ids=repr,
)
def test_a_schema_that_refers_to_itself_ends(schema: dict[str, Any]) -> None:
    document: dict[str, Any] = {}
    for _ in range(31):
        document = {"x": document}
    assert not Validator(schema).errors_of(document)


def test_hostile_text_takes_linear_time() -> None:
    validator = Validator({"properties": {"x": {"pattern": "^(a+)+$"}}})
    started = time.process_time()
    assert validator.errors_of({"x": "a" * 2**19 + "!"})
    assert time.process_time() - started < 5  # Backtracking would need longer than there is.


def test_pointers() -> None:
    assert pointer_to([]) == ""
    assert pointer_to(["a/b", 0, "~"]) == "/a~1b/0/~0"


def test_the_example_of_a_census_takes_its_forms_and_no_others() -> None:
    validator = Validator(example("censo"))
    good = {
        "id": "a",
        "nombres": "Íñigo",
        "apellidos": "Núñez",
        "genero": "Otro",
        "fecha_nacimiento": "2001-02-28",
        "edad": 30,
        "telefono": "+57 300 1234567",
        "correo": "i@example.com",
        "direccion": {"municipio": "Cali"},
    }
    assert not validator.errors_of(good)
    flaws: list[dict[str, Any]] = [
        {"edad": "30"},
        {"edad": -1},
        {"nombres": " "},
        {"genero": "x"},
        {"fecha_nacimiento": "2001-02-29"},
        {"correo": "nobody"},
        {"telefono": "12"},
        {"direccion": {}},
        {"unknown": 1},
    ]
    for bad in flaws:
        assert validator.errors_of(good | bad), bad
