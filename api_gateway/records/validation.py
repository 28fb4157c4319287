"""What a collection's records must be like, and what a schema must be like. Pure.

Source: JSON Schema, draft 2020-12; docs/api.md, "Collections".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from api_gateway.errors import InvalidDefinitionError

ERRORS_MAX: Final = 20
"""How many errors of one record are told."""
_MESSAGE_CHARACTERS_MAX: Final = 300
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})


class Validator:
    """A schema, made ready to check records."""

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
            why = f"{where or 'it'}: {error.message[:_MESSAGE_CHARACTERS_MAX]}"
            raise InvalidDefinitionError(
                f"The schema is not valid. {why}", f"El esquema no es válido. {why}"
            ) from error

    def errors_of(self, document: dict[str, Any]) -> list[dict[str, str]]:
        """What is wrong with a record: `path` (RFC 6901) and `message`, ERRORS_MAX at most."""
        if self._compiled.is_valid(document):
            return []
        return [
            {
                "path": pointer_to(error.instance_path),
                "message": error.message[:_MESSAGE_CHARACTERS_MAX],
            }
            for error in islice(self._compiled.iter_errors(document), ERRORS_MAX)
        ]


def pointer_to(path: Sequence[str | int]) -> str:
    """A path as a JSON Pointer (RFC 6901): `/a/0`; empty for the whole record."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


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
