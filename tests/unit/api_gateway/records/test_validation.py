from __future__ import annotations

import re
import time
from importlib import resources
from typing import Any

import orjson
import pytest
from jsonschema_rs import Draft202012Validator

from api_gateway.errors import InvalidDefinitionError
from api_gateway.records.validation import ERRORS_MAX, Validator, phrase_of, pointer_to
from api_gateway.web.languages import Language, Phrase, encode


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
        {"path": "", "message": Phrase('"id" is a required property', 'falta el campo "id"')},
        {
            "path": "/a~1b/1",
            "message": Phrase('value is not of type "integer"', "el valor no es de tipo entero"),
        },
        {
            "path": "/d",
            "message": Phrase('value is not a "date"', 'el valor no tiene el formato "date"'),
        },
    ]
    assert not Validator(schema).errors_of({"id": "a", "a/b": [], "d": "2020-12-01"})


def test_neither_many_errors_nor_long_values_are_repeated() -> None:
    validator = Validator({"additionalProperties": {"type": "integer"}, "maxProperties": 3})
    errors = validator.errors_of({f"f{n}": "x" * 10_000 for n in range(100)})
    assert len(errors) == ERRORS_MAX
    for language in Language:
        assert len(encode(errors, language)) < 10_000


@pytest.mark.parametrize(
    ("schema", "value", "spanish"),
    [
        ({"type": ["integer", "null"]}, "x", "de tipo nulo o entero"),
        ({"enum": ["F", 1, None]}, "x", 'permitidos: "F", 1, null'),
        ({"enum": list(range(20))}, "x", "permitidos: 0, 1, 2, 3, 4, 5, 6, 7, ..."),
        ({"const": {"ñ": 1}}, "x", 'debe ser {"ñ": 1}'),
        ({"pattern": "^a"}, "x", 'no coincide con "^a"'),
        ({"minLength": 2}, "x", "menos de 2 caracteres"),
        ({"minLength": 1}, "", "menos de 1 carácter"),
        ({"maxLength": 1}, "xx", "más de 1 carácter"),
        ({"minimum": 5}, 1, "menor que 5"),
        ({"maximum": 0.5}, 1, "mayor que 0.5"),
        ({"exclusiveMinimum": 1}, 1, "debe ser mayor que 1"),
        ({"exclusiveMaximum": 1}, 1, "debe ser menor que 1"),
        ({"multipleOf": 2}, 1, "no es múltiplo de 2"),
        ({"minItems": 2}, [], "menos de 2 elementos"),
        ({"maxItems": 1}, [1, 2], "más de 1 elemento"),
        ({"uniqueItems": True}, [1, 1], "repetidos"),
        ({"contains": {"const": 1}}, [], "contains"),
        ({"unevaluatedItems": False}, [1], "no están permitidos"),
        ({"minProperties": 1}, {}, "menos de 1 campo"),
        ({"maxProperties": 0}, {"a": 1}, "más de 0 campos"),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1}, 'permitidos: "b"'),
        ({"unevaluatedProperties": False}, {"b": 1}, 'permitidos: "b"'),
        ({"propertyNames": {"maxLength": 1}}, {"bb": 1}, 'campo "bb": el texto tiene más de 1'),
        ({"anyOf": [{"type": "string"}]}, 1, "ninguno de los esquemas de anyOf"),
        ({"oneOf": [{"type": "string"}]}, 1, "ninguno de los esquemas de oneOf"),
        ({"oneOf": [{}, {}]}, 1, "más de uno"),
        ({"not": {}}, 1, "de not"),
        (False, 1, "no se permite ningún valor"),
    ],
    ids=repr,
)
def test_tells_it_in_spanish(schema: object, value: object, spanish: str) -> None:
    (error,) = Validator({"properties": {"v": schema}}).errors_of({"v": value})
    assert error["path"] == "/v"
    assert spanish in error["message"].tell(Language.SPANISH)
    assert error["message"].tell(Language.ENGLISH) != error["message"].tell(Language.SPANISH)


def test_what_has_no_text_of_its_own_is_told_by_its_keyword() -> None:
    class Never:
        def __init__(self, *_: object) -> None:
            pass

        def validate(self, _: object) -> None:
            raise ValueError("no such thing")

    (error,) = Draft202012Validator({"size": 1}, keywords={"size": Never}).iter_errors({})
    assert phrase_of(error) == Phrase(
        "no such thing", "no cumple lo que el esquema pide con «size»"
    )


def test_a_field_whose_absence_is_known_is_not_told_to_be_missing() -> None:
    validator = Validator({"required": ["id", "n"], "properties": {"x": {"required": ["id"]}}})
    document: dict[str, Any] = {"x": {}}
    assert sorted(error["path"] for error in validator.errors_of(document)) == ["", "", "/x"]
    assert sorted(error["path"] for error in validator.errors_of(document, known="id")) == [
        "",
        "/x",
    ]


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
    with pytest.raises(InvalidDefinitionError, match=reason) as caught:
        Validator(schema)
    assert caught.value.spanish.startswith(("El esquema ", "Las referencias "))
    assert not re.search("is not|does not", caught.value.spanish)


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
