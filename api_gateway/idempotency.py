"""Idempotency keys: what makes two requests one."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

from aiohttp import web

from api_gateway.errors import InvalidRequestError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


def key_of(request: web.Request) -> str:
    """The request's Idempotency-Key, or a new one if it has none.

    Raises:
        InvalidRequestError: It has several, or one that breaks the rule.
    """
    match request.headers.getall("Idempotency-Key", []):
        case []:
            return _new_key()
        case [key]:
            return check_key(key)
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
        "Una Idempotency-Key debe tener de 1 a 128 caracteres ASCII visibles."
    )


def _new_key() -> str:
    """48 bits of time in milliseconds, then 80 random bits, in hex: as a UUIDv7, RFC 9562.

    Ids that grow with time keep the record store's index of request ids small to touch.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
