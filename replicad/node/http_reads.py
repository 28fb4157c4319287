"""What a replica reads out of its records and its log for gateways.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

from math import ceil
from typing import Final

import orjson
from aiohttp import web

from replicad.errors import RecordsDamagedError
from replicad.node.driver import Driver
from replicad.node.gates import Json, Served, admit, bad_request
from replicad.node.history import entry_at
from replicad.storage.records import Written

_PAGE: Final = 500


class HttpReads:
    """Handlers of one node's reads."""

    def __init__(self, node: Served, name: str) -> None:
        """Serve `node`, whose name is `name`."""
        self._node = node
        self._name = name

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_post("/internal/gets", self._gets)
        router.add_get("/internal/records", self._records)
        router.add_post("/internal/requests", self._requests)

    async def _gets(self, request: web.Request) -> web.Response:
        """The values under some keys, a line each."""
        try:
            wanted = orjson.loads(await request.read())
            collection, keys = wanted["collection"], wanted["keys"]
            if not isinstance(keys, list) or not all(
                isinstance(k, str) for k in (collection, *keys)
            ):
                raise TypeError("a collection and a list of keys are strings")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise bad_request(f"not a look-up: {error}") from error
        driver = await admit(self._node, request)
        try:
            values = driver.store.records.get(collection, keys)
        except RecordsDamagedError:
            driver.rebuild_records()
            values = driver.store.records.get(collection, keys)
        return web.Response(
            body=b"".join(b"null\n" if v is None else v + b"\n" for v in values),
            content_type="application/x-ndjson",
            headers=self._as_of(driver, driver.store.records.applied.index),
        )

    async def _records(self, request: web.Request) -> web.StreamResponse:
        """All records of a collection as of one index, as a JSON array, a page at a time."""
        collection, genero = request.query.get("collection", ""), request.query.get("genero")
        try:
            upto = int(request.query["upto"]) if "upto" in request.query else None
        except ValueError:
            raise bad_request("upto must be an integer") from None
        driver = await admit(self._node, request)
        applied = driver.store.records.applied.index
        upto = applied if upto is None else min(upto, applied)
        headers = {"Content-Type": "application/json; charset=utf-8", **self._as_of(driver, upto)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        after, opening = 0, b"["
        while True:
            if driver.stopped or driver.store.records.applied.index < upto:
                # An incomplete answer must not look complete.
                raise ConnectionAbortedError("the replica stops, or makes its records anew")
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

    async def _requests(self, request: web.Request) -> web.Response:
        """What became of the write with this request id: a strong read, or an earlier state."""
        try:
            wanted = orjson.loads(await request.read())["request"]
            if not isinstance(wanted, str):
                raise TypeError("a request id is a string")
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise bad_request(f"not a look-up: {error}") from error
        driver = await admit(self._node, request)
        try:
            written = driver.store.records.written_by(wanted)
        except RecordsDamagedError:
            driver.rebuild_records()
            written = driver.store.records.written_by(wanted)
        outcome: Json = {"state": "unknown"} if written is None else _describe(driver, written)
        return web.Response(
            body=orjson.dumps(outcome),
            content_type="application/json",
            headers=self._as_of(driver, driver.store.records.applied.index),
        )

    def _as_of(self, driver: Driver, index: int) -> dict[str, str]:
        """Headers that say what an answer reflects, and how far behind that may be."""
        headers = {"X-Replicad-Index": str(index), "X-Replicad-Replica": self._name}
        stale_s = driver.status().stale_s
        if stale_s is not None:
            headers["X-Replicad-Staleness-Ms"] = str(ceil(stale_s * 1000))
        return headers


def _describe(driver: Driver, written: Written) -> Json:
    """The outcome of a write; what only its entry says is null once the log no longer has it."""
    entry = None
    if written.at >= driver.store.log.first:
        entry = entry_at(driver, written.at)
    return {
        "state": "committed",
        "index": written.at,
        "epoch": entry.epoch if entry else None,
        "digest": entry.digest.hex() if entry else None,
        "collection": written.collection,
        "key": written.key,
        "time": entry.time if entry else None,
    }
