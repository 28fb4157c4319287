"""What a replica reads out of its records and its log for gateways.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import orjson
from aiohttp import web

from replicad.errors import RecordsDamagedError
from replicad.httpd.messages import Answer, Request
from replicad.node.driver import Driver
from replicad.node.gates import Json, Served, admit, as_of, bad_request
from replicad.node.history import entry_at
from replicad.node.usual import NDJSON
from replicad.storage.records_lookup import Name, Written


class HttpReads:
    """Handlers of one node's reads."""

    def __init__(self, node: Served, name: str) -> None:
        """Serve `node`, whose name is `name`."""
        self._node = node
        self._name = name

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_post("/internal/requests", self._requests)

    async def gets(self, request: Request) -> Answer:
        """The versions and values of some records, a line each."""
        try:
            names = [_name(each) for each in orjson.loads(request.body)["keys"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise bad_request(f"not a look-up: {error}") from error
        driver = await admit(self._node, request)
        try:
            found = driver.store.records.get(names)
        except RecordsDamagedError:
            driver.rebuild_records()
            found = driver.store.records.get(names)
        seen = as_of(driver, self._name, driver.store.records.applied.index)
        body = b"".join([b"0\n" if each is None else b"%d %b\n" % each for each in found])
        return Answer(200, {**NDJSON, **seen}, body)

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
            headers=as_of(driver, self._name, driver.store.records.applied.index),
        )


def _name(told: object) -> Name:
    match told:
        case [str(collection), str(key)]:
            return collection, key
    raise ValueError("a record is named by its collection and its key")


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
        "done": written.done,
        "time": written.time,
    }
