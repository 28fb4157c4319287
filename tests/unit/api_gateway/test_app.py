from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import pytest

from api_gateway import app
from api_gateway.app import Deadlines, serve_gateway
from api_gateway.web.limits import Limits
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.coordination.port import View
from replicad.httpd import connection
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.gateway import Serve, client_of, raw_url

INSERT = "/API/IngresarFormulario"


class LateCoordinator(MemoryCoordinator):
    """Takes its time to start."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.may_start = asyncio.Event()

    async def start(self, on_view: Callable[[View], None]) -> None:
        await self.may_start.wait()
        await super().start(on_view)


async def test_serves_before_the_coordinator_answers(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader
) -> None:
    coordinator = LateCoordinator(cluster.store)
    gateway = await serve(coordinator=coordinator)
    async with gateway.get("/v1/cluster") as response:
        assert (await response.json())["leader"] is None
    coordinator.may_start.set()
    async with gateway.post(INSERT, data=form("a")) as response:
        assert response.status == 200


async def test_a_busy_address_is_told(serve: Serve, cluster: FakeCluster) -> None:
    gateway = await serve()
    async with gateway.get("/healthz") as response:
        port = response.url.port
    assert port is not None
    coordinator = MemoryCoordinator(cluster.store)
    with pytest.raises(OSError, match="address already in use"):
        await serve_gateway(coordinator, host="127.0.0.1", port=port)
    assert coordinator not in cluster.store.sessions


async def test_a_head_that_never_ends_ends_its_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_USUAL", connection.Limits(body_bytes=0, keepalive_s=0.05))
    url = raw_url(await serve(), "/")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_ends_in_time_and_answers_what_waits(
    cluster: FakeCluster, leader: FakeLeader
) -> None:
    runner = await serve_gateway(
        MemoryCoordinator(cluster.store), host="127.0.0.1", port=0, deadlines=Deadlines()
    )
    leader.faults.append(Fault.HANG_AFTERWARDS)
    async with client_of(runner) as client:
        waiting = asyncio.create_task(client.post(INSERT, data=form("a")))
        await leader.seen.wait()
        async with asyncio.timeout(3):
            await runner.cleanup()
        response = await waiting
        assert response.status == 504
        assert response.headers["Idempotency-Key"]
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/healthz")


async def test_limits_and_origins_are_those_asked_for(cluster: FakeCluster) -> None:
    runner = await serve_gateway(
        MemoryCoordinator(cluster.store),
        host="127.0.0.1",
        port=0,
        limits=Limits(requests_per_s=0.01, burst=1),
        cors_origins=frozenset({"https://forms.example"}),
    )
    async with client_of(runner) as client:
        origin = {"Origin": "https://forms.example"}
        async with client.get("/v1/cluster", headers=origin) as response:
            assert response.status == 200
        async with client.get("/v1/cluster", headers=origin) as response:
            assert response.status == 429
            assert response.headers["Access-Control-Allow-Origin"] == "https://forms.example"
            assert response.content_type == "application/problem+json"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/collections/%00", 400),
        ("GET", "/v1/collections/%ff", 400),
        ("GET", "/v1/collections/%zz", 400),
        ("GET", "/v1/collections/..%2f..", 400),
        ("GET", "/v1/collections/a%2fb/records", 400),
        ("PUT", "/v1/collections/" + "x" * 60_000, 400),
        ("GET", "/v1/collections/formularios/records/" + "x" * 60_000, 400),
        ("GET", "/v1/collections/formularios/records/a%00b", 400),
        ("GET", "/v1/collections/formularios/records/a%2fb", 400),
        ("DELETE", "/v1/collections/formularios/records/%e2%82", 400),
        ("GET", "/v1/collections/formularios/records/a/history/x", 404),
        ("GET", "/v1/collections/formularios/records?%00=%ff", 400),
        ("GET", "/v1/collections/formularios/records:nothing", 404),
        ("GET", "/v1/collections/formularios/records?" + "&".join(["a=1"] * 10_000), 400),
    ],
    ids=lambda value: value[:48] if isinstance(value, str) else None,
)
async def test_hostile_paths_are_refused(
    gateway: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with gateway.request(method, raw_url(gateway, path), json={}) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/problem+json"
