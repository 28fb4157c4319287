"""The daemon's HTTP interface, for gateways and for operators.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from replicad.core.effects import (
    AnswerWrites,
    Committed,
    Refusal,
    Rejected,
    Unresolved,
    WriteResult,
)
from replicad.core.entry import decode_write, split_lines
from replicad.errors import MalformedEntryError, RecordsDamagedError
from replicad.node.driver import Driver

_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_PAGE: Final = 500
_NDJSON: Final = "application/x-ndjson"
_EPOCH: Final = "X-Replicad-Epoch"

Json = dict[str, object]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Protocol):
    """What the HTTP interface shows: a node, whose driver exists once it knows its cluster."""

    @property
    def driver(self) -> Driver | None:
        """The running driver, or None."""

    def describe(self) -> Json:
        """The body of /internal/status."""


class NodeHttp:
    """Handlers for one node."""

    def __init__(self, node: Served) -> None:
        """Serve `node`."""
        self._node = node

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_get("/internal/status", self._status)
        app.router.add_post("/internal/writes", self._led(self._writes))
        app.router.add_post("/internal/gets", self._led(self._gets))
        app.router.add_get("/internal/records", self._led(self._records))
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        return app

    def _led(
        self, handler: Callable[[web.Request, Driver, int], Awaitable[web.StreamResponse]]
    ) -> Handler:
        """Let only requests through that are meant for this leader in this epoch (rule 10)."""

        async def checked(request: web.Request) -> web.StreamResponse:
            driver = self._node.driver
            try:
                epoch = int(request.headers.get(_EPOCH, ""))
            except ValueError:
                return _problem(400, f"header {_EPOCH} must be an integer")
            if driver is None or not driver.leads_in(epoch):
                return _not_leader(driver)
            try:
                return await handler(request, driver, epoch)
            except asyncio.CancelledError:
                if driver.stopped:  # Writes may have been appended: 421 would deny that.
                    return _problem(503, "the replica stops; the outcome is unknown")
                raise

        return checked

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(self._node.describe())

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        driver = self._node.driver
        body = generate_latest(driver.metrics.registry) if driver else b""
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _writes(self, request: web.Request, driver: Driver, epoch: int) -> web.Response:
        body = await request.read()
        if body and not body.endswith(b"\n"):
            return _problem(400, "each write ends with a newline")
        try:
            writes = tuple(decode_write(line) for line in split_lines(body))
        except MalformedEntryError as error:
            return _problem(400, str(error))
        if not writes:
            return _problem(400, "no writes")
        answer = await driver.write(epoch, writes)
        lines = [orjson.dumps(_result(r, answer)) for r in answer.results]
        return web.Response(body=b"\n".join(lines) + b"\n", content_type=_NDJSON)

    async def _gets(self, request: web.Request, driver: Driver, epoch: int) -> web.Response:
        try:
            wanted = orjson.loads(await request.read())
            collection, keys = wanted["collection"], wanted["keys"]
            if not isinstance(keys, list) or not all(
                isinstance(k, str) for k in (collection, *keys)
            ):
                raise TypeError("a collection and a list of keys are strings")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            return _problem(400, f"not a look-up: {error}")
        if not await driver.read(epoch):
            return _not_leader(driver)
        try:
            values = driver.store.records.get(collection, keys)
        except RecordsDamagedError:
            driver.rebuild_records()
            values = driver.store.records.get(collection, keys)
        lines = [b"null" if value is None else value for value in values]
        return web.Response(body=b"".join(line + b"\n" for line in lines), content_type=_NDJSON)

    async def _records(
        self, request: web.Request, driver: Driver, epoch: int
    ) -> web.StreamResponse:
        """All records of a collection as of one index, as a JSON array, a page at a time."""
        collection = request.query.get("collection", "")
        genero = request.query.get("genero")
        if not await driver.read(epoch):
            return _not_leader(driver)
        upto = driver.store.records.applied.index
        response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
        await response.prepare(request)
        after, opening = 0, b"["
        while True:
            if driver.stopped:
                # An incomplete answer must not look complete.
                raise ConnectionAbortedError("the replica stops")
            try:
                page = driver.store.records.scan(
                    collection, after=after, upto=upto, limit=_PAGE, genero=genero
                )
            except RecordsDamagedError as error:
                driver.rebuild_records()
                raise ConnectionAbortedError("the record store was damaged") from error
            if not page:
                break
            try:
                await response.write(opening + b",".join(value for _, value in page))
            except ConnectionResetError:
                return response  # The reader has gone.
            after, opening = page[-1][0], b","
        await response.write(b"]" if opening == b"," else b"[]")
        await response.write_eof()
        return response


def _result(result: WriteResult, answer: AnswerWrites) -> Json:
    match result:
        case Committed():
            return {
                "status": "committed",
                "index": result.index,
                "epoch": result.epoch,
                "digest": result.digest.hex(),
                "acks": answer.acks,
                "timing": answer.timing,
            }
        case Rejected() | Unresolved():
            return {"status": result.value}
        case Refusal():
            return {"status": "refused", "reason": result.value}


def _not_leader(driver: Driver | None) -> web.Response:
    epoch = driver.epoch if driver else 0
    return _json({"error": "not-leader", "epoch": epoch}, status=421)


def _problem(status: int, message: str) -> web.Response:
    return _json({"error": message}, status=status)


def _json(body: Json, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
