"""aiohttp's runner, with connections that serve usual requests themselves."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from aiohttp import web

from replicad.httpd.connection import Connection, Limits, Serve


class Usual(NamedTuple):
    """What aiohttp is spared.

    Attributes:
        serve: Answers requests.
        limits: Of what it answers. Connections are kept alive equally long by aiohttp.
    """

    serve: Serve
    limits: Limits


class Server(web.Server):
    """aiohttp's server, behind such connections."""

    def __init__(self, usual: Usual, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Answer `usual` requests so; the rest are aiohttp's own arguments."""
        super().__init__(*args, keepalive_timeout=usual.limits.keepalive_s, **kwargs)
        self._usual = usual
        self._open: set[Connection] = set()

    def handler(self) -> web.RequestHandler:
        """A protocol for a connection that is handed over."""
        return super().__call__()

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # All that a site needs.
        """A protocol for a new connection."""
        return Connection(self._usual.serve, self.handler, self._open, self._usual.limits)

    def pre_shutdown(self) -> None:
        """Take no more requests."""
        for connection in tuple(self._open):
            connection.close()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """End all connections; requests that are being answered have `timeout` seconds."""
        waiting = [connection.wait_closed(timeout or 0) for connection in self._open]
        await asyncio.gather(super().shutdown(timeout), *waiting)


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
