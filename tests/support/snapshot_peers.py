"""Replicas that give their snapshots over HTTP, well or badly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from replicad.node.snapshots import Snapshots

# Answers a request in the peer's place; None: let the peer answer.
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Peer:
    """One peer that serves the snapshots of a data directory.

    Attributes:
        url: Where it is.
        spans: The byte ranges that it was asked for, first and last byte.
        manifests: How often it was asked for its manifest.
        fault: What goes wrong.
    """

    def __init__(self, data_dir: Path) -> None:
        self.snapshots = Snapshots(data_dir)
        self.url = ""
        self.spans: list[tuple[int, int]] = []
        self.manifests = 0
        self.fault: Fault | None = None

    @property
    def sent(self) -> int:
        """How many bytes of snapshots it was asked for."""
        return sum(last + 1 - first for first, last in self.spans)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._meddle])
        app.add_routes(self.snapshots.routes())
        return app

    @web.middleware
    async def _meddle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if asked := request.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            self.spans.append((int(first), int(last)))
        else:
            self.manifests += 1
        answer = await self.fault(request) if self.fault else None
        return await handler(request) if answer is None else answer


@asynccontextmanager
async def serving(*peers: Peer) -> AsyncIterator[list[str]]:
    """Let the peers listen; gives their URLs."""
    servers = [TestServer(peer.application()) for peer in peers]
    try:
        for peer, server in zip(peers, servers, strict=True):
            await server.start_server()
            peer.url = str(server.make_url("")).rstrip("/")
        yield [peer.url for peer in peers]
    finally:
        for server in servers:
            await server.close()
