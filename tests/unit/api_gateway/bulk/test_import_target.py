from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest

from api_gateway.bulk import import_target
from api_gateway.bulk.record_lines import RECORD_BYTES_MAX
from tests.support.bulk import (
    CSV,
    IMPORT,
    NDJSON,
    define,
    imported,
    tally,
)
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.waiting import eventually


async def test_what_the_schema_refuses_is_told_with_its_id(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader, "people", schema={"properties": {"edad": {"type": "integer"}}}, key="id")
    path = "/v1/collections/people/records:import"
    lines = await imported(gateway, form("a", edad="seis"), path=path)
    assert lines[0]["id"] == "a"
    assert lines[0]["status"] == "invalid"
    assert lines[0]["reason"].startswith("/edad: ")


async def test_a_row_that_is_too_long_as_a_record_is_invalid(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    name = "n" * (RECORD_BYTES_MAX // 2)
    row = f"a,{'x' * (RECORD_BYTES_MAX * 3 // 4)}"
    lines = await imported(gateway, f"id,{name}\n{row}\n".encode(), CSV)
    assert lines[0]["status"] == "invalid"
    assert "1 MiB" in lines[0]["reason"]


async def test_a_failover_on_the_way_is_ridden_through(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    other = await cluster.replica("n2")
    body = b"\n".join(form(str(number)) for number in range(5_000))
    leader.faults.extend([Fault.HANG_AFTERWARDS, Fault.HANG_AFTERWARDS])
    running = asyncio.create_task(imported(gateway, body))
    await eventually(lambda: len(leader.forms) > 0)
    cluster.fail_over(leader, other)
    lines = await running
    assert lines[-1] == tally(stored=5_000)
    assert len(other.forms) == 5_000


async def test_an_unknown_outcome_is_told_as_one(
    gateway: aiohttp.ClientSession, leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_target, "PATIENCE_S", 0.3)
    leader.faults.extend([Fault.HANG_AFTERWARDS] * 9)
    lines = await imported(gateway, form("a") + b"\n" + form("b"))
    assert [each.get("status") for each in lines] == ["unknown", "unknown", None, None]
    assert lines[2]["error"]["type"] == "urn:replicad:outcome-unknown"
    assert lines[3] == tally(unknown=2)


@pytest.mark.parametrize(
    ("refusal", "slug"), [("disk-full", "storage-full"), ("not-enough-replicas", "unavailable")]
)
async def test_a_cluster_that_stores_nothing_ends_the_import(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    monkeypatch: pytest.MonkeyPatch,
    refusal: str,
    slug: str,
) -> None:
    monkeypatch.setattr(import_target, "PATIENCE_S", 0.5)
    leader.refusal = refusal
    error, last = await imported(gateway, form("a") + b"\n" + form("b"))
    assert error["error"]["type"] == f"urn:replicad:{slug}"
    assert last == tally()
    assert not leader.forms


async def test_a_short_lack_of_replicas_is_waited_for(
    gateway: aiohttp.ClientSession, leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_target, "_PAUSE_S", 0.01)
    leader.refusal = "not-enough-replicas"
    running = asyncio.create_task(imported(gateway, form("a")))
    await eventually(lambda: len(leader.batches["writes"]) > 2)
    leader.refusal = None
    assert (await running)[-1] == tally(stored=1)


async def test_a_definition_that_changes_on_the_way_checks_the_rest(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    redefined = asyncio.Event()

    async def patient() -> AsyncIterator[bytes]:
        yield form("a", edad="x") + b"\n"
        await redefined.wait()
        yield form("b", edad="x") + b"\n" + form("c", edad=7) + b"\n"

    async with gateway.post(IMPORT, data=patient(), headers=NDJSON) as response:
        assert orjson.loads(await response.content.readline())["status"] == "stored"
        define(leader, "formularios", schema={"properties": {"edad": {"type": "integer"}}})
        redefined.set()
        rest = (await response.content.read()).splitlines()
    assert [orjson.loads(line).get("status") for line in rest] == ["invalid", "stored", None]
