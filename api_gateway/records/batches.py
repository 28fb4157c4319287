"""Several operations in one request, which happen together or not at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from api_gateway.errors import BodyTooLargeError, InvalidIdError, InvalidRequestError
from api_gateway.records.conditions import condition_of
from api_gateway.records.forms import check_id
from api_gateway.records.strict_json import DEPTH_MAX, elements_of, members_of, parse_json
from replicad.core.write import OPERATIONS_MAX, Condition, Operation, Wanted

BATCH_MEBIBYTES_MAX: Final = 16
_RECORD_BYTES_MAX: Final = 1024 * 1024
# A value is a member of an operation, which is an element of a member of the body.
_LEVELS_ABOVE: Final = 3
_MEMBERS: Final = frozenset({"operation", "id", "value", "if_match"})


class Verb(StrEnum):
    """What a client asks of one record."""

    PUT = "put"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class BatchOperation:
    """One of several operations.

    Attributes:
        operation: What the leader is asked.
        document: What the value says; None for a deletion.
        conditional: Whether the client named ETags.
    """

    operation: Operation
    document: dict[str, Any] | None
    conditional: bool


def parse_batch(body: bytes) -> list[BatchOperation]:
    """Make operations of a body: `{"operations": [...]}`, 1 to OPERATIONS_MAX.

    Raises:
        InvalidRequestError: It breaks a rule; the error says which, and where.
        BodyTooLargeError: A record is beyond its limit.
    """
    text = parse_json(body, depth_max=DEPTH_MAX + _LEVELS_ABOVE)
    document = text.document
    if not isinstance(document, dict) or document.keys() != {"operations"}:
        raise InvalidRequestError(
            'The body must be {"operations": [...]}.', 'El cuerpo debe ser {"operations": [...]}.'
        )
    told = document["operations"]
    if not isinstance(told, list) or not 1 <= len(told) <= OPERATIONS_MAX:
        raise InvalidRequestError(
            f"operations must be a list of 1 to {OPERATIONS_MAX}.",
            f"operations debe ser una lista de 1 a {OPERATIONS_MAX}.",
        )
    batch = []
    positions: dict[str, int] = {}
    for position, (each, value) in enumerate(zip(told, _values(text.canonical, told), strict=True)):
        parsed = _parse(position, each, value)
        first = positions.setdefault(parsed.operation.key, position)
        if first != position:
            raise _invalid(
                position,
                f"has the same id as operation {first}.",
                f"tiene el mismo id que la operación {first}.",
            )
        batch.append(parsed)
    return batch


def _parse(position: int, told: object, value: bytes | None) -> BatchOperation:
    if not isinstance(told, dict) or not told.keys() <= _MEMBERS:
        names = ", ".join(sorted(_MEMBERS))
        raise _invalid(
            position,
            f"must be an object with no other members than {names}.",
            f"debe ser un objeto sin más campos que {names}.",
        )
    try:
        key = check_id(told.get("id"))
    except InvalidIdError as error:
        error.extensions = {"position": position}
        raise
    try:
        verb = Verb(told.get("operation", "put"))
    except ValueError:
        raise _invalid(
            position,
            "must be a put, an insert, an update or a delete.",
            "debe ser put, insert, update o delete.",
        ) from None
    if verb is Verb.DELETE and value is not None:
        raise _invalid(position, "deletes: it takes no value.", "elimina: no lleva value.")
    if verb is not Verb.DELETE and not isinstance(told.get("value"), dict):
        raise _invalid(
            position, "needs an object as its value.", "necesita un objeto como su value."
        )
    if value is not None and len(value) > _RECORD_BYTES_MAX:
        raise BodyTooLargeError(1)
    operation = Operation(key, value, _condition(position, verb, told))
    return BatchOperation(operation, told.get("value"), "if_match" in told)


def _condition(position: int, verb: Verb, told: dict[str, Any]) -> Condition:
    if "if_match" not in told:
        match verb:
            case Verb.INSERT:
                return Wanted.ABSENT
            case Verb.UPDATE:
                return Wanted.PRESENT
        return Wanted.ANYTHING
    if_match = told["if_match"]
    if verb is Verb.INSERT or not isinstance(if_match, str):
        raise _invalid(
            position,
            "may have if_match as a text, unless it inserts.",
            "puede llevar if_match como texto, salvo que sea insert.",
        )
    try:
        return condition_of([if_match], [], name="if_match")
    except InvalidRequestError as error:
        error.extensions = {"position": position}
        raise


def _values(canonical: bytes, told: list[Any]) -> Iterator[bytes | None]:
    """The bytes of each operation's value, as they stand in the body; None where there is none."""
    if orjson.dumps({"operations": told}) == canonical:
        # Then what they are encoded to alone is what stands there, too.
        for each in told:
            has_value = isinstance(each, dict) and "value" in each
            yield orjson.dumps(each["value"]) if has_value else None
        return
    ((_, operations),) = members_of(canonical)
    for element in elements_of(operations):
        if element.startswith(b"{"):
            members = {orjson.loads(name): value for name, value in members_of(element)}
            yield members.get("value")
        else:
            yield None


def _invalid(position: int, english: str, spanish: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Operation {position} {english}",
        f"La operación {position} {spanish}",
        extensions={"position": position},
    )
