"""What collections are: their definitions, checked, stored as records, and kept at hand.

A definition is used without asking anybody. The leader knows its version: a write that was
checked by another one than there is comes back, and is checked again.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import orjson

from api_gateway.cluster.leader import Stored
from api_gateway.errors import (
    InvalidDefinitionError,
    InvalidIdError,
    InvalidRecordError,
    NoSuchCollectionError,
)
from api_gateway.reading.consistency import Level, Wish
from api_gateway.reading.reads import Reads
from api_gateway.records.forms import is_id
from api_gateway.records.validation import Finding, Validator, pointer_to
from api_gateway.web.languages import Phrase
from replicad.core.write import DEFINITIONS

FORMS: Final = "formularios"
"""The collection that is there from the start; the paths under /API/ use it."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FIELD: Final = re.compile(r"""[^\x00-\x1f\x7f"'`\\\[\].]+""")
_FIELD_CHARACTERS_MAX: Final = 128
_SCHEMA_BYTES_MAX: Final = 256 * 1024
_INDEXES_MAX: Final = 16
_SEARCH_MAX: Final = 8
_MEMBERS: Final = frozenset({"name", "schema", "indexes", "search", "key", "version"})
# Compiled schemas take memory, and anybody may define collections.
_KEPT_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Definition:
    """A collection.

    Attributes:
        name: Its name.
        version: Of the record that defines it; 0 for the built-in definition, and for one that is
            not stored yet.
        schema: Its JSON Schema, or None.
        indexes: Fields by which its records are found quickly; dotted paths.
        search: Fields whose words are searched.
        key: The field that holds a record's id.
        validator: The schema, ready for use.
    """

    name: str
    version: int
    schema: dict[str, Any] | None
    indexes: tuple[str, ...]
    search: tuple[str, ...]
    key: str
    validator: Validator | None

    def describe(self) -> dict[str, Any]:
        """What clients see."""
        return {
            "name": self.name,
            "schema": self.schema,
            "indexes": self.indexes,
            "search": self.search,
            "key": self.key,
            "version": self.version,
        }

    def encode(self) -> bytes:
        """What is stored."""
        told = self.describe()
        del told["version"]
        return orjson.dumps(told)

    def errors_of(self, document: dict[str, Any]) -> list[Finding]:
        """What is wrong with a record: path and message of each error; its key first."""
        has_key = is_id(document.get(self.key))
        errors: list[Finding] = []
        if not has_key:
            errors.append(self._bad_key("must be there, and be an id.", "debe estar, y ser un id."))
        if self.validator is not None:
            errors += self.validator.errors_of(document, known=None if has_key else self.key)
        return errors

    def check(self, document: dict[str, Any], key: str | None = None) -> str:
        """Check a record and return its id.

        Args:
            document: The record.
            key: The id that it must have; None for any.

        Raises:
            InvalidRecordError: It breaks the schema, or its key is missing or another one.
        """
        own: str = document.get(self.key, "")
        if is_id(own) and key in (None, own) and self._accepts(document):
            return own
        errors = self.errors_of(document)
        if not errors:
            errors = [
                self._bad_key(
                    "must be the id under which the record is stored.",
                    "debe ser el id con el que se guarda el registro.",
                )
            ]
        where, what = errors[0]["path"] or "/", errors[0]["message"]
        raise InvalidRecordError(
            f"The record is not as its collection wants it. {where}: {what.english}",
            f"El registro no es como su colección lo pide. {where}: {what.spanish}",
            extensions={"errors": errors},
        )

    def _accepts(self, document: dict[str, Any]) -> bool:
        return self.validator is None or self.validator.accepts(document)

    def _bad_key(self, english: str, spanish: str) -> Finding:
        return Finding(path=pointer_to([self.key]), message=Phrase(english, spanish))


