"""aiohttp's runner, with connections that serve usual requests themselves."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from aiohttp import web

from replicad.httpd.connection import Connection, Limits, Serve

KEEPALIVE_S: Final = 75.0
"""An idle connection, or one on which a request's head does not arrive whole, ends after that. It
is longer than proxies keep theirs, so that those close first."""


class Usual(NamedTuple):
    """What aiohttp is spared.

    Attributes:
        serve: Answers requests.
        body_bytes_max: Longer ones are aiohttp's.
    """

    serve: Serve
    body_bytes_max: int


class Server(web.Server):
    """aiohttp's server, behind such connections."""

    def __init__(self, usual: Usual, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Answer `usual` requests so; the rest are aiohttp's own arguments."""
        super().__init__(*args, keepalive_timeout=KEEPALIVE_S, **kwargs)
        self._usual = usual
        self._open: set[Connection] = set()

    def handler(self) -> web.RequestHandler:
        """A protocol for a connection that is handed over."""
        return super().__call__()

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # All that a site needs.
        """A protocol for a new connection."""
        limits = Limits(self._usual.body_bytes_max, KEEPALIVE_S)
        return Connection(self._usual.serve, self.handler, self._open, limits)

    def pre_shutdown(self) -> None:
        """Take no more requests."""
        for connection in tuple(self._open):
            connection.close()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """End all connections; requests that are being answered have `timeout` seconds."""
        waiting = [connection.wait_closed(timeout or 0) for connection in self._open]
        await asyncio.gather(*waiting)
        await super().shutdown(timeout)


class Runner(web.AppRunner):
    """An AppRunner whose server is such a one."""

    def __init__(self, app: web.Application, usual: Usual, **kwargs: Any) -> None:  # noqa: ANN401
        """Answer `usual` requests so; the rest are AppRunner's own arguments."""
        super().__init__(app, **kwargs)
        self.usual = usual

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return Server(
            self.usual,
            server.request_handler,
            request_factory=server.request_factory,
            **self._kwargs,
        )
