"""Serves the feed of changes to gateways, and tells what a record is made of as of an entry.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import orjson
from aiohttp import web

from replicad.core.feed import Cursor, LoggedChange
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    LogFrontGoneError,
    RecordsDamagedError,
)
from replicad.node.driver import Driver
from replicad.node.feed import Page, read_page
from replicad.node.gates import Served, admit, bad_request, refusal
from replicad.storage.records_versions import Version

_CHANGES_MAX: Final = 10_000
_WAIT_MS_MAX: Final = 60_000
# About a millisecond.
_ENCODED_AT_ONCE: Final = 256
# How long a replica that is asked about a record may take to be as far as it is asked for.
_APPLY_S: Final = 2.0


class HttpChanges:
    """Handlers of one node's /internal/changes and /internal/record-digest."""

    def __init__(self, node: Served, name: str) -> None:
        """Serve `node`, whose name is `name`."""
        self._node = node
        self._name = name

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_get("/internal/changes", self._changes, allow_head=False)
        router.add_get("/internal/record-digest", self._record_digest, allow_head=False)

    async def _changes(self, request: web.Request) -> web.Response:
        """A page of one collection's changes, a line each, as soon as there are any."""
        try:
            collection, since = request.query["collection"], Cursor.parse(request.query["since"])
            limit, wait_ms = int(request.query["limit"]), int(request.query["wait_ms"])
            if not (1 <= limit <= _CHANGES_MAX and 0 <= wait_ms <= _WAIT_MS_MAX):
                raise ValueError("limit or wait_ms is out of range")
        except (KeyError, ValueError) as error:
            raise bad_request(f"not a place in a feed: {error}") from error
        driver = await admit(self._node, request)
        page = await _await_page(driver, Page(since, limit, collection), wait_ms / 1000)
        return web.Response(
            body=await _encode(page.changes),
            content_type="application/x-ndjson",
            headers={"X-Replicad-Next": str(page.next), **self._as_of(driver)},
        )

    async def _record_digest(self, request: web.Request) -> web.Response:
        """The version and the hash of one record as of an entry, once that is applied here."""
        try:
            collection, key = request.query["collection"], request.query["key"]
            index = int(request.query["index"])
        except (KeyError, ValueError) as error:
            raise bad_request(f"not a record as of an entry: {error}") from error
        if self._node.driver is not None:
            await _await_applied(self._node.driver, index)
        driver = await admit(self._node, request)
        try:
            version = _version_at(driver, collection, key, index)
        except RecordsDamagedError:
            driver.rebuild_records()
            version = _version_at(driver, collection, key, index)
        told = {
            "version": version.entry if version else 0,
            "sha256": sha256(version.value).hexdigest() if version else None,
        }
        return web.Response(
            body=orjson.dumps(told), content_type="application/json", headers=self._as_of(driver)
        )

    def _as_of(self, driver: Driver) -> dict[str, str]:
        """Headers that say who answers, and how far it is."""
        applied = driver.store.records.applied.index
        return {"X-Replicad-Index": str(applied), "X-Replicad-Replica": self._name}


async def _encode(changes: Sequence[LoggedChange]) -> bytes:
    """A line each."""
    parts = []
    for first in range(0, len(changes), _ENCODED_AT_ONCE):
        part = changes[first : first + _ENCODED_AT_ONCE]
        parts.append(b"".join(change.encode() + b"\n" for change in part))
        await asyncio.sleep(0)
    return b"".join(parts)


async def _await_applied(driver: Driver, index: int) -> None:
    """Wait until the entry is applied here, for a while."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + _APPLY_S
    while driver.store.records.applied.index < index and clock() < deadline and not driver.stopped:
        await driver.applied.wait(deadline - clock())


def _version_at(driver: Driver, collection: str, key: str, index: int) -> Version | None:
    """The record as of an entry.

    Raises:
        HTTPGone: What was replaced so early is not kept any more.
    """
    records = driver.store.records
    if index < records.since:
        raise refusal(web.HTTPGone, {"error": "gone", "first": records.since})
    return records.version_at(collection, key, index)


async def _await_page(driver: Driver, page: Page, wait_s: float) -> Page:
    """Read until there are changes, or for `wait_s` seconds and to the end of what is applied."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    while True:
        try:
            await read_page(driver, page)
        except LogFrontGoneError:
            here = {"error": "gone", "first": driver.store.log.first}
            raise refusal(web.HTTPGone, here) from None
        except (CorruptLogError, DiskFailedError) as error:
            raise refusal(web.HTTPServiceUnavailable, {"error": str(error)}) from error
        if driver.stopped:
            raise refusal(web.HTTPServiceUnavailable, {"error": "the replica stops"})
        if page.changes or clock() >= deadline:
            return page
        if page.next.next_entry > driver.store.records.applied.index:
            await driver.applied.wait(deadline - clock())
