"""The daemon's HTTP interface, for gateways and for operators.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from replicad.core.effects import (
    Committed,
    Refusal,
    Rejected,
    Unresolved,
    WriteResult,
)
from replicad.core.entry import split_lines
from replicad.core.write import decode_write
from replicad.errors import MalformedEntryError
from replicad.httpd.connection import Limits
from replicad.httpd.messages import Answer, Request
from replicad.httpd.runner import Usual
from replicad.node.gates import Json, Served, bad_request, led, outcome_of, refusal
from replicad.node.history import describe_history
from replicad.node.http_changes import HttpChanges
from replicad.node.http_checks import HttpChecks
from replicad.node.http_export import HttpExport
from replicad.node.http_queries import HttpQueries
from replicad.node.http_reads import HttpReads
from replicad.node.log_stream import LogStream
from replicad.node.usual import JSON, Handler, answered, routed

_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
# Longer than any gateway keeps an idle connection: a request never meets the end of one.
_LIMITS: Final = Limits(_BODY_BYTES_MAX, keepalive_s=3600.0)


class NodeHttp:
    """Handlers for one node."""

    def __init__(self, node: Served, name: str, data_dir: Path) -> None:
        """Serve `node`, whose name is `name` and whose data are in `data_dir`."""
        self._node = node
        self._name = name
        self._data_dir = data_dir
        self._reads = HttpReads(node, name)
        self._usual: dict[str, Handler] = {
            "/internal/writes": self._writes,
            "/internal/gets": self._reads.gets,
        }

    def usual(self) -> Usual:
        """What most requests are for."""

        def serve(request: Request) -> Coroutine[Any, Any, Answer] | None:
            handler = self._usual.get(request.target) if request.method == "POST" else None
            return None if handler is None else answered(handler, request)

        return Usual(serve, _LIMITS)

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_get("/internal/status", self._status)
        app.router.add_get("/internal/history", self._history)
        for path, handler in self._usual.items():
            app.router.add_post(path, routed(handler))
        app.router.add_post("/internal/transfer", self._transfer)
        self._reads.add_to(app.router)
        HttpQueries(self._node, self._name).add_to(app.router)
        HttpExport(self._node, self._name).add_to(app.router)
        HttpChanges(self._node, self._name).add_to(app.router)
        HttpChecks(self._node).add_to(app.router)
        LogStream(self._node).add_to(app.router)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        return app

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(self._node.describe())

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        driver = self._node.driver
        body = generate_latest(driver.metrics.registry) if driver else b""
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _transfer(self, request: web.Request) -> web.Response:
        driver, _ = led(self._node, request)
        try:
            to = orjson.loads(await request.read())["to"]
            if to is not None and not isinstance(to, str):
                raise TypeError("a replica's name is a string")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise bad_request(f"not a transfer: {error}") from error
        answer = await outcome_of(driver, driver.transfer(to))
        if answer.leader is None:
            raise refusal(web.HTTPConflict, {"error": answer.reason})
        return _json({"leader": answer.leader, "epoch": driver.epoch})

    async def _history(self, _request: web.Request) -> web.Response:
        driver = self._node.driver
        history = await describe_history(driver, self._data_dir)
        return _json({"name": self._name, **history})

    async def _writes(self, request: Request) -> Answer:
        driver, epoch = led(self._node, request)
        body = request.body
        if body and not body.endswith(b"\n"):
            raise bad_request("each write ends with a newline")
        try:
            writes = tuple([decode_write(line) for line in split_lines(body)])
        except MalformedEntryError as error:
            raise bad_request(str(error)) from error
        if not writes:
            raise bad_request("no writes")
        answer = await outcome_of(driver, driver.write(epoch, writes))
        outcomes = [_outcome(result) for result in answer.results]
        told = {"acks": answer.acks, "timing": answer.timing, "outcomes": outcomes}
        return Answer(200, JSON, orjson.dumps(told))


def _outcome(result: WriteResult) -> Json:
    match result:
        case Committed():
            return {
                "status": "committed",
                "index": result.index,
                "epoch": result.epoch or None,
                "digest": result.digest.hex() or None,
                "done": result.done,
                "again": result.again,
            }
        case Rejected():
            return {
                "status": "rejected",
                "reason": result.reason.value,
                "position": result.position,
                "version": result.version,
            }
        case Unresolved():
            return {"status": result.value}
        case Refusal():
            return {"status": "refused", "reason": result.value}


def _json(body: Json) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
