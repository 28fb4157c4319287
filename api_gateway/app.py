"""Puts the gateway together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from api_gateway.cluster.forwarding import Writes
from api_gateway.cluster.leader import LeaderClient
from api_gateway.cluster.watch import ClusterWatch
from api_gateway.metrics import Metrics
from api_gateway.reading.changes import Changes
from api_gateway.reading.queries import Queries
from api_gateway.reading.reads import Reads
from api_gateway.records.collection_writes import CollectionWrites
from api_gateway.records.definitions import Definitions
from api_gateway.records.record_writes import RecordWrites
from api_gateway.routes.bulk import BulkRoutes
from api_gateway.routes.changes import ChangeRoutes
from api_gateway.routes.collections import CollectionRoutes
from api_gateway.routes.forms import FormRoutes
from api_gateway.routes.operations import OperationRoutes
from api_gateway.routes.queries import QueryRoutes
from api_gateway.routes.receipts import ReceiptRoutes
from api_gateway.routes.records import Aspect, RecordRoutes
from api_gateway.routes.requests import RequestRoutes
from api_gateway.web.docs_page import DocumentationRoutes
from api_gateway.web.express import Express, ExpressRoute
from api_gateway.web.headers import completing
from api_gateway.web.limits import DEFAULT_LIMITS, Admission, Limits
from api_gateway.web.middleware import Around
from api_gateway.web.server import JsonErrorRunner
from replicad.coordination.port import View
from replicad.httpd import connection
from replicad.httpd.runner import Usual

# Together with the server's own time to close this stays below the 3 s a stopping gateway has.
_STOP_GRACE_S: Final = 1.0
_CLOSE_S: Final = 0.5
# How long what is left of a refused body is read, so that its sender gets to see the answer.
_LINGER_S: Final = 1.0
# An id that is far too long is answered as an invalid id, not as malformed HTTP.
_LINE_BYTES_MAX: Final = 64 * 1024
# A longer body is parsed beside the event loop: then the way to there does not matter. An idle
# connection, or one on which a request's head does not arrive whole, ends after a time that is
# longer than proxies keep theirs, so that those close first.
_USUAL: Final = connection.Limits(body_bytes=64 * 1024, keepalive_s=75.0)


class Views(Protocol):
    """The part of a Coordinator that a gateway uses: it follows, and never takes part."""

    async def start(self, on_view: Callable[[View], None]) -> None:
        """Deliver a View at once and after each change. May take as long as it needs."""

    async def stop(self) -> None:
        """Deliver no more; also when `start` was cancelled."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a client may wait, and be waited for.

    Attributes:
        request_s: From a whole request to its answer, across all attempts at leaders.
        body_s: For a request's body to arrive.
    """

    request_s: float = 10.0
    body_s: float = 10.0


async def serve_gateway(
    coordinator: Views,
    *,
    host: str,
    port: int,
    deadlines: Deadlines = Deadlines(),
    limits: Limits = DEFAULT_LIMITS,
    cors_origins: frozenset[str] = frozenset(),
) -> web.AppRunner:
    """Start a gateway on the running loop, whether or not the coordinator answers yet.

    Args:
        coordinator: A Coordinator, not started yet; the gateway starts it, and stops it at the end.
        host: Address to listen at.
        port: 0 for any free one: see the runner's `addresses`.
        deadlines: Of requests.
        limits: What clients may ask.
        cors_origins: Whose pages may use this gateway from a browser; `*` is all of them.

    Returns:
        The runner. Its `cleanup()` ends the gateway within 3 seconds.

    Raises:
        OSError: The address cannot be listened at.
    """
    app, express = create_app(coordinator, deadlines, limits, cors_origins)
    runner = JsonErrorRunner(
        app,
        Usual(express.serve, _USUAL),
        access_log=None,
        shutdown_timeout=_CLOSE_S,
        lingering_time=_LINGER_S,
        max_line_size=_LINE_BYTES_MAX,
        auto_decompress=False,  # bodies.py does it, and checks that the end is there.
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def create_app(
    views: Views, deadlines: Deadlines, limits: Limits, cors_origins: frozenset[str]
) -> tuple[web.Application, Express]:
    """The gateway as an aiohttp application, and what is in front; needs a running loop."""
    watch, metrics, client = ClusterWatch(), Metrics(), LeaderClient()
    writes = Writes(client, watch, metrics)
    reads = Reads(client, watch, metrics, deadline_s=deadlines.request_s)
    admission = Admission(limits)
    app = web.Application(middlewares=[Around(metrics, admission, cors_origins).middleware()])
    routes, usual = _routes(client, watch, metrics, writes, reads, deadlines)
    app.add_routes(routes)

    async def run(app: web.Application) -> AsyncIterator[None]:
        following = asyncio.create_task(views.start(watch.on_view))
        writes.coalescer.start()
        reads.coalescer.start()
        yield
        following.cancel()
        await asyncio.wait({following})
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await views.stop()
        await client.close()

    async def drain(app: web.Application) -> None:
        await asyncio.gather(
            writes.coalescer.stop(_STOP_GRACE_S), reads.coalescer.stop(_STOP_GRACE_S)
        )

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(drain)
    app.on_response_prepare.append(completing(cors_origins))
    # What an answer says to pages of other origins is left to the application.
    return app, Express(metrics, admission, () if cors_origins else usual)


def _routes(
    client: LeaderClient,
    watch: ClusterWatch,
    metrics: Metrics,
    writes: Writes,
    reads: Reads,
    deadlines: Deadlines,
) -> tuple[list[web.RouteDef], list[ExpressRoute]]:
    """Everything that is served, and what of it is served in front of the application, too."""
    definitions = Definitions(reads)
    records = RecordWrites(writes, reads, definitions, deadline_s=deadlines.request_s)
    collections = CollectionWrites(writes, reads, definitions, deadline_s=deadlines.request_s)
    changes = Changes(client, watch, metrics, reads, definitions, deadline_s=deadlines.request_s)
    finding = QueryRoutes(Queries(client, reads), definitions)
    aspects: dict[str, Aspect] = {
        "verify": ReceiptRoutes(client, watch, changes).verify,
        "at_index": finding.at_index,
        "at_time": finding.at_time,
    }
    each_record = RecordRoutes(records, reads, definitions, deadlines.body_s, aspects)
    forms = FormRoutes(records, reads, deadlines.body_s)
    routes = [
        *CollectionRoutes(collections, reads, deadlines.body_s).routes(),
        *finding.routes(),
        *each_record.routes(),
        *forms.routes(),
        *RequestRoutes(reads).routes(),
        *ChangeRoutes(changes).routes(),
        *BulkRoutes(writes, reads, definitions).routes(),
        *OperationRoutes(client, watch, metrics).routes(),
        *DocumentationRoutes().routes(),
    ]
    return routes, [*forms.express_routes(), *each_record.express_routes()]
