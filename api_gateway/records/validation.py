"""What a collection's records must be like, and what a schema must be like. Pure.

Source: JSON Schema, draft 2020-12; docs/api.md, "Collections".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypedDict

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError
from jsonschema_rs import ValidationErrorKind as Kind

from api_gateway.errors import InvalidDefinitionError
from api_gateway.web.languages import Phrase

ERRORS_MAX: Final = 20
"""How many errors of one record are told."""
_MESSAGE_CHARACTERS_MAX: Final = 300
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_NAME_CHARACTERS_MAX: Final = 64
_TOLD_MAX: Final = 8
"""How many of a schema's values, or of a record's fields, one message names."""
_TYPES: Final = {
    "array": "lista",
    "boolean": "booleano",
    "integer": "entero",
    "null": "nulo",
    "number": "número",
    "object": "objeto",
    "string": "texto",
}
# With a limit of one, and with any other.
_LIMITED: Final[Mapping[type[Kind], tuple[str, str]]] = {
    Kind.Maximum: ("el valor es mayor que {}",) * 2,
    Kind.Minimum: ("el valor es menor que {}",) * 2,
    Kind.ExclusiveMaximum: ("el valor debe ser menor que {}",) * 2,
    Kind.ExclusiveMinimum: ("el valor debe ser mayor que {}",) * 2,
    Kind.MaxLength: ("el texto tiene más de {} carácter", "el texto tiene más de {} caracteres"),
    Kind.MinLength: (
        "el texto tiene menos de {} carácter",
        "el texto tiene menos de {} caracteres",
    ),
    Kind.MaxItems: ("la lista tiene más de {} elemento", "la lista tiene más de {} elementos"),
    Kind.MinItems: ("la lista tiene menos de {} elemento", "la lista tiene menos de {} elementos"),
    Kind.MaxProperties: ("tiene más de {} campo", "tiene más de {} campos"),
    Kind.MinProperties: ("tiene menos de {} campo", "tiene menos de {} campos"),
}
_PLAIN: Final[Mapping[type[Kind], str]] = {
    Kind.AnyOf: "el valor no cumple ninguno de los esquemas de anyOf",
    Kind.OneOfNotValid: "el valor no cumple ninguno de los esquemas de oneOf",
    Kind.OneOfMultipleValid: "el valor cumple más de uno de los esquemas de oneOf",
    Kind.Not: "el valor cumple el esquema de not, que no debe cumplir",
    Kind.Contains: "la lista no tiene los elementos que pide contains",
    Kind.UniqueItems: "la lista tiene elementos repetidos",
    Kind.UnevaluatedItems: "la lista tiene elementos que no están permitidos",
    Kind.AdditionalItems: "la lista tiene elementos que no están permitidos",
    Kind.FalseSchema: "aquí no se permite ningún valor",
    Kind.Referencing: "una referencia no se puede resolver",
}


class Finding(TypedDict):
    """Something that is wrong with a record.

    Attributes:
        path: Where (RFC 6901); empty for the whole record.
        message: What.
    """

    path: str
    message: Phrase


class Validator:
    """A schema, made ready to check records.

    Attributes:
        accepts: Tells whether a record is as it should be; `errors_of` says what is wrong.
    """

    accepts: Callable[[dict[str, Any]], bool]

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile a schema.

        Raises:
            InvalidDefinitionError: It is none, or reaches for something outside itself.
        """
        if schema.get("$schema", _DRAFT) not in (_DRAFT, f"{_DRAFT}#"):
            raise InvalidDefinitionError(
                f"The schema must be of the draft {_DRAFT}.",
                f"El esquema debe ser del borrador {_DRAFT}.",
            )
        if any(not reference.startswith("#") for reference in _references_of(schema)):
            raise InvalidDefinitionError(
                "References of a schema must begin with #: nothing outside it is fetched.",
                "Las referencias de un esquema deben comenzar con #: nada se busca fuera de él.",
            )
        try:
            self._compiled = Draft202012Validator(
                schema,
                validate_formats=True,
                offline=True,
                mask="value",  # A message must not repeat a megabyte.
                pattern_options=RegexOptions(),  # Linear in the text, whatever the pattern.
            )
        except ValidationError as error:
            where = pointer_to(error.instance_path)
            why = phrase_of(error)
            raise InvalidDefinitionError(
                f"The schema is not valid. {where or 'it'}: {why.english}",
                f"El esquema no es válido. {where or 'en él'}: {why.spanish}",
            ) from error
        self.accepts = self._compiled.is_valid

    def errors_of(self, document: dict[str, Any], *, known: str | None = None) -> list[Finding]:
        """What is wrong with a record, ERRORS_MAX at most.

        Args:
            document: The record.
            known: A field of it; that it is missing is told already.
        """
        if self.accepts(document):
            return []
        errors = (
            error
            for error in self._compiled.iter_errors(document)
            if known is None or error.instance_path or not _is_missing(known, error)
        )
        return [
            Finding(path=pointer_to(error.instance_path), message=phrase_of(error))
            for error in islice(errors, ERRORS_MAX)
        ]


