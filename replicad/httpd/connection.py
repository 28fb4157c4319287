"""A connection that serves usual requests itself, and is aiohttp's from the first other one on.

aiohttp's server does far more for a request than most requests need: that takes longer than all
that a gateway does for a local read. It is used through its public
interface only: a connection that is handed over begins anew there, with the bytes of the request
that was not usual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, cast

from replicad.httpd.messages import Answer, Incomplete, Request, parse

# For the rest of a request whose beginning is usual. aiohttp, which waits longer, goes on then.
_PATIENCE_S: Final = 1.0

Serve = Callable[[Request], Coroutine[Any, Any, Answer] | None]
"""Takes a request and makes its answer; None if it is not usual."""


class Limits(NamedTuple):
    """Of what a connection serves itself.

    Attributes:
        body_bytes: Of a request's body.
        keepalive_s: How long it stays open without a request.
    """

    body_bytes: int
    keepalive_s: float


class Connection(asyncio.Protocol):
    """One connection; serves one request at a time."""

    def __init__(
        self,
        serve: Serve,
        hand_over_to: Callable[[], asyncio.Protocol],
        open_ones: set[Connection],
        limits: Limits,
    ) -> None:
        """Begin without a transport.

        Args:
            serve: Answers what is usual.
            hand_over_to: Makes the protocol that takes over.
            open_ones: Holds this connection while it is open, and is not handed over.
            limits: Of what it serves itself.
        """
        self._serve = serve
        self._hand_over_to = hand_over_to
        self._open_ones = open_ones
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._rest: list[bytes] = []
        self._missing = 0
        self._answering: asyncio.Task[None] | None = None
        self._choked = False
        self._ends = False
        self._transport: asyncio.Transport
        self._idle_since: float
        self._idle_timer: asyncio.TimerHandle
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._open_ones.add(self)
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(self._limits.keepalive_s, self._look_whether_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone. What it asked for goes on: it may have effects."""
        self._forget()

    def data_received(self, data: bytes) -> None:
        """Serve a request, or keep what there is of one."""
        if self._missing > 0:
            self._rest.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._rest)
            self._rest.clear()
        self._received = self._received + data if self._received else data
        if self._answering is not None or self._choked:
            self._transport.pause_reading()  # A client that asks ahead waits for its turn.
        else:
            self._look_at_received()

    def pause_writing(self) -> None:
        """The client does not read what it asked for: let it ask no more."""
        self._choked = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._choked = False
        self._go_on()

    def _look_at_received(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        request = parse(self._received, self._limits.body_bytes)
        if isinstance(request, Incomplete):
            self._missing = request.missing
            self._patience = self._loop.call_later(_PATIENCE_S, self._hand_over)
            return
        answer = None if request is None else self._serve(request)
        if answer is None:
            self._hand_over()
            return
        self._received = b""
        self._answering = self._loop.create_task(self._send(answer))

    async def _send(self, answer: Coroutine[Any, Any, Answer]) -> None:
        try:
            encoded = (await answer).encode()
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        except Exception as failure:  # A defect.
            self._transport.abort()
            told = {"message": "no answer could be made", "exception": failure, "protocol": self}
            self._loop.call_exception_handler(told)
            return
        finally:
            self._answering = None
        if self._transport.is_closing():
            return
        self._transport.write(encoded)
        self._idle_since = self._loop.time()
        if self._ends:
            self._transport.close()
        elif self._received:
            self._go_on()

    def _go_on(self) -> None:
        """Take up what came meanwhile, unless there is still a reason to wait."""
        if self._answering is not None or self._choked or self._transport.is_closing():
            return
        self._transport.resume_reading()
        if self._received:
            self._look_at_received()

    def _hand_over(self) -> None:
        self._forget()
        protocol = self._hand_over_to()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(b"".join((self._received, *self._rest)))

    def _look_whether_idle(self) -> None:
        idle_s = self._loop.time() - self._idle_since
        if self._answering is not None:
            idle_s = 0.0
        if idle_s >= self._limits.keepalive_s:
            self._transport.abort()  # Nothing is left to be sent, or nobody takes it.
            return
        self._idle_timer = self._loop.call_later(
            self._limits.keepalive_s - idle_s, self._look_whether_idle
        )

    def _forget(self) -> None:
        self._open_ones.discard(self)
        self._idle_timer.cancel()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def close(self) -> None:
        """End as soon as what was asked is answered."""
        self._ends = True
        if self._answering is None:
            self._transport.close()

    async def wait_closed(self, timeout_s: float) -> None:
        """Answer what was asked, if that takes no longer than `timeout_s`, and end."""
        self.close()
        if self._answering is not None:
            await asyncio.wait({self._answering}, timeout=timeout_s)
        if self._answering is not None:
            self._answering.cancel()
        if self._answering is not None or self._choked:
            self._transport.abort()
