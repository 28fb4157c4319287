"""Writes across failovers, until their deadlines. Scenarios are named by fault."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.gateway import Serve
from tests.support.waiting import eventually

INSERT = "/API/IngresarFormulario"


async def insert(gateway: aiohttp.ClientSession, key: str = "a") -> aiohttp.ClientResponse:
    async with gateway.post(INSERT, data=form(key), headers={"Idempotency-Key": f"k-{key}"}) as it:
        await it.read()
    return it


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RESET,
        Fault.RESET_AFTERWARDS,
        Fault.NOT_LEADER,
        Fault.UNCONFIRMED,
        Fault.GARBAGE,
    ],
)
async def test_a_write_survives(
    gateway: aiohttp.ClientSession, leader: FakeLeader, fault: Fault
) -> None:
    leader.faults.extend([fault, fault])
    response = await insert(gateway)
    assert response.status == 200
    assert response.headers["X-Replicad-Index"] == "1"
    assert leader.forms == {"a": form("a")}


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"acks":[],"timing":{},"outcomes":[]}',
        b'{"acks":[],"timing":[],"outcomes":[{"status":"unknown"}]}',
        b'{"acks":[],"timing":{},"outcomes":[{"status":"committed"}]}',
        b'{"acks":[],"timing":{},"outcomes":[{"status":"refused","reason":"none"}]}',
        b'{"acks":[],"timing":{},"outcomes":["committed"]}',
    ],
)
async def test_an_answer_that_is_none_says_nothing(
    gateway: aiohttp.ClientSession, leader: FakeLeader, garbage: bytes
) -> None:
    leader.garbage = garbage
    leader.faults.append(Fault.GARBAGE)
    response = await insert(gateway)
    assert response.status == 200
    assert leader.batches["writes"] == [1, 1]
    assert response.headers["Server-Timing"] == "fsync;dur=0.5, ack_n2;dur=1.25"
    assert response.headers["X-Replicad-Acks"] == "n1,n2"


async def test_an_unknown_outcome_is_found_out(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.unknown = 1
    response = await insert(gateway)
    assert response.status == 200
    assert leader.batches["writes"] == [1, 1]


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.HANG_AFTERWARDS])
async def test_a_write_at_a_stopped_leader_moves_to_the_next(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader, fault: Fault
) -> None:
    successor = await cluster.replica("n2")
    leader.faults.append(fault)
    async with asyncio.timeout(2):  # Long before the attempt's own end.
        writing = asyncio.create_task(insert(gateway))
        await leader.seen.wait()
        cluster.fail_over(leader, successor)
        response = await writing
    assert response.status == 200
    assert successor.forms == {"a": form("a")}


async def test_a_hanging_leader_without_registration_is_tried_again(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.faults.append(Fault.HANG)
    async with asyncio.timeout(3):
        writing = asyncio.create_task(insert(gateway))
        await leader.seen.wait()
        cluster.deregister("n1")
        assert (await writing).status == 200


@pytest.mark.parametrize("way", ["refused", "not-leader", "reset"])
async def test_a_hand_over_fails_no_request(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader, way: str
) -> None:
    """The old leader answers, and says no; then it closes its connections, and is gone."""
    gateway = await serve(request_s=5.0)
    assert (await insert(gateway, "before")).status == 200
    successor = await cluster.replica("n2")
    if way == "refused":
        leader.refusal = "not-leader"
    else:
        leader.faults.extend([Fault.NOT_LEADER if way == "not-leader" else Fault.RESET] * 1_000)
    leader.seen.clear()
    writing = [asyncio.create_task(insert(gateway, f"f{n}")) for n in range(20)]
    await leader.seen.wait()
    cluster.fail_over(leader, successor)
    await leader.stop()
    assert {(await each).status for each in writing} == {200}
    assert len(successor.forms) == 21


async def test_a_write_waits_for_a_leader(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    successor = await cluster.replica("n2")
    await leader.stop()  # Its port refuses connections.
    writing = asyncio.create_task(insert(gateway))
    await asyncio.wait([writing], timeout=0.3)
    assert not writing.done()
    cluster.fail_over(leader, successor)
    assert (await writing).status == 200


@pytest.mark.parametrize("reason", ["not-leader", "broker-down", "overloaded"])
async def test_a_passing_refusal_is_waited_for(
    gateway: aiohttp.ClientSession, leader: FakeLeader, reason: str
) -> None:
    leader.refusal = reason
    writing = asyncio.create_task(insert(gateway))
    await eventually(lambda: len(leader.batches["writes"]) >= 2)
    assert not writing.done()
    leader.refusal = None
    assert (await writing).status == 200


@pytest.mark.parametrize(("reason", "status"), [("not-enough-replicas", 503), ("disk-full", 507)])
async def test_a_lasting_refusal_is_answered_at_once(
    gateway: aiohttp.ClientSession, leader: FakeLeader, reason: str, status: int
) -> None:
    leader.refusal = reason
    response = await insert(gateway)
    assert response.status == status
    assert ("Retry-After" in response.headers) == (status == 503)
    assert leader.batches["writes"] == [1]


async def test_a_write_that_was_never_sent_answers_503(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader
) -> None:
    gateway = await serve(request_s=0.6)
    cluster.without_leader()
    response = await insert(gateway)
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "Idempotency-Key" not in response.headers


async def test_a_write_always_refused_answers_503(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.6)
    leader.refusal = "broker-down"
    assert (await insert(gateway)).status == 503


async def test_a_write_sent_without_an_answer_answers_504(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.6)
    leader.faults.append(Fault.HANG_AFTERWARDS)
    response = await insert(gateway)
    assert response.status == 504
    assert response.headers["Idempotency-Key"] == "k-a"
    assert "No se sabe" in (await response.json())["message"]

    leader.release.set()
    assert (await insert(gateway)).status == 200  # The same key finds out.


async def test_a_504_names_the_key_that_the_gateway_made(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.6)
    leader.faults.append(Fault.HANG_AFTERWARDS)
    async with gateway.post(INSERT, data=form("a")) as response:
        assert response.status == 504
    assert list(leader.requests) == [response.headers["Idempotency-Key"]]


@pytest.mark.parametrize("reason", ["not-enough-replicas", "disk-full", "broker-down"])
async def test_a_refusal_does_not_resolve_an_attempt_in_doubt(
    serve: Serve, leader: FakeLeader, reason: str
) -> None:
    gateway = await serve(request_s=0.6)
    leader.faults.append(Fault.RESET)
    leader.refusal = reason
    assert (await insert(gateway)).status == 504


async def test_an_attempt_in_doubt_is_resolved_by_a_duplicate(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a", by="another request")
    leader.faults.append(Fault.RESET)
    assert (await insert(gateway)).status == 409


async def test_concurrent_writes_travel_together(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.faults.append(Fault.NOT_LEADER)
    responses = await asyncio.gather(*(insert(gateway, f"f{n}") for n in range(60)))
    assert {response.status for response in responses} == {200}
    assert len(leader.forms) == 60
    assert max(leader.batches["writes"]) > 5
    indexes = {response.headers["X-Replicad-Index"] for response in responses}
    assert indexes == {str(n) for n in range(1, 61)}


async def test_one_hanging_request_does_not_block_others(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.faults.append(Fault.HANG)
    stuck = asyncio.create_task(insert(gateway, "stuck"))
    await leader.seen.wait()
    async with asyncio.timeout(2):
        assert (await insert(gateway, "other")).status == 200
    assert not stuck.done()
    leader.release.set()
    assert (await stuck).status == 200
