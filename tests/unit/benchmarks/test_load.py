"""The clients of the benchmarks: what they count, and what they send again."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import aiohttp
import pytest
from aiohttp import web

from replicad.stack.ports import LOOPBACK, free_port
from tests.benchmarks.load import FORM_BYTES, Load, form, longest_gap
from tests.benchmarks.system import BenchmarkError, System, Write
from tests.support.waiting import eventually


def test_the_gap_around_a_fault_counts() -> None:
    assert longest_gap([1.0, 2.0, 2.5, 4.0, 4.1], since=2.7, until=5.0) == 1.5


def test_a_longer_gap_before_the_fault_does_not_count() -> None:
    assert longest_gap([1.0, 9.0, 9.5, 10.0], since=9.6, until=11.0) == 0.5


def test_a_gap_long_after_the_fault_counts() -> None:
    assert longest_gap([1.0, 1.5, 1.75, 4.75], since=1.25, until=5.0) == 3.0


def test_what_was_acknowledged_after_the_end_does_not_count() -> None:
    assert longest_gap([1.0, 2.0, 9.0], since=1.5, until=5.0) == 1.0


def test_times_may_come_in_any_order() -> None:
    assert longest_gap([4.0, 1.0, 2.0], since=1.5, until=5.0) == 2.0


@pytest.mark.parametrize("times", [[], [1.0], [3.0], [1.0, 9.0]])
def test_a_gap_without_both_ends_is_no_figure(times: list[float]) -> None:
    with pytest.raises(BenchmarkError, match="no write was acknowledged"):
        longest_gap(times, since=2.0, until=5.0)


def test_forms_have_the_size_that_is_told() -> None:
    body = form("carga-17")
    assert len(body) == FORM_BYTES
    assert json.loads(body)["id"] == "carga-17"


AnyServers = TypeVar("AnyServers", bound="_Servers")


class _Servers:
    """Two endpoints; every key fails twice, then is accepted."""

    attempt_s = 5.0

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.endpoints: tuple[str, ...] = ()

    def write(self, key: str, form: bytes) -> Write:
        return Write("/put", form, {"X-Key": key})

    async def serve(self, request: web.Request) -> web.Response:
        attempts = self.seen[request.headers["X-Key"]]
        attempts.append((request.url.port or 0, await request.read()))
        if len(attempts) == 1:
            return web.Response(status=503)
        if len(attempts) == 2:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=200)


class _DeafServers(_Servers):
    """One answers the writer's first form late; nobody listens at the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = asyncio.Event()

    async def serve(self, request: web.Request) -> web.Response:
        if request.headers["X-Key"] == "x-0":
            await self.hangs.wait()
        return web.Response(status=200)


@pytest.fixture
async def servers() -> AsyncIterator[_Servers]:
    async with serving(_Servers(), listening=2) as servers:
        yield servers


@asynccontextmanager
async def serving(servers: AnyServers, listening: int) -> AsyncIterator[AnyServers]:
    app = web.Application()
    app.router.add_post("/put", servers.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    ports: list[int] = []
    for number in range(2):
        ports.append(free_port(ports))
        if number < listening:
            await web.TCPSite(runner, LOOPBACK, ports[-1]).start()
    servers.endpoints = tuple(f"http://{LOOPBACK}:{port}" for port in ports)
    yield servers
    await runner.cleanup()


async def test_a_failed_write_is_sent_again_unchanged_to_the_next_endpoint(
    servers: _Servers,
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        Load.run(cast(System, servers), session, "x", writers=3) as load,
    ):
        await eventually(lambda: len(load.acknowledged) >= 6)
    assert load.acknowledged.keys() == servers.seen.keys()
    assert load.failures["503"] == len(load.acknowledged)
    assert load.failures.total() == 2 * len(load.acknowledged)
    for key, attempts in servers.seen.items():
        ports, bodies = zip(*attempts, strict=True)
        assert ports[0] != ports[1] != ports[2]
        assert set(bodies) == {form(key)}


async def test_forms_arrive_while_the_writers_hang() -> None:
    async with (
        serving(_DeafServers(), listening=1) as servers,
        aiohttp.ClientSession() as session,
        Load.run(cast(System, servers), session, "x", writers=1) as load,
    ):
        try:
            await eventually(lambda: len(load.acknowledged) >= 20)
            assert "x-0" not in load.acknowledged
        finally:
            servers.hangs.set()


async def test_nothing_more_is_sent_where_nobody_listens() -> None:
    async with (
        serving(_DeafServers(), listening=1) as servers,
        aiohttp.ClientSession() as session,
        Load.run(cast(System, servers), session, "x", writers=1) as load,
    ):
        servers.hangs.set()
        await eventually(lambda: load.failures.total() > 0)
        failed, acknowledged = load.failures.total(), len(load.acknowledged)
        await eventually(lambda: len(load.acknowledged) > acknowledged + 100)
        assert load.failures.total() <= failed + 1  # One may have been on its way.
