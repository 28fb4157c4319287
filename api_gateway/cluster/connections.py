"""Connections to replicas for requests that fit into memory, and whose answers do.

HTTP as the daemons speak it among themselves, and no more: an answer says its Content-Length.
aiohttp's client, which does for all the rest, takes ten times as long for such a request.

Source: RFC 9112; docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from api_gateway.errors import NoAnswerError, NothingDoneError
from replicad.httpd.messages import lines

_CONNECT_S: Final = 1.0
# For each replica: more are in use only while many clients ask for what cannot travel together.
_IDLE_MAX: Final = 16
_HEAD_BYTES_MAX: Final = 16 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"
Kind = tuple[str, str]
"""Of requests: to which URL and path. They have connections of their own: a replica serves on one
either what is usual there, or the rest."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a replica answered.

    Attributes:
        status: Of HTTP.
        headers: By their names in lower case.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Keeps connections open, each for one request at a time."""

    def __init__(self) -> None:
        """Have none yet."""
        self._idle: dict[Kind, list[_Connection]] = {}
        self._all: set[_Connection] = set()

    async def post(self, url: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Send a request and wait for its answer, for as long as the caller likes.

        Raises:
            NothingDoneError: There was no connection.
            NoAnswerError: It broke, or what came is no answer. The replica may have acted.
        """
        idle = self._idle.setdefault((url, path), [])
        try:
            connection = _usable(idle) or await self._connect(url, path)
        except (OSError, ValueError) as error:  # TimeoutError and UnicodeError are such.
            raise NothingDoneError(f"no connection to {url}") from error
        try:
            reply = await connection.ask(headers, body)
        except BaseException:
            connection.close()  # Also when the caller gave up: the answer could come later.
            raise
        if reply.headers.get("connection", "").lower() == "close" or len(idle) >= _IDLE_MAX:
            connection.close()
        else:
            idle.append(connection)
        return reply

    async def _connect(self, url: str, path: str) -> _Connection:
        parts = urlsplit(url)
        start = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        async with asyncio.timeout(_CONNECT_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(start, self._all), parts.hostname or "", parts.port or 80
            )
        return connection

    def close(self) -> None:
        """Close all of them."""
        for connection in list(self._all):
            connection.close()


def _usable(idle: list[_Connection]) -> _Connection | None:
    while idle:
        connection = idle.pop()  # The one that was used last is the likeliest to be open.
        if not connection.closed:
            return connection
    return None


class _Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        closed: Whether it can be used no more.
    """

    def __init__(self, start: str, living: set[_Connection]) -> None:
        self.closed = False
        self._start = start  # Of every request.
        self._living = living
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Reply] | None = None
        self._received = bytearray()
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._length: int | None = None  # Of the body; None until all of the head is there.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._living.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._living.discard(self)
        self._fail("the connection broke")

    def close(self) -> None:
        """End the connection, whatever is under way."""
        self.closed = True
        self._transport.abort()

    def ask(self, headers: Mapping[str, str], body: bytes) -> asyncio.Future[Reply]:
        """Send a request; the answer to it, or a NoAnswerError. Only one at a time.

        Raises:
            NoAnswerError: The connection has broken already.
        """
        if self.closed:
            raise NoAnswerError("the connection broke")
        self._answer = asyncio.get_running_loop().create_future()
        head = f"{self._start}{lines(headers)}Content-Length: {len(body)}\r\n\r\n"
        self._transport.writelines((head.encode(), body))
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self._fail("more came than was asked for")
            return
        self._received += data
        try:
            if self._length is None:
                self._take_head()
        except ValueError:
            self._fail("what came is not HTTP")
            return
        if self._length is None or len(self._received) < self._length:
            return
        if len(self._received) > self._length:
            self._fail("more came than was asked for")
            return
        self._answer.set_result(Reply(self._status, self._headers, bytes(self._received)))
        self._answer = self._length = None
        self._received.clear()

    def _take_head(self) -> None:
        """Remove the head from what was received, if it is all there.

        Raises:
            ValueError: It is none, or says no length.
        """
        end = self._received.find(_END_OF_HEAD)
        if end < 0:
            if len(self._received) > _HEAD_BYTES_MAX:
                raise ValueError("no end of the head")
            return
        first, *fields = self._received[:end].decode("latin-1").split("\r\n")
        headers = {}
        for field in fields:
            name, colon, value = field.partition(":")
            if not colon:
                raise ValueError("a header without a name")
            headers[name.lower()] = value.strip()
        if not first.startswith("HTTP/1.1 ") or "content-length" not in headers:
            raise ValueError("no length")
        self._status, self._headers = int(first[9:12]), headers
        self._length = int(headers["content-length"])
        del self._received[: end + len(_END_OF_HEAD)]

    def _fail(self, reason: str) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswerError(reason))