def check_name(name: str) -> str:
    """Return the name of a collection.

    Raises:
        InvalidIdError: No collection may have this name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidIdError(
            "A collection's name must be 1 to 64 characters of A-Z a-z 0-9 . _ - "
            "that begin with a letter or a digit.",
            "El nombre de una colección debe tener de 1 a 64 caracteres de A-Z a-z 0-9 . _ - "
            "y comenzar con una letra o un dígito.",
        )
    return name


def parse_definition(name: str, document: dict[str, Any], version: int = 0) -> Definition:
    """Make a definition of what a client sent, or of what is stored.

    Raises:
        InvalidDefinitionError: It breaks a rule; the error says which.
    """
    unknown = document.keys() - _MEMBERS
    if unknown:
        shown = min(unknown)[:64]
        raise InvalidDefinitionError(
            f"A definition has no member «{shown}».", f"Una definición no tiene el campo «{shown}»."
        )
    if document.get("name", name) != name:
        raise InvalidDefinitionError(
            "The definition names another collection.", "La definición nombra otra colección."
        )
    schema = document.get("schema")
    if schema is not None and not isinstance(schema, dict):
        raise InvalidDefinitionError(
            "schema must be an object or null.", "schema debe ser un objeto o null."
        )
    if len(orjson.dumps(schema)) > _SCHEMA_BYTES_MAX:
        raise InvalidDefinitionError(
            "The schema exceeds the limit of 256 KiB.", "El esquema supera el límite de 256 KiB."
        )
    key = document.get("key", "id")
    if not _is_field(key) or "." in key:
        raise InvalidDefinitionError(
            "key must be the name of a field.", "key debe ser el nombre de un campo."
        )
    return Definition(
        name=name,
        version=version,
        schema=schema,
        indexes=_fields(document, "indexes", _INDEXES_MAX),
        search=_fields(document, "search", _SEARCH_MAX),
        key=key,
        validator=None if schema is None else Validator(schema),
    )


def _fields(document: dict[str, Any], member: str, fields_max: int) -> tuple[str, ...]:
    fields = document.get(member, [])
    if (
        not isinstance(fields, list)
        or len(fields) > fields_max
        or not all(map(_is_field, fields))
        or len(set(fields)) < len(fields)
    ):
        raise InvalidDefinitionError(
            f"{member} must be a list of at most {fields_max} different fields: dotted paths of at "
            f"most {_FIELD_CHARACTERS_MAX} characters without quotes, brackets, backslashes and "
            "control characters.",
            f"{member} debe ser una lista de a lo más {fields_max} campos distintos: rutas con "
            f"puntos de a lo más {_FIELD_CHARACTERS_MAX} caracteres sin comillas, corchetes, "
            "barras invertidas ni caracteres de control.",
        )
    return tuple(fields)


def _is_field(name: object) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= _FIELD_CHARACTERS_MAX
        and all(map(_FIELD.fullmatch, name.split(".")))
    )


@cache
def built_in() -> Definition:
    """How `formularios` is defined until somebody defines it otherwise."""
    schema = resources.files("replicad").joinpath("examples", "formularios.schema.json")
    return parse_definition(FORMS, {"schema": orjson.loads(schema.read_bytes())})


def definition_from(name: str, stored: Stored | None) -> Definition | None:
    """The definition that a record of DEFINITIONS holds; None if there is no such collection."""
    if stored is None:
        return built_in() if name == FORMS else None
    return parse_definition(name, orjson.loads(stored.value), stored.version)


class Definitions:
    """The definitions of collections, as last seen."""

    def __init__(self, reads: Reads) -> None:
        """Know none yet."""
        self._reads = reads
        self._kept: OrderedDict[str, Definition] = OrderedDict()

    async def of(self, collection: str, *, deadline: float | None = None) -> Definition:
        """The definition as last seen; that it is still so is the leader's to say.

        Args:
            collection: Its name.
            deadline: As in `Reads.get`.

        Raises:
            NoSuchCollectionError: There is none: read just now.
            UnavailableError: It could not be read.
        """
        kept = self._kept.get(collection)
        if kept is not None:
            self._kept.move_to_end(collection)
            return kept
        return await self.reread(collection, deadline=deadline)

    async def reread(self, collection: str, *, deadline: float | None = None) -> Definition:
        """The definition as it is now; otherwise as `of`."""
        stored, _ = await self._reads.get(DEFINITIONS, collection, deadline=deadline)
        definition = definition_from(collection, stored)
        if definition is None:
            self._kept.pop(collection, None)
            raise NoSuchCollectionError
        self._kept[collection] = definition
        self._kept.move_to_end(collection)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return definition

    def forget(self, collection: str) -> None:
        """Read it again when it is used next."""
        self._kept.pop(collection, None)

    async def check_exists(self, collection: str, wish: Wish) -> None:
        """Make sure that there is such a collection, as of what the wish asks for.

        Raises:
            NoSuchCollectionError: There is none.
            UnavailableError: Nobody could tell.
        """
        if collection == FORMS:
            return
        if wish.level is Level.STRONG:
            await self.reread(collection)
            return
        stored, _ = await self._reads.get(DEFINITIONS, collection, wish)
        if stored is None:
            raise NoSuchCollectionError
