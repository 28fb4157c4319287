"""Takes JSON as it may be kept, and no other. Pure.

What was sent is what is kept: only the white space between tokens is removed. Numbers, escapes
and the order of fields stay as they came, so a record is never decoded and encoded again.

Source: RFC 8259, and RFC 7493 (I-JSON) for what is refused beyond it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, NamedTuple, NoReturn

import orjson

from api_gateway.errors import InvalidJsonError

DEPTH_MAX: Final = 32
"""Nested objects and arrays of a record; the record itself is the first."""
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
"""What fits 64 bits, signed or unsigned."""

_INTEGER_CHARACTERS_MAX: Final = 20

# Always matches at a quote, if need be up to the end of the text: a scan of hostile bytes stays
# linear. In valid JSON that is exactly a string.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS: Final = re.compile(_STRING, re.DOTALL)
_STRING_OR_SPACE: Final = re.compile(rb"(" + _STRING + rb")|[ \t\r\n]+", re.DOTALL)
_STRING_OR_MARK: Final = re.compile(_STRING + rb"|[][{},:]", re.DOTALL)
_SPACE: Final = b" \t\r\n"
_LONG_INTEGER: Final = re.compile(rb"(?<![\d.eE+-])-?\d{19,}+(?![.eE])")
"""In valid JSON without its strings: the integers that may not fit 64 bits."""
_MANY_DIGITS: Final = b"0" * 19
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"0" * 9)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_BRACKETS_ALIKE: Final = bytes.maketrans(b"{}", b"[]")
_DEPTH_STEP: Final = {ord("["): 1, ord("]"): -1}


@dataclass(frozen=True, slots=True)
class Text:
    """Valid JSON.

    Attributes:
        document: What it says. Its floats may be less exact than the text.
        canonical: What was sent, without white space between its tokens.
    """

    document: Any
    canonical: bytes


class ObjectText(NamedTuple):
    """One valid JSON object; see Text."""

    document: dict[str, Any]
    canonical: bytes


def parse_object(body: bytes) -> ObjectText:
    """Validate one JSON object, in time linear in its length.

    Raises:
        InvalidJsonError: The body breaks a rule, or is something else.
    """
    document, canonical = _parse(body, DEPTH_MAX)
    if not isinstance(document, dict):
        raise InvalidJsonError(
            "The body must be a JSON object.", "El cuerpo debe ser un objeto JSON."
        )
    return ObjectText(document, canonical)


def parse_json(body: bytes, *, depth_max: int = DEPTH_MAX) -> Text:
    """Validate a text, in time linear in its length.

    Raises:
        InvalidJsonError: The text breaks a rule; the error says which.
    """
    return Text(*_parse(body, depth_max))


def _parse(body: bytes, depth_max: int) -> tuple[Any, bytes]:
    if _is_deeper(body, depth_max):
        raise InvalidJsonError(
            f"The JSON is nested more than {depth_max} levels deep.",
            f"El JSON tiene más de {depth_max} niveles de anidamiento.",
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _why_refused(body) from error
    # Equal bytes prove it all at once: no field lost to a duplicate, no rounded integer. They do so
    # with all white space left out, too, that within strings included: orjson writes every
    # character as short as JSON can, so not even an escaped space can make up for another one.
    again = orjson.dumps(document)
    if again == body or again.translate(None, _SPACE) == body.translate(None, _SPACE):
        return document, again
    return document, _canonical(body, again)


def depth_of(text: bytes) -> int:
    """How deep objects and arrays are nested in a valid text."""
    return _depth_of_brackets(_brackets_of(text))


def _brackets_of(text: bytes) -> bytes:
    """Those outside strings, all as square ones."""
    return _without_strings(text).translate(_BRACKETS_ALIKE, _NO_BRACKETS)


def _depth_of_brackets(brackets: bytes) -> int:
    return max(accumulate(map(_DEPTH_STEP.__getitem__, brackets)), default=0)


def members_of(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The members of an object without white space: each name, quoted as it is, and its value.

    Args:
        text: A whole object, as in ObjectText.canonical.
    """
    for part in elements_of(text):
        name = _STRINGS.match(part)
        if name is None:
            raise ValueError("not an object")
        yield name[0], part[name.end() + 1 :]


