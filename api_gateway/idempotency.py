"""Idempotency keys: what makes two requests one."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final, NamedTuple

from multidict import MultiMapping

from api_gateway.errors import InvalidRequestError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
_RANDOM_DIGITS: Final = 20
_DRAWN_AT_ONCE: Final = 256
_random: Final[list[str]] = []


class Key(NamedTuple):
    """What a request is known by.

    Attributes:
        text: The key.
        is_own: Whether the client chose it: then there may have been an earlier request.
    """

    text: str
    is_own: bool


def key_of(headers: MultiMapping[str]) -> Key:
    """The Idempotency-Key that a request's headers name, or a new one if they have none.

    Raises:
        InvalidRequestError: It has several, or one that breaks the rule.
    """
    if "Idempotency-Key" not in headers:
        return Key(new_key(), is_own=False)
    keys = headers.getall("Idempotency-Key")
    if len(keys) > 1:
        raise _invalid()
    return Key(check_key(keys[0]), is_own=True)


def check_key(key: str) -> str:
    """Return the key if it is one.

    Raises:
        InvalidRequestError: It is not 1 to 128 visible ASCII characters.
    """
    if not _KEY.fullmatch(key):
        raise _invalid()
    return key


def _invalid() -> InvalidRequestError:
    return InvalidRequestError(
        "An Idempotency-Key must be 1 to 128 visible ASCII characters.",
        "Una Idempotency-Key debe tener de 1 a 128 caracteres ASCII visibles.",
    )


def new_key() -> str:
    """48 bits of time in milliseconds, then 80 random bits, in hex: as a UUIDv7, RFC 9562.

    Ids that grow with time keep the record store's index of request ids small to touch.
    """
    if not _random:  # The kernel is asked for many at once: a system call for each would cost more.
        drawn = secrets.token_hex(_RANDOM_DIGITS // 2 * _DRAWN_AT_ONCE)
        starts = range(0, len(drawn), _RANDOM_DIGITS)
        _random.extend(drawn[start : start + _RANDOM_DIGITS] for start in starts)
    return f"{time.time_ns() // 1_000_000:012x}{_random.pop()}"
