"""On which conditions a replica answers over HTTP; requests name them in their headers.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Final, Protocol, TypeVar

import orjson
from aiohttp import web

from replicad.httpd.messages import Request
from replicad.node.driver import Driver

EPOCH: Final = "X-Replicad-Epoch"
"""Of writes and strong reads: the epoch in which the sender believes this replica to lead."""
LEADER: Final = "X-Replicad-Leader"
"""Of the same, if the sender says so: the incarnation that it takes for the leader. Epochs of two
clusters may be equal, and an address may pass from one to the other."""
MIN_INDEX: Final = "X-Replicad-Min-Index"
"""Of other reads: what must be applied here; 0 for whatever is."""

Json = dict[str, object]
_T = TypeVar("_T")


class Served(Protocol):
    """What the HTTP interface shows: a node, whose driver exists once it knows its cluster."""

    @property
    def driver(self) -> Driver | None:
        """The running driver, or None."""

    def describe(self) -> Json:
        """The body of /internal/status."""


def led(node: Served, request: web.Request | Request) -> tuple[Driver, int]:
    """The driver and the epoch, if the request is meant for this leader in this epoch (rule 10).

    Raises:
        HTTPBadRequest: It names no epoch.
        HTTPMisdirectedRequest: It is meant for another leader.
    """
    epoch = _integer(request, EPOCH)
    driver = node.driver
    if driver is None or not driver.leads_in(epoch):
        raise _not_leader(driver)
    if request.headers.get(LEADER) not in (driver.incarnation, None):
        raise _not_leader(driver)
    return driver, epoch


async def admit(node: Served, request: web.Request | Request) -> Driver:
    """The driver whose records may be read now, before anything else is awaited (rule 11).

    Strong reads, which name an epoch, are admitted by a leader that a round has confirmed;
    others where as much is applied as they name.

    Raises:
        HTTPBadRequest: The request names neither, or no integer.
        HTTPMisdirectedRequest: It is meant for another leader, or this one was not confirmed.
        HTTPPreconditionFailed: Not enough is applied here yet.
        HTTPServiceUnavailable: This replica stops, or does not know its cluster.
    """
    if EPOCH in request.headers:
        driver, epoch = led(node, request)
        confirmed = await outcome_of(driver, driver.read(epoch))
        if not confirmed:
            raise _not_leader(driver)
        return driver
    wanted = _integer(request, MIN_INDEX)
    if node.driver is None or node.driver.stopped:
        raise refusal(web.HTTPServiceUnavailable, {"error": "there is nothing to read here now"})
    node.driver.apply_due()
    applied = node.driver.store.records.applied.index
    if applied < wanted:
        behind: Json = {"error": "behind", "applied_index": applied}
        raise refusal(web.HTTPPreconditionFailed, behind)
    return node.driver


async def outcome_of(driver: Driver, work: Awaitable[_T]) -> _T:
    """Wait for the core; if it stops meanwhile, tell that the outcome is unknown.

    Raises:
        HTTPServiceUnavailable: It has stopped. Writes may have been appended: 421 would deny that.
    """
    try:
        return await work
    except asyncio.CancelledError:
        if driver.stopped:
            error = "the replica stops; the outcome is unknown"
            raise refusal(web.HTTPServiceUnavailable, {"error": error}) from None
        raise


def as_of(driver: Driver, name: str, index: int) -> dict[str, str]:
    """Headers that say what an answer of the replica `name` reflects, and how stale that may be.

    Only for what was read without an await since; else `as_of_later`.
    """
    return _headers(name, index, driver.status().stale_s)


def as_of_later(driver: Driver, name: str) -> Callable[[int], dict[str, str]]:
    """Makes, of the index, the same headers for a read that awaits; call this before it begins.

    What is committed meanwhile may be missing: the time from here to the answer makes it staler.
    """
    began = time.monotonic()
    stale_s = driver.status().stale_s

    def headers(index: int) -> dict[str, str]:
        passed_s = time.monotonic() - began
        return _headers(name, index, None if stale_s is None else stale_s + passed_s)

    return headers


def refusal(status: type[web.HTTPException], body: Json) -> web.HTTPException:
    """An error to raise, with a JSON body."""
    return status(text=orjson.dumps(body).decode(), content_type="application/json")


def bad_request(message: str) -> web.HTTPException:
    """The error to raise when a request cannot be understood. Nothing was done."""
    return refusal(web.HTTPBadRequest, {"error": message})


def _headers(name: str, index: int, stale_s: float | None) -> dict[str, str]:
    headers = {"X-Replicad-Index": str(index), "X-Replicad-Replica": name}
    if stale_s is not None:
        headers["X-Replicad-Staleness-Ms"] = str(ceil(stale_s * 1000))
    return headers


def _integer(request: web.Request | Request, header: str) -> int:
    try:
        return int(request.headers.get(header, ""))
    except ValueError:
        raise bad_request(f"header {header} must be an integer") from None


def _not_leader(driver: Driver | None) -> web.HTTPException:
    epoch = driver.epoch if driver else 0
    return refusal(web.HTTPMisdirectedRequest, {"error": "not-leader", "epoch": epoch})
