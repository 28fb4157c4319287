"""Idempotency keys: what makes two requests one."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from api_gateway.errors import InvalidRequestError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Key:
    """What a request is known by.

    Attributes:
        text: The key.
        is_own: Whether the client chose it: then there may have been an earlier request.
    """

    text: str
    is_own: bool


def key_of(request: web.Request) -> Key:
    """The request's Idempotency-Key, or a new one if it has none.

    Raises:
        InvalidRequestError: It has several, or one that breaks the rule.
    """
    match request.headers.getall("Idempotency-Key", []):
        case []:
            return Key(new_key(), is_own=False)
        case [key]:
            return Key(check_key(key), is_own=True)
    raise _invalid()


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
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
