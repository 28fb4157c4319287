"""Streams all records of a collection as of one index, a page at a time.

Replicas that stream the same give the same bytes: what one breaks off another can complete.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from aiohttp import web

from replicad.errors import RecordsDamagedError
from replicad.node.driver import Driver
from replicad.node.gates import Served, admit, as_of, bad_request, refusal

_PAGE: Final = 500


class HttpExport:
    """Handlers of one node's streams of records."""

    def __init__(self, node: Served, name: str) -> None:
        """Serve `node`, whose name is `name`."""
        self._node = node
        self._name = name

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add their routes."""
        router.add_get("/internal/records", self._array, allow_head=False)
        router.add_get("/internal/export", self._lines, allow_head=False)

    async def _array(self, request: web.Request) -> web.StreamResponse:
        """Records as one JSON array."""
        return await self._stream(request, "application/json", b"[", b",", b"]")

    async def _lines(self, request: web.Request) -> web.StreamResponse:
        """Records as they are stored, a line each."""
        return await self._stream(request, "application/x-ndjson", b"", b"\n", b"\n")

    async def _stream(
        self, request: web.Request, content_type: str, opening: bytes, between: bytes, end: bytes
    ) -> web.StreamResponse:
        collection, genero = request.query.get("collection", ""), request.query.get("genero")
        try:
            upto = int(request.query["upto"]) if "upto" in request.query else None
        except ValueError:
            raise bad_request("upto must be an integer") from None
        driver = await admit(self._node, request)
        applied = driver.store.records.applied.index
        upto = applied if upto is None else min(upto, applied)
        if upto < driver.store.records.since:
            raise refusal(web.HTTPGone, {"error": f"what was at entry {upto} is not kept here"})
        headers = {"Content-Type": content_type, **as_of(driver, self._name, upto)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        is_empty = True
        try:
            for page in _pages(driver, collection, genero, upto):
                if page:
                    await response.write((opening if is_empty else between) + between.join(page))
                    is_empty = False
                await asyncio.sleep(0)  # Writing does not wait while the reader keeps up.
            if not is_empty or opening:
                await response.write(opening + end if is_empty else end)
            await response.write_eof()
        except ConnectionResetError:
            pass  # The reader has gone.
        return response


def _pages(
    driver: Driver, collection: str, genero: str | None, upto: int
) -> Iterator[Sequence[bytes]]:
    """Stored records as of `upto`, which is applied; a page may be empty.

    Raises:
        ConnectionAbortedError: They cannot be told to the end: what is there must not look
            complete.
    """
    after: int | None = 0
    while after is not None:
        reach = driver.store.records
        if driver.stopped or not reach.since <= upto <= reach.applied.index:
            raise ConnectionAbortedError("the replica stops, or its records are other ones now")
        try:
            page, after = driver.store.records.scan(
                collection, after=after, upto=upto, limit=_PAGE, genero=genero
            )
        except RecordsDamagedError as error:
            driver.rebuild_records()
            raise ConnectionAbortedError("the record store was damaged") from error
        yield [value for _, value in page]
