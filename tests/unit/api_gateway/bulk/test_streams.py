"""Arrays whose replica goes away in the middle."""

from __future__ import annotations

import aiohttp
import pytest

from api_gateway.bulk import streams as module
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form

EVERY = "/API/ObtenerTodosLosFormularios"
FORMS = {key: form(key, genero="x") for key in "abc"}
ARRAY = b"[" + b",".join(FORMS.values()) + b"]"


@pytest.mark.parametrize("path", [EVERY, "/API/ObtenerGeneros/x"])
async def test_another_replica_completes_it(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader, path: str
) -> None:
    leader.forms = dict(FORMS)
    other = await cluster.replica("n2")
    other.forms = {**FORMS, "d": form("d", genero="x")}  # It may be further by now.
    leader.faults.append(Fault.BREAK_STREAM)
    async with gateway.get(path) as response:
        assert await response.read() == ARRAY
        assert response.headers["X-Replicad-Index"] == "3"
    assert (leader.reads, other.reads) == (0, 1)


async def test_only_a_replica_that_has_applied_as_much_completes_it(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms = dict(FORMS)
    other = await cluster.replica("n2")
    other.forms = {"a": FORMS["a"]}
    leader.faults.append(Fault.BREAK_STREAM)
    async with gateway.get(EVERY) as response:
        assert await response.read() == ARRAY
    assert (leader.reads, other.reads) == (1, 0)


async def test_a_replica_that_falls_silent_is_given_up(
    gateway: aiohttp.ClientSession,
    cluster: FakeCluster,
    leader: FakeLeader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.05)
    leader.forms = dict(FORMS)
    other = await cluster.replica("n2")
    other.forms = dict(FORMS)
    leader.faults.append(Fault.STALL_STREAM)
    async with gateway.get(EVERY) as response:
        assert await response.read() == ARRAY
    assert other.reads == 1


async def test_a_shorter_array_does_not_complete_a_longer_one(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.forms = dict(FORMS)
    other = await cluster.replica("n2")
    other.forms, other.applied = {}, 3
    leader.faults.append(Fault.BREAK_STREAM)
    with pytest.raises(aiohttp.ClientError):
        async with gateway.get(EVERY) as response:
            await response.read()


async def test_it_breaks_off_when_it_cannot_be_completed(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms = dict(FORMS)
    leader.faults.extend([Fault.BREAK_STREAM] * 4)
    with pytest.raises(aiohttp.ClientError):
        async with gateway.get(EVERY) as response:
            await response.read()
    assert not leader.faults
