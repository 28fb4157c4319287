"""Small requests that have arrived whole, and answers that are there as a whole. Pure.

Only what is usual is understood here, and by a grammar that is stricter than HTTP's: one way to
write each thing, every header once, nothing about how the body is coded, nor about the connection
but that it stays. What is not understood is left to aiohttp's parser as it came, so that nothing
has two meanings.

Source: RFC 9112, 2 to 6; RFC 9110, 5 and 6.6.1 (Date).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Final, NamedTuple

from multidict import CIMultiDict, CIMultiDictProxy

_HEAD_BYTES_MAX: Final = 8 * 1024
_HEADERS_MAX: Final = 64
_HEAD: Final = re.compile(
    rb"([A-Z]{3,7}) (/[!-~]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)+)"
    rb"\r\n"
)
_LENGTH: Final = re.compile(r"[0-9]{1,8}")
# They change what the bytes after the head mean, or what becomes of the connection.
_UNUSUAL: Final = frozenset(
    (
        "transfer-encoding",
        "content-encoding",
        "expect",
        "upgrade",
        "te",
        "trailer",
        "http2-settings",
    )
)
_NOT_MODIFIED: Final = 304
"""Says nothing of a length: it would be that of the body which it does not have."""
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Request(NamedTuple):
    """A request.

    Attributes:
        method: Of HTTP.
        target: As it was sent: a path, and maybe a query.
        headers: Each of them once, unless aiohttp has read the request.
        body: All of it, as it was sent.
    """

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes


class Incomplete(NamedTuple):
    """A usual request that lacks so many bytes at its end."""

    missing: int


def parse(data: bytes, body_bytes_max: int) -> Request | Incomplete | None:
    """The request that these bytes are, with nothing after it; None for anything unusual."""
    head = _HEAD.match(data, 0, _HEAD_BYTES_MAX)
    if head is None:
        return None
    method, target, block = head.groups()
    usual = _usual_headers(block)
    if usual is None:
        return None
    headers, length = usual
    if length > body_bytes_max:
        return None
    missing = head.end() + length - len(data)
    if missing:
        return Incomplete(missing) if missing > 0 else None
    return Request(method.decode(), target.decode(), headers, data[head.end() :])


# Clients send the same headers again and again. Few: the longest take some 24 KB each.
@lru_cache(maxsize=256)
def _usual_headers(block: bytes) -> tuple[CIMultiDictProxy[str], int] | None:
    """Headers, and how long they say that the body is; None if there is anything unusual."""
    fields = block.decode("ascii").split("\r\n")
    if len(fields) > _HEADERS_MAX:
        return None
    headers: dict[str, str] = {}
    for field in fields[:-1]:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if len(headers) != len(fields) - 1 or not _UNUSUAL.isdisjoint(headers) or "host" not in headers:
        return None
    if headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    length = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        return None
    return CIMultiDictProxy(CIMultiDict(headers)), int(length)


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: Of HTTP.
        headers: Of visible ASCII characters and spaces, which is not checked again. Date and
            Content-Length are added.
        body: All of it.
        more: Further headers as `lines` makes them, for those that many answers share.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    more: str = ""

    def encode(self) -> bytes:
        """The answer as it goes over the wire."""
        length = "" if self.status == _NOT_MODIFIED else f"Content-Length: {len(self.body)}\r\n"
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}\r\n"
            f"{self.more}{lines(self.headers)}{_date.line()}{length}\r\n"
        )
        return head.encode("ascii") + self.body


def lines(headers: Mapping[str, str]) -> str:
    """Headers as they go over the wire."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


class _Date:
    """The header Date, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = ""

    def line(self) -> str:
        second = int(time())
        if second != self._second:
            self._second = second
            self._line = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._line


_date: Final = _Date()