def pointer_to(path: Sequence[str | int]) -> str:
    """A path as a JSON Pointer (RFC 6901): `/a/0`; empty for the whole record."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def phrase_of(error: ValidationError) -> Phrase:
    """What an error says; the validator itself speaks English only."""
    return Phrase(
        error.message[:_MESSAGE_CHARACTERS_MAX], _spanish_of(error)[:_MESSAGE_CHARACTERS_MAX]
    )


def _spanish_of(error: ValidationError) -> str:
    kind = error.kind
    match kind:
        case Kind.PropertyNames(error=inner):
            name = _json(str(inner.instance)[:_NAME_CHARACTERS_MAX])
            return f"no se permite el nombre de campo {name}: {_spanish_of(inner)}"
        case Kind.Type(types=types):
            return f"el valor no es de tipo {_or(_TYPES.get(each, each) for each in types)}"
        case Kind.Enum(options=options):
            return f"el valor no es uno de los permitidos: {_some(map(_json, options))}"
        case (
            Kind.AdditionalProperties(unexpected=names)
            | Kind.UnevaluatedProperties(unexpected=names)
        ):
            return f"tiene campos que no están permitidos: {_some(map(_json, names))}"
        case Kind.Format(format=name):
            return f"el valor no tiene el formato {_json(name)}"
        case Kind.Required(property=name):
            return f"falta el campo {_json(name)}"
        case Kind.Constant(expected_value=value):
            return f"el valor debe ser {_json(value)}"
        case Kind.Pattern(pattern=pattern):
            return f"el valor no coincide con {_json(pattern)}"
        case Kind.MultipleOf(multiple_of=divisor):
            return f"el valor no es múltiplo de {divisor}"
    for each, (one, many) in _LIMITED.items():
        if isinstance(kind, each):
            limit = kind.as_dict()["limit"]
            return (one if limit == 1 else many).format(limit)
    return _PLAIN.get(type(kind), f"no cumple lo que el esquema pide con «{kind.name}»")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _or(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} o {last}" if others else last


def _some(words: Iterable[str]) -> str:
    """The first of them, and whether there are more."""
    told = list(islice(words, _TOLD_MAX + 1))
    return ", ".join(told[:_TOLD_MAX]) + (", ..." if len(told) > _TOLD_MAX else "")


def _is_missing(name: str, error: ValidationError) -> bool:
    return isinstance(error.kind, Kind.Required) and error.kind.property == name


def _references_of(schema: object) -> Iterable[str]:
    """Every text that may be a reference, also where it only looks like one."""
    match schema:
        case dict():
            for name, member in schema.items():
                if name in _REFERENCES and isinstance(member, str):
                    yield member
                else:
                    yield from _references_of(member)
        case list():
            for element in schema:
                yield from _references_of(element)
