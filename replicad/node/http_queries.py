"""What a replica finds for gateways: the records that a query asks for, and what records were.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import orjson
from aiohttp import web

from replicad.core.query import Refused, decode_query
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    MalformedQueryError,
    QueryRefusedError,
    RecordsDamagedError,
)
from replicad.node.gates import Json, Served, admit, as_of_later, bad_request, refusal
from replicad.node.past import Happening, HistoryPage, index_at, read_history
from replicad.node.query_pool import QueriesBusyError
from replicad.storage.queries import Answer
from replicad.storage.records_versions import Version


class HttpQueries:
    """Handlers of one node's queries and histories."""

    def __init__(self, node: Served, name: str) -> None:
        """Serve `node`, whose name is `name`."""
        self._node = node
        self._name = name

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_post("/internal/query", self._query)
        router.add_get("/internal/versions", self._versions)
        router.add_get("/internal/past", self._past)

    async def _query(self, request: web.Request) -> web.Response:
        """One page of what a query finds, or why it is refused."""
        try:
            query = decode_query(await request.read())
        except MalformedQueryError as error:
            raise bad_request(str(error)) from error
        driver = await admit(self._node, request)
        headers = as_of_later(driver, self._name)
        try:
            try:
                found = await driver.queries.answer(query)
            except RecordsDamagedError:
                driver.rebuild_records()
                found = await driver.queries.answer(query)
        except QueryRefusedError as refused:
            told: Json = {"refused": refused.reason, "fields": refused.fields}
            found = Answer(driver.store.records.applied.index, orjson.dumps(told))
        except (QueriesBusyError, DiskFailedError, DiskFullError) as error:
            # What the disk does to whoever only reads is no reason to end this replica.
            raise _unavailable(error) from error
        return _json(found.body, headers(found.reflected))

    async def _versions(self, request: web.Request) -> web.Response:
        """What happened to one record, oldest first, after an entry."""
        try:
            collection, key = request.query["collection"], request.query["key"]
            after, limit = int(request.query["after"]), int(request.query["limit"])
            if after < 0 or limit < 1:
                raise ValueError("out of bounds")
        except (KeyError, ValueError) as error:
            raise bad_request(f"not a part of a history: {error}") from error
        driver = await admit(self._node, request)
        headers = as_of_later(driver, self._name)
        reflected = driver.store.records.applied.index
        try:
            page = await read_history(driver, collection, key, after=after, limit=limit)
        except RecordsDamagedError as error:
            driver.rebuild_records()
            raise _unavailable(error) from error
        except CorruptLogError as error:
            driver.fail(error)
            raise _unavailable(error) from error
        return _json(_encode_history(page), headers(reflected))

    async def _past(self, request: web.Request) -> web.Response:
        """A record as it was after an entry, or at a time: a line as of `gets`, or a refusal."""
        try:
            collection, key = request.query["collection"], request.query["key"]
            time = request.query.get("time")
            index = None if time is not None else int(request.query["index"])
        except (KeyError, ValueError) as error:
            raise bad_request(f"not a record in the past: {error}") from error
        driver = await admit(self._node, request)
        headers = as_of_later(driver, self._name)
        applied = driver.store.records.applied.index
        try:
            if time is not None:
                index = await index_at(driver, time)
            if index is None or index < driver.store.records.since:
                line = _refuse(Refused.GONE)
            elif index > applied:
                line = _refuse(Refused.NOT_YET)
            else:
                line = _encode(driver.store.records.version_at(collection, key, index))
        except RecordsDamagedError as error:
            driver.rebuild_records()
            raise _unavailable(error) from error
        except CorruptLogError as error:
            driver.fail(error)
            raise _unavailable(error) from error
        told = headers(applied)
        return web.Response(body=line, content_type="application/x-ndjson", headers=told)


def _json(body: bytes, headers: dict[str, str]) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers=headers)


def _unavailable(error: Exception) -> web.HTTPException:
    return refusal(web.HTTPServiceUnavailable, {"error": str(error)})


def _refuse(reason: Refused) -> bytes:
    return orjson.dumps({"refused": reason, "fields": []}) + b"\n"


def _encode(version: Version | None) -> bytes:
    return b"0\n" if version is None else b"%d %b\n" % (version.entry, version.value)


def _encode_history(page: HistoryPage) -> bytes:
    items = b",".join(map(_encode_happening, page.happenings))
    following = b"null" if page.next is None else b'"%d"' % page.next
    return b'{"items":[%b],"next":%b,"from_index":%d}' % (items, following, page.first)


def _encode_happening(happening: Happening) -> bytes:
    head = {
        "index": happening.index,
        "time": happening.time,
        "operation": happening.operation,
        "digest": happening.digest.hex(),
    }
    return b'%b,"value":%b}' % (orjson.dumps(head)[:-1], happening.value or b"null")
