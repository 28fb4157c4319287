"""Validates a posted form and brings it into the bytes that are stored. Pure.

What was sent is what is kept: only the white space between tokens is removed. Numbers, escapes
and the order of fields stay as they came, so a form is never decoded and encoded again.

Source: RFC 8259, and RFC 7493 (I-JSON) for what is refused beyond it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NoReturn

import orjson

from api_gateway.errors import InvalidRequestError

DEPTH_MAX: Final = 32
"""Nested objects and arrays; the form itself is the first."""
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
"""What fits 64 bits, signed or unsigned."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_INTEGER_CHARACTERS_MAX = 20

# Always matches at a quote, if need be up to the end of the text: a scan of hostile bytes stays
# linear. In valid JSON that is exactly a string.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS = re.compile(_STRING, re.DOTALL)
_STRING_OR_SPACE = re.compile(rb"(" + _STRING + rb")|[ \t\r\n]+", re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DEPTH_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_INVALID_ID = (
    "El id debe ser un texto de 1 a 128 caracteres de A-Z a-z 0-9 . _ - "
    "que comience con una letra o un dígito."
)


@dataclass(frozen=True, slots=True)
class Form:
    """A valid form.

    Attributes:
        key: Its id.
        value: The bytes to store: what was sent, without white space between its tokens.
    """

    key: str
    value: bytes


def check_id(key: object) -> str:
    """Return the id of a form.

    Raises:
        InvalidRequestError: It is not an id.
    """
    if not isinstance(key, str) or not _ID.fullmatch(key):
        raise InvalidRequestError(_INVALID_ID)
    return key


def parse_form(body: bytes) -> Form:
    """Validate the body of a request, in time linear in its length.

    Raises:
        InvalidRequestError: The body breaks a rule; the message says which.
    """
    if _is_too_deep(body):
        raise InvalidRequestError(f"El JSON tiene más de {DEPTH_MAX} niveles de anidamiento.")
    try:
        form = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(_why_refused(body)) from error
    # Equal bytes prove it all at once: no white space, no field lost to a duplicate, no rounded
    # integer. Any other body, `1.0e0` or `\/` for example, is looked at token by token.
    value = body if orjson.dumps(form) == body else _canonical(body)
    if not isinstance(form, dict):
        raise InvalidRequestError("El cuerpo debe ser un objeto JSON.")
    if "id" not in form:
        raise InvalidRequestError("Falta el campo id.")
    return Form(check_id(form["id"]), value)


def _is_too_deep(body: bytes) -> bool:
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return False
    brackets = _STRINGS.sub(b"", body).translate(None, _NO_BRACKETS)
    depths = accumulate(map(_DEPTH_STEP.__getitem__, brackets))
    return max(depths, default=0) > DEPTH_MAX


def _canonical(body: bytes) -> bytes:
    """Check what orjson lets pass in valid JSON, and remove the white space between tokens."""
    json.loads(
        body.decode(),
        object_pairs_hook=_check_fields,
        parse_int=_check_integer,
        parse_float=len,  # orjson refused what overflows; there is nothing to convert.
    )
    return _STRING_OR_SPACE.sub(rb"\1", body)


def _why_refused(body: bytes) -> str:
    """Say in Spanish why orjson refused the body, which is not nested too deeply to look."""
    try:
        json.loads(
            body.decode(),
            object_pairs_hook=_check_fields,
            parse_int=_check_integer,
            parse_float=_check_float,
            parse_constant=_refuse_constant,
        )
    except InvalidRequestError as error:
        return error.message
    except UnicodeDecodeError:
        return "El cuerpo no es texto UTF-8 válido."
    except ValueError:
        return "El cuerpo no es JSON válido."
    return "El JSON contiene un sustituto Unicode suelto (\\ud800 a \\udfff sin pareja)."


def _check_fields(fields: Sequence[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in fields:
        if name in seen:
            shown = name[:64].encode(errors="replace").decode()
            raise InvalidRequestError(f"El campo «{shown}» está repetido en un mismo objeto.")
        seen.add(name)


def _check_integer(digits: str) -> None:
    # The length first: to convert a million digits would take quadratic time.
    if len(digits) > _INTEGER_CHARACTERS_MAX or not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        raise InvalidRequestError("El JSON contiene un entero que no cabe en 64 bits.")


def _check_float(digits: str) -> None:
    if math.isinf(float(digits)):
        raise InvalidRequestError("El JSON contiene un número que un double no puede representar.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
