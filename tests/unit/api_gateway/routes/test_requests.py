from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.gateway import Serve, raw_url

INSERT = "/API/IngresarFormulario"


async def outcome_of(gateway: aiohttp.ClientSession, key: str) -> tuple[int, Any]:
    async with gateway.get(raw_url(gateway, f"/v1/requests/{key}")) as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return response.status, await response.json()


@pytest.mark.parametrize("key", ["k-1", "~" * 128, "a/b", "..", "%?#{}", 'k","value":'])
async def test_a_write_is_found_by_its_key(gateway: aiohttp.ClientSession, key: str) -> None:
    path = quote(key, safe="")
    assert await outcome_of(gateway, path) == (404, {"state": "unknown"})
    async with gateway.post(INSERT, data=form("a"), headers={"Idempotency-Key": key}) as response:
        assert response.status == 200
    told = {"state": "committed", "index": 1, "collection": "formularios", "key": "a"}
    assert await outcome_of(gateway, path) == (200, told)


async def test_it_is_a_strong_read(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    leader.forms["a"] = form("a")
    async with gateway.get("/v1/requests/k?consistency=local") as response:
        assert response.headers["X-Replicad-Consistency"] == "strong"
        assert response.headers["X-Replicad-Index"] == "1"
    assert leader.reads == 0


@pytest.mark.parametrize("key", ["", "x" * 129, "a%20b", "%C3%B1", "a%0A", "%00"])
async def test_a_bad_key_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, key: str
) -> None:
    async with gateway.get(raw_url(gateway, f"/v1/requests/{key}")) as response:
        assert response.status == 400
        assert response.headers["Content-Type"] == "application/problem+json"
        assert "Idempotency-Key" in (await response.json(content_type=None))["detail"]
    assert not leader.seen.is_set()


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.NOT_LEADER, Fault.UNCONFIRMED, Fault.GARBAGE])
async def test_a_look_up_survives(
    gateway: aiohttp.ClientSession, leader: FakeLeader, fault: Fault
) -> None:
    leader.faults.append(fault)
    assert await outcome_of(gateway, "k") == (404, {"state": "unknown"})
    assert not leader.faults


async def test_without_a_leader_nothing_is_known(serve: Serve, cluster: FakeCluster) -> None:
    """503, which is not the 404 that would deny the write."""
    gateway = await serve(request_s=0.4)
    cluster.without_leader()
    async with gateway.get("/v1/requests/k") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
