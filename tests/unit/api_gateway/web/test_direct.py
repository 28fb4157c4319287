"""What is served without the router is served as with it."""

from __future__ import annotations

import aiohttp
import pytest

from api_gateway.app import serve_gateway
from replicad.coordination.memory import MemoryCoordinator
from tests.support.fake_leader import FakeCluster, FakeLeader, form
from tests.support.gateway import client_of, raw_url

FORM = "/API/ObtenerUnFormulario/"
RECORD = "/v1/collections/formularios/records/"


@pytest.mark.parametrize("path", [FORM, RECORD])
@pytest.mark.parametrize("query", ["", "?consistency=local", "?consistency=nothing"])
@pytest.mark.parametrize("known", [True, False])
async def test_reads_are_the_same(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str, query: str, known: bool
) -> None:
    if known:
        leader.forms["a"] = form("a")
    told = []
    for key in ("a", "%61"):
        async with gateway.get(raw_url(gateway, f"{path}{key}{query}")) as response:
            told.append((response.status, dict(response.headers), await response.read()))
    assert told[0] == told[1]
    assert told[0][1]["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", [RECORD, RECORD.replace("formularios", "-x")])
@pytest.mark.parametrize("sent", ["PUT", "GET"])
async def test_a_bad_name_is_told(gateway: aiohttp.ClientSession, path: str, sent: str) -> None:
    async with gateway.request(sent, f"{path}-a", json={"id": "-a"}) as response:
        assert response.status == 400
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        told = await response.json(content_type="application/problem+json")
        assert told["type"] == "urn:replicad:invalid-id"


async def test_a_route_is_counted_as_one(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    for key in ("b", "%62", "c"):
        url = raw_url(gateway, f"{RECORD}{key}")
        body = form(key.replace("%62", "b"))
        async with gateway.put(url, data=body, headers={"Content-Type": "application/json"}) as it:
            assert it.status in (200, 201)
        async with gateway.get(raw_url(gateway, f"{FORM}{key}")):
            pass
    async with gateway.post("/API/IngresarFormulario", data=form("d"), expect100=True) as it:
        assert it.status == 200
    async with gateway.post("/API/IngresarFormulario", data=form("e")) as it:
        assert it.status == 200
    async with gateway.get("/metrics") as response:
        told = await response.text()
    route = 'route="/v1/collections/{collection}/records/{id}"'
    for line in (
        f'replicad_gateway_requests_total{{method="PUT",{route},status="201"}} 2.0',
        f'replicad_gateway_requests_total{{method="PUT",{route},status="200"}} 1.0',
        f"replicad_gateway_request_seconds_count{{{route}}} 3.0",
        f'replicad_gateway_request_seconds_bucket{{le="+Inf",{route}}} 3.0',
        'replicad_gateway_request_seconds_count{route="/API/ObtenerUnFormulario/{id}"} 3.0',
        'replicad_gateway_request_seconds_count{route="/API/IngresarFormulario"} 2.0',
    ):
        assert line in told


async def test_a_defect_is_told_as_such(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_gateway.routes.records.check_name", lambda name: 1 / 0)
    async with gateway.get(f"{RECORD}a") as response:
        assert response.status == 500
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


async def test_pages_of_named_origins_may_read_it(cluster: FakeCluster, leader: FakeLeader) -> None:
    leader.forms["a"] = form("a")
    origin = "https://forms.example"
    runner = await serve_gateway(
        MemoryCoordinator(cluster.store),
        host="127.0.0.1",
        port=0,
        cors_origins=frozenset({origin}),
    )
    async with client_of(runner) as client:
        for path in (f"{FORM}a", f"{RECORD}a", f"{RECORD}none"):
            async with client.get(path, headers={"Origin": origin}) as response:
                assert response.headers["Access-Control-Allow-Origin"] == origin
                assert "Accept-Encoding, Origin" in response.headers.getall("Vary")
    await runner.cleanup()
