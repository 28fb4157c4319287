from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.metrics import Metrics
from api_gateway.web import limits as limits_module
from api_gateway.web.limits import Admission, Limits, RateLimiter, client_of
from api_gateway.web.middleware import Around
from tests.support.web import serving


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(requests_per_s=2, burst=3)
    assert [limiter.admit("a", 10.0) for _ in range(3)] == [0, 0, 0]
    assert limiter.admit("a", 10.0) == pytest.approx(0.5)
    assert limiter.admit("a", 10.25) == pytest.approx(0.25)
    assert limiter.admit("a", 10.5) == 0
    assert limiter.admit("a", 10.5) == pytest.approx(0.5)
    assert limiter.admit("b", 10.5) == 0


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 20),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_client_ever_gets_more_than_its_bucket_holds(
    rate: float, burst: int, pauses: list[float]
) -> None:
    limiter = RateLimiter(rate, burst)
    now, tokens, last = 100.0, float(burst), 100.0
    for pause in pauses:
        now += pause
        tokens, last = min(burst, tokens + (now - last) * rate), now
        wait = limiter.admit("a", now)
        if wait:
            assert tokens < 1 + 1e-6
            assert wait * rate == pytest.approx(1 - tokens, abs=1e-5)
        else:
            assert tokens > 1 - 1e-6
            tokens -= 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_CLIENTS_MAX", 10)
    limiter = RateLimiter(requests_per_s=1, burst=1)
    for number in range(1000):
        assert limiter.admit(str(number), 0.0) == 0
        assert len(limiter._full_at) <= 10
    assert limiter.admit("999", 0.0) > 0  # The latest is remembered.
    assert limiter.admit("another", 5.0) == 0


def test_clients() -> None:
    assert client_of("10.0.0.1") == client_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert client_of("2001:db8:1:2::1") == client_of("2001:db8:1:2:ffff::9")
    assert client_of("2001:db8:1:2::1") != client_of("2001:db8:1:3::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")
    assert client_of(None) == ""


class Gate:
    """Handlers that wait until they may answer."""

    def __init__(self, limits: Limits) -> None:
        self.metrics = Metrics()
        self.entered = asyncio.Semaphore(0)
        self.open = asyncio.Event()
        around = Around(self.metrics, Admission(limits), frozenset())
        self.app = web.Application(middlewares=[around.middleware()])
        self.app.add_routes(
            [web.get("/v1/wait", self.wait), web.get("/healthz", self.health)],
        )

    async def wait(self, request: web.Request) -> web.Response:
        self.entered.release()
        await self.open.wait()
        return web.Response()

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()


@pytest.fixture
async def narrow() -> AsyncIterator[tuple[Gate, aiohttp.ClientSession]]:
    gate = Gate(Limits(in_flight_max=2))
    async with serving(gate.app) as client:
        yield gate, client


async def test_more_in_flight_is_refused_and_health_is_told_all_the_same(
    narrow: tuple[Gate, aiohttp.ClientSession],
) -> None:
    gate, client = narrow
    waiting = [asyncio.create_task(client.get("/v1/wait")) for _ in range(2)]
    async with asyncio.timeout(5):
        for _ in waiting:
            await gate.entered.acquire()
    async with client.get("/v1/wait") as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert (await response.json(content_type=None))["type"] == (
            "urn:replicad:too-many-requests"
        )
    async with client.get("/healthz") as response:
        assert response.status == 200
    assert b"replicad_gateway_in_flight 2.0" in gate.metrics.exposition()
    gate.open.set()
    assert [(await task).status for task in waiting] == [200, 200]
    async with client.get("/v1/wait") as response:
        assert response.status == 200
    assert b"replicad_gateway_in_flight 0.0" in gate.metrics.exposition()


async def test_a_client_that_is_too_fast_is_told_when_to_come_again() -> None:
    gate = Gate(Limits(requests_per_s=0.1, burst=2))
    gate.open.set()
    async with serving(gate.app) as client:
        seen: Counter[int] = Counter()
        for _ in range(4):
            async with client.get("/v1/wait") as response:
                seen[response.status] += 1
                if response.status == 429:
                    assert 1 <= int(response.headers["Retry-After"]) <= 10
        assert seen == {200: 2, 429: 2}
        async with client.get("/healthz") as response:
            assert response.status == 200
