"""What a replica tells of what it has stored, for `replicad verify` and `replicad repair`.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import orjson
from aiohttp import web

from replicad.errors import ReplicadError
from replicad.node.driver import Driver
from replicad.node.gates import Json, Served, bad_request, refusal
from replicad.storage.snapshot import cut_ranges, parse_line

_INDEXES_MAX: Final = 10_000
_LINES_AT_ONCE: Final = 500
_LINES_MAX: Final = 100_000


class HttpChecks:
    """Handlers of one node's checks."""

    def __init__(self, node: Served) -> None:
        """Serve `node`."""
        self._node = node
        self._scrubbing = asyncio.Lock()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_post("/internal/chain", self._chain)
        router.add_post("/internal/ranges", self._ranges)
        router.add_post("/internal/record-digests", self._record_digests)
        router.add_post("/internal/scrub", self._scrub)

    async def _chain(self, request: web.Request) -> web.Response:
        """The chain digests of some entries; null where this log holds none.

        Also before which time this replica may have forgotten writes.
        """
        indexes = (await _members(request)).get("indexes")
        if not isinstance(indexes, list) or not all(type(each) is int for each in indexes):
            raise bad_request("indexes must be a list of integers")
        if len(indexes) > _INDEXES_MAX:
            raise bad_request(f"more than {_INDEXES_MAX} indexes")
        log = self._driver().store.log
        known = range(log.base.index, log.last + 1)
        digests = [log.digest_at(each).hex() if each in known else None for each in indexes]
        forgets_before = self._driver().store.records.forgets_before
        return _json({"base": log.base.index, "digests": digests, "forgets_before": forgets_before})

    async def _ranges(self, request: web.Request) -> web.Response:
        """Digests of what a snapshot as of an index would hold, by ranges of keys."""
        upto, lines = await self._as_of(request)
        ranges = []
        for part, _ in cut_ranges(map(_keyed, lines), 0):
            collection, _, key = part.first.decode().partition("\0")
            ranges.append([collection, key, part.lines, part.digest.hex()])
            await asyncio.sleep(0)  # Others get their turn.
        self._assert_known(upto)
        return _json({"index": upto, "ranges": ranges})

    async def _record_digests(self, request: web.Request) -> web.Response:
        """Digests of its single lines in a stretch of keys."""
        upto, lines = await self._as_of(request)
        members = await _members(request)
        begin, end = _sort_key(members.get("from")), _sort_key(members.get("to"))
        digests: list[list[object]] = []
        for number, (index, key, line) in enumerate(_parsed(lines)):
            if number % _LINES_AT_ONCE == 0:
                await asyncio.sleep(0)  # Others get their turn.
            if begin is not None and key < begin:
                continue
            if end is not None and key >= end:
                break
            if len(digests) == _LINES_MAX:
                raise bad_request(f"more than {_LINES_MAX} records lie between from and to")
            collection, _, name = key.decode().partition("\0")
            digests.append([collection, name, index, sha256(line).hexdigest()])
        self._assert_known(upto)
        return _json({"index": upto, "records": digests})

    async def _scrub(self, _request: web.Request) -> web.Response:
        """Read everything again, now and at full speed."""
        driver = self._driver()
        if self._scrubbing.locked():
            raise refusal(web.HTTPConflict, {"error": "this replica is being read already"})
        async with self._scrubbing:
            try:
                result = await driver.scrub.check_all()
            except (ReplicadError, OSError) as error:
                driver.fail(error)  # The next run repairs what is damaged.
                return _json({"entries": 0, "restored": 0, "error": str(error)})
        return _json(result.describe())

    async def _as_of(self, request: web.Request) -> tuple[int, Iterator[bytes]]:
        """The index that is asked for, and the lines of a snapshot as of it."""
        members = await _members(request)
        upto, since = members.get("index"), members.get("remembered_from")
        if type(upto) is not int:
            raise bad_request("index must be an integer")
        if not isinstance(since, str):
            raise bad_request("remembered_from must be a time")
        records = self._driver().store.records
        self._assert_known(upto)
        return upto, records.snapshot_lines(upto, since)

    def _assert_known(self, upto: int) -> None:
        """Before and after: the store may forget what was, or be made anew, meanwhile."""
        records = self._driver().store.records
        if not records.since <= upto <= records.applied.index:
            error = f"only entries {records.since} to {records.applied.index} are known here"
            raise refusal(web.HTTPConflict, {"error": error})

    def _driver(self) -> Driver:
        driver = self._node.driver
        if driver is None or driver.stopped:
            raise refusal(web.HTTPServiceUnavailable, {"error": "this replica is not ready"})
        return driver


async def _members(request: web.Request) -> Json:
    try:
        members = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise bad_request(f"not JSON: {error}") from error
    if not isinstance(members, dict):
        raise bad_request("not an object")
    return members


def _keyed(line: bytes) -> tuple[bytes, bytes]:
    _, key = parse_line(line)
    return key, line


def _parsed(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    for line in lines:
        yield *parse_line(line), line


def _sort_key(pair: object) -> bytes | None:
    match pair:
        case None:
            return None
        case [str(collection), str(key)]:
            return f"{collection}\0{key}".encode()
    raise bad_request("from and to are [collection, key], or null")


def _json(body: Json) -> web.Response:
    return web.Response(body=orjson.dumps(body), content_type="application/json")
