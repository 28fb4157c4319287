from __future__ import annotations

from typing import Any

import aiohttp

from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from tests.support.fake_leader import DIGEST, FakeCluster, FakeLeader, form
from tests.support.gateway import Serve

NOTHING = {"last_index": None, "commit_index": None, "applied_index": None, "digest": None}
FOLLOWER = {"role": "follower", "last_index": 4, "commit_index": 4, "applied_index": 3}


async def get(client: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with client.get(path) as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return response.status, await response.json()


async def test_composes_the_cluster(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    follower = await cluster.replica("n2")
    follower.status = FOLLOWER
    status, answer = await get(gateway, "/v1/cluster")
    assert status == 200
    assert answer == {
        "leader": "n1",
        "epoch": 1,
        "isr": ["n1", "n2"],
        "min_in_sync": 2,
        "replicas": [
            {
                "name": "n1",
                "role": "leader",
                "url": leader.url,
                "last_index": 7,
                "commit_index": 6,
                "applied_index": 5,
                "digest": DIGEST,
                "lag": 0,
                "scrub": None,
                "last_contact_ms": 0,
            },
            {
                "name": "n2",
                "role": "follower",
                "url": follower.url,
                "last_index": 4,
                "commit_index": 4,
                "applied_index": 3,
                "digest": DIGEST,
                "lag": 3,
                "scrub": None,
                "last_contact_ms": 12,
            },
            {
                "name": "n3",
                "role": "unreachable",
                "url": None,
                **NOTHING,
                "lag": None,
                "scrub": None,
                "last_contact_ms": None,
            },
        ],
    }


async def test_a_leader_that_is_not_registered_is_none(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    cluster.deregister("n1")
    await leader.stop()
    _, answer = await get(gateway, "/v1/cluster")
    assert answer["leader"] is None
    assert answer["epoch"] == 1
    assert answer["replicas"][0] == {
        "name": "n1",
        "role": "unreachable",
        "url": leader.url,
        **NOTHING,
        "lag": None,
        "scrub": None,
        "last_contact_ms": None,
    }


async def test_another_replica_at_a_known_address_is_not_mistaken(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.status = {"name": "n2"}
    _, answer = await get(gateway, "/v1/cluster")
    assert answer["replicas"][0]["role"] == "unreachable"


async def test_before_the_first_start_nothing_is_known(serve: Serve) -> None:
    gateway = await serve(coordinator=MemoryCoordinator(MemoryStore()))
    assert await get(gateway, "/v1/cluster") == (
        200,
        {"leader": None, "epoch": 0, "isr": [], "min_in_sync": None, "replicas": []},
    )
    status, answer = await get(gateway, "/readyz")
    assert status == 503
    assert answer["status"] == "error"


async def test_ready_only_when_the_leader_takes_writes(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    assert await get(gateway, "/readyz") == (200, {"status": "ok"})
    leader.status = {"writable": False, "reason": "disk-full"}
    full = {"status": "error", "message": "El disco del líder está lleno."}
    assert await get(gateway, "/readyz") == (503, full)
    for elsewhere in ({"role": "follower"}, {"epoch": 2}):
        leader.status = elsewhere
        status, answer = await get(gateway, "/readyz")
        assert status == 503
        assert "n1" in answer["message"]
    await leader.stop()
    status, answer = await get(gateway, "/readyz")
    assert status == 503
    assert "no responde" in answer["message"]


async def test_lives_without_a_leader(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    await leader.stop()
    assert await get(gateway, "/healthz") == (200, {"status": "ok"})


async def test_exposes_metrics(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    async with gateway.post("/API/IngresarFormulario", data=form("a")):
        pass
    async with gateway.get("/API/ObtenerUnFormulario/b"):
        pass
    async with gateway.request("PROPFIND", "/some/where"):
        pass
    async with gateway.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        lines = (await response.text()).splitlines()
    route = 'route="/API/ObtenerUnFormulario/{id}"'
    requests = "replicad_gateway_requests_total"
    assert f'{requests}{{method="GET",{route},status="404"}} 1.0' in lines
    assert f'{requests}{{method="other",route="unmatched",status="404"}} 1.0' in lines
    assert f"replicad_gateway_request_seconds_count{{{route}}} 1.0" in lines
    assert 'replicad_gateway_batch_size_count{kind="write"} 1.0' in lines
    assert 'replicad_gateway_retries_total{kind="write"} 0.0' in lines
    assert "replicad_gateway_leader_known 1.0" in lines
