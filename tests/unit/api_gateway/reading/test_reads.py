"""Reads of every consistency, across failovers and at replicas that lag or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
import pytest

from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.gateway import Serve
from tests.support.waiting import eventually

ONE = "/API/ObtenerUnFormulario/a"
EVERY = "/API/ObtenerTodosLosFormularios"
LOCAL = {"X-Replicad-Consistency": "local"}


def session(index: int) -> dict[str, str]:
    return {"X-Replicad-Consistency": "session", "X-Replicad-Min-Index": str(index)}


async def read(
    gateway: aiohttp.ClientSession, path: str, headers: Mapping[str, str]
) -> tuple[int, bytes, str | None]:
    """Status, body, and which replica has answered."""
    async with gateway.get(path, headers=headers) as response:
        body = await response.read()
        return response.status, body, response.headers.get("X-Replicad-Replica")


async def follower_of(cluster: FakeCluster, leader: FakeLeader, name: str) -> FakeLeader:
    """A replica that holds what the leader holds, and leads nothing."""
    replica = await cluster.replica(name, epoch=0)
    replica.forms = dict(leader.forms)
    return replica


# -- strong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault.RESET, Fault.NOT_LEADER, Fault.UNCONFIRMED, Fault.RESET_AFTERWARDS]
)
async def test_reads_survive(
    gateway: aiohttp.ClientSession, leader: FakeLeader, fault: Fault
) -> None:
    leader.forms["a"] = form("a")
    leader.faults.append(fault)
    async with gateway.get("/API/ObtenerUnFormulario/a") as response:
        assert await response.read() == form("a")
    if fault is not Fault.RESET_AFTERWARDS:
        leader.faults.append(fault)
    async with gateway.get("/API/ObtenerTodosLosFormularios") as response:
        assert await response.read() == b"[" + form("a") + b"]"


async def test_reads_at_a_stopped_leader_move_to_the_next(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a")
    successor = await cluster.replica("n2")
    leader.faults.extend([Fault.HANG, Fault.HANG])
    async with asyncio.timeout(2):
        one = asyncio.create_task(gateway.get("/API/ObtenerUnFormulario/a"))
        every = asyncio.create_task(gateway.get("/API/ObtenerTodosLosFormularios"))
        await eventually(lambda: not leader.faults)
        cluster.fail_over(leader, successor)
        assert await (await one).read() == form("a")
        assert await (await every).read() == b"[" + form("a") + b"]"


async def test_reads_without_a_leader_answer_503(serve: Serve, cluster: FakeCluster) -> None:
    gateway = await serve(request_s=0.6)
    cluster.without_leader()
    for path in ("ObtenerUnFormulario/a", "VerificaFormularioDuplicado/a", "ObtenerGeneros/x"):
        async with gateway.get(f"/API/{path}") as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0


async def test_concurrent_reads_get_their_own_answers(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    for n in range(0, 100, 2):
        leader.forms[f"f{n}"] = form(f"f{n}")

    async def read(key: str) -> bytes | None:
        async with gateway.get(f"/API/ObtenerUnFormulario/{key}") as response:
            return await response.read() if response.status == 200 else None

    answers = await asyncio.gather(*(read(f"f{n}") for n in range(100)))
    assert answers == [leader.forms.get(f"f{n}") for n in range(100)]
    assert max(leader.batches["gets"]) > 5


@pytest.mark.parametrize("path", [ONE, "/API/VerificaFormularioDuplicado/a", EVERY])
async def test_a_strong_read_says_what_it_reflects(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str
) -> None:
    leader.forms["a"] = form("a")
    leader.staleness_ms = 70  # Whatever it says: a round has confirmed it.
    for headers in ({}, {"X-Replicad-Consistency": "strong"}):
        async with gateway.get(path, headers=headers) as response:
            assert response.status == 200
            assert response.headers["X-Replicad-Consistency"] == "strong"
            assert response.headers["X-Replicad-Index"] == "1"
            assert response.headers["X-Replicad-Staleness-Ms"] == "0"
            assert response.headers["X-Replicad-Replica"] == "n1"
    assert leader.reads == 0


async def test_a_form_that_is_not_there_is_a_read_too(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["b"] = form("b")
    async with gateway.get(ONE) as response:
        assert response.status == 404
        assert response.headers["X-Replicad-Index"] == "1"


async def test_an_answer_of_another_replica_is_not_taken(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader
) -> None:
    """After a restart another one may answer at an address known from before."""
    gateway = await serve(request_s=0.4)
    leader.name = "n9"
    assert (await read(gateway, ONE, {}))[0] == 503
    assert (await read(gateway, ONE, LOCAL))[0] == 503


# -- session and local --------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [LOCAL, session(0), session(1)], ids=str)
@pytest.mark.parametrize("path", [ONE, EVERY, "/API/ObtenerGeneros/x"])
async def test_followers_take_turns_and_spare_the_leader(
    gateway: aiohttp.ClientSession,
    cluster: FakeCluster,
    leader: FakeLeader,
    headers: dict[str, str],
    path: str,
) -> None:
    leader.forms["a"] = form("a", genero="x")
    cluster.in_sync("n1", "n2", "n3")
    followers = [await follower_of(cluster, leader, name) for name in ("n2", "n3")]
    answers = {await read(gateway, path, headers) for _ in range(6)}
    assert {(status, len(answers)) for status, _, _ in answers} == {(200, 2)}
    assert {replica for _, _, replica in answers} == {"n2", "n3"}
    assert [leader.reads, *(f.reads > 1 for f in followers)] == [0, True, True]


@pytest.mark.parametrize(("staleness_ms", "told"), [(123, "123"), (None, "unknown")])
async def test_a_read_says_how_stale_it_may_be(
    gateway: aiohttp.ClientSession,
    cluster: FakeCluster,
    leader: FakeLeader,
    staleness_ms: int | None,
    told: str,
) -> None:
    follower = await follower_of(cluster, leader, "n2")
    follower.staleness_ms, follower.applied = staleness_ms, 7
    async with gateway.get(ONE, headers=LOCAL) as response:
        assert response.status == 404
        assert response.headers["X-Replicad-Consistency"] == "local"
        assert response.headers["X-Replicad-Index"] == "7"
        assert response.headers["X-Replicad-Staleness-Ms"] == told
        assert response.headers["X-Replicad-Replica"] == "n2"


async def test_who_is_not_in_sync_is_asked_after_the_leader(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    await follower_of(cluster, leader, "n3")
    assert (await read(gateway, ONE, LOCAL))[2] == "n1"


async def test_a_session_read_never_shows_less_than_was_asked_for(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    await follower_of(cluster, leader, "n2")
    leader.forms["a"] = form("a")
    for _ in range(4):
        assert await read(gateway, ONE, session(1)) == (200, form("a"), "n1")
    assert (await read(gateway, ONE, session(0)))[2] == "n2"


async def test_a_session_read_waits_for_a_replica_to_reach_the_index(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    follower = await follower_of(cluster, leader, "n2")
    await leader.stop()
    reading = asyncio.create_task(read(gateway, ONE, session(1)))
    await follower.seen.wait()
    assert not reading.done()
    follower.forms["a"] = form("a")
    assert await reading == (200, form("a"), "n2")


async def test_a_session_read_gives_up_at_its_deadline(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader
) -> None:
    gateway = await serve(request_s=0.4)
    async with gateway.get(ONE, headers=session(9)) as response:
        assert response.status == 503
        assert "índice 9" in (await response.json())["message"]
        assert int(response.headers["Retry-After"]) > 0


async def test_a_local_read_needs_no_leader(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a")
    await follower_of(cluster, leader, "n2")
    assert (await read(gateway, ONE, LOCAL))[2] == "n2"
    for name in ("n1", "n2"):
        cluster.deregister(name)
    cluster.without_leader()
    await leader.stop()
    for path in (ONE, "/API/VerificaFormularioDuplicado/a", EVERY):
        status, _, replica = await read(gateway, path, LOCAL)
        assert (status, replica) == (200, "n2")


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.UNCONFIRMED, Fault.HANG])
async def test_who_does_not_answer_is_passed_over_and_then_avoided(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader, fault: Fault
) -> None:
    leader.forms["a"] = form("a")
    follower = await follower_of(cluster, leader, "n2")
    follower.faults.append(fault)
    for _ in range(3):
        assert await read(gateway, ONE, LOCAL) == (200, form("a"), "n1")
    assert not follower.faults


async def test_concurrent_local_reads_travel_together_and_get_their_own_answers(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms.update((f"f{n}", form(f"f{n}")) for n in range(0, 200, 2))
    follower = await follower_of(cluster, leader, "n2")
    paths = [f"/API/ObtenerUnFormulario/f{n}" for n in range(200)]
    answers = await asyncio.gather(*(read(gateway, path, LOCAL) for path in paths))
    assert [body for status, body, _ in answers if status == 200] == list(leader.forms.values())
    assert {replica for _, _, replica in answers} == {"n2"}
    assert max(follower.batches["gets"]) > 5
    assert max(follower.batches["gets"]) <= 64


async def test_session_reads_that_travel_together_wait_each_for_its_own_index(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    follower = await follower_of(cluster, leader, "n2")
    follower.forms["a"] = form("a")
    await leader.stop()
    waiting = [asyncio.create_task(read(gateway, ONE, session(2))) for _ in range(10)]
    await follower.seen.wait()
    async with asyncio.timeout(2):
        for _ in range(10):
            assert await read(gateway, ONE, session(1)) == (200, form("a"), "n2")
    assert not any(task.done() for task in waiting)
    follower.applied = 2
    assert await asyncio.gather(*waiting) == [(200, form("a"), "n2")] * 10


async def test_all_that_wait_for_a_replica_that_hangs_ask_another_one(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a")
    follower = await follower_of(cluster, leader, "n2")
    follower.faults.append(Fault.HANG)
    first = asyncio.create_task(read(gateway, ONE, LOCAL))
    await follower.seen.wait()
    others = [asyncio.create_task(read(gateway, ONE, LOCAL)) for _ in range(100)]
    async with asyncio.timeout(3):
        assert await asyncio.gather(first, *others) == [(200, form("a"), "n1")] * 101
    assert follower.batches["gets"] == []


async def test_nobody_answers_a_local_read(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.4)
    await leader.stop()
    async with gateway.get(ONE, headers=LOCAL) as response:
        assert response.status == 503
        assert "Ninguna réplica responde" in (await response.json())["message"]
