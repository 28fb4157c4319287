"""Answers that are there as a whole, and go out as they are.

aiohttp's Response collects headers one by one, lets hooks change them and checks what it may then
add. That takes longer than all else that a gateway does for a small read. The answers that most
requests get always look alike, so that one join of bytes does.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from time import time
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.hdrs import ACCEPT_ENCODING, METH_HEAD

from api_gateway.web.compression import BODY_BYTES_MIN
from api_gateway.web.headers import safe_headers

JSON_CONTENT: Final = {"Content-Type": "application/json; charset=utf-8"}


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


_COMMON: Final = {
    has_etag: _lines({**JSON_CONTENT, **safe_headers(has_etag=has_etag), "Vary": ACCEPT_ENCODING})
    for has_etag in (False, True)
}


class Ready(web.StreamResponse):
    """A JSON answer whose body and headers are there already."""

    def __init__(self, body: bytes, *, status: int = 200, headers: Mapping[str, str]) -> None:
        """Take what the answer has besides the headers of all answers.

        Args:
            body: JSON.
            status: Of HTTP.
            headers: Named as RFC 9110 writes them; of visible ASCII characters and spaces, which
                is not checked again.
        """
        super().__init__(status=status)
        self._ready_body = body
        self._ready_headers = headers

    def suits(self, request: web.Request) -> bool:
        """Whether it may go out as it is: a usual request, and nothing to compress."""
        return (
            request.version == HttpVersion11
            and request.keep_alive
            and request.method != METH_HEAD
            and (len(self._ready_body) < BODY_BYTES_MIN or ACCEPT_ENCODING not in request.headers)
        )

    def as_response(self) -> web.Response:
        """The same for aiohttp to complete and to send."""
        headers = {**JSON_CONTENT, **self._ready_headers}
        return web.Response(body=self._ready_body, status=self.status, headers=headers)

    @property
    def keep_alive(self) -> bool:
        """Another request may follow."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send all of it.

        Raises:
            ConnectionResetError: The client went away.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        body, headers = self._ready_body, self._ready_headers
        head = (
            f"HTTP/1.1 {self.status} {self.reason}\r\n{_COMMON['ETag' in headers]}{_lines(headers)}"
            f"{_date.line()}Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode("ascii") + body)
        await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


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