def elements_of(text: bytes) -> Iterator[bytes]:
    """The elements of an array without white space, or an object's members with their names."""
    depth, start = 0, 1
    for mark in _STRING_OR_MARK.finditer(text):
        match mark[0]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case b"," if depth == 1:
                yield text[start : mark.start()]
                start = mark.end()
    if start < len(text) - 1:
        yield text[start:-1]


def _without_strings(text: bytes) -> bytes:
    if b"\\" not in text:  # Then every quote begins or ends a string.
        return b"".join(text.split(b'"')[::2])
    return _STRINGS.sub(b"", text)


def _is_deeper(body: bytes, depth_max: int) -> bool:
    if body.find(b"[") < 0 and body.find(b"{", 1) < 0:
        return False  # As most are.
    if body.count(b"{") + body.count(b"[") <= depth_max:
        return False
    brackets = inner = _brackets_of(body)
    # Innermost pairs first: much faster than to count, as long as brackets come in pairs.
    for _ in range(depth_max):
        if not inner:
            return False
        inner = inner.replace(b"[]", b"")
    return bool(inner) and _depth_of_brackets(brackets) > depth_max


def _canonical(body: bytes, again: bytes) -> bytes:
    """Check what orjson lets pass in valid JSON, and remove the white space between tokens.

    Args:
        body: The text.
        again: What orjson read in it, written anew.
    """
    bare = _without_strings(body)
    if bare.count(b":") != _without_strings(again).count(b":"):  # A field was lost.
        json.loads(
            body.decode(),
            object_pairs_hook=_check_fields,
            parse_int=_check_integer,
            parse_float=len,  # orjson refused what overflows; there is nothing to convert.
        )
    if _MANY_DIGITS in bare.translate(_DIGITS_ALIKE):
        for integer in _LONG_INTEGER.finditer(bare):
            _check_integer(integer[0].decode())
    spaces = len(bare) - len(bare.translate(None, _SPACE))
    if not spaces:
        return body
    close = body.translate(None, _SPACE)
    if len(body) - len(close) == spaces:  # None of it is within strings.
        return close
    return _STRING_OR_SPACE.sub(rb"\1", body)


def _why_refused(body: bytes) -> InvalidJsonError:
    """Say why orjson refused the body, which is not nested too deeply to look."""
    try:
        json.loads(
            body.decode(),
            object_pairs_hook=_check_fields,
            parse_int=_check_integer,
            parse_float=_check_float,
            parse_constant=_refuse_constant,
        )
    except InvalidJsonError as error:
        return error
    except UnicodeDecodeError:
        return InvalidJsonError(
            "The body is not valid UTF-8 text.", "El cuerpo no es texto UTF-8 válido."
        )
    except ValueError:
        return InvalidJsonError("The body is not valid JSON.", "El cuerpo no es JSON válido.")
    return InvalidJsonError(
        "The JSON holds a lone Unicode surrogate (\\ud800 to \\udfff without its other half).",
        "El JSON contiene un sustituto Unicode suelto (\\ud800 a \\udfff sin pareja).",
    )


def _check_fields(fields: Sequence[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in fields:
        if name in seen:
            shown = name[:64].encode(errors="replace").decode()
            raise InvalidJsonError(
                f"The field «{shown}» is there twice in one object.",
                f"El campo «{shown}» está repetido en un mismo objeto.",
            )
        seen.add(name)


def _check_integer(digits: str) -> None:
    # The length first: to convert a million digits would take quadratic time.
    if len(digits) > _INTEGER_CHARACTERS_MAX or not INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        raise InvalidJsonError(
            "The JSON holds an integer that does not fit 64 bits.",
            "El JSON contiene un entero que no cabe en 64 bits.",
        )


def _check_float(digits: str) -> None:
    if math.isinf(float(digits)):
        raise InvalidJsonError(
            "The JSON holds a number that a double cannot represent.",
            "El JSON contiene un número que un double no puede representar.",
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
