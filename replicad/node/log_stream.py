"""Serves committed entries of this replica's log, for the repair of another's.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from replicad.errors import CorruptLogError
from replicad.node.driver import Driver
from replicad.node.gates import Served, bad_request, refusal

_BLOCK_BYTES: Final = 256 * 1024


class LogStream:
    """The handler of one node's /internal/log."""

    def __init__(self, node: Served) -> None:
        """Serve `node`."""
        self._node = node

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add its route."""
        router.add_get("/internal/log", self._log, allow_head=False)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        """The lines of the entries from `first` to `last`, all of them or a broken connection."""
        try:
            first, last = int(request.query["first"]), int(request.query["last"])
        except (KeyError, ValueError):
            raise bad_request("first and last must be integers") from None
        driver = self._running_driver()
        store, commit = driver.store, driver.status().commit_index
        if not store.log.first <= first <= last <= min(commit, store.log.last):
            here = {"error": "not-here", "first": store.log.first, "committed": commit}
            raise refusal(web.HTTPNotFound, here)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        while first <= last:
            if driver.stopped or first < store.log.first:
                raise ConnectionAbortedError("the replica stops, or dropped the log's front")
            upto = store.log.fit(first, last, _BLOCK_BYTES)
            try:
                block = store.read(first, upto - first + 1)
            except CorruptLogError as error:
                driver.fail(error)
                raise ConnectionAbortedError("this log is damaged, too") from error
            try:
                await response.write(block)
            except ConnectionResetError:
                return response  # The reader has gone.
            first = upto + 1
        await response.write_eof()
        return response

    def _running_driver(self) -> Driver:
        driver = self._node.driver
        if driver is None or driver.stopped:
            raise refusal(web.HTTPServiceUnavailable, {"error": "there is no log to read now"})
        return driver
