"""What each replica holds of one record, through a gateway over replicas that fail on demand."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from api_gateway.routes import receipts as module
from tests.support.fake_leader import FORMS, FakeCluster, FakeLeader, Fault
from tests.unit.api_gateway.reading.test_changes import poll_problem

PATH = f"/v1/collections/{FORMS}/records/a"
HELD = {"version": 5, "sha256": "cd" * 32}


@pytest.fixture
async def replicas(cluster: FakeCluster, leader: FakeLeader) -> list[FakeLeader]:
    """Three replicas that hold the same record; n1 leads."""
    everyone = [leader, await cluster.replica("n2"), await cluster.replica("n3")]
    for replica, applied in zip(everyone, (6, 6, 7), strict=True):
        replica.record_digest, replica.applied = HELD, applied
    return everyone


async def verify(gateway: aiohttp.ClientSession) -> dict[str, Any]:
    async with gateway.get(PATH, params={"verify": "all"}) as response:
        assert response.status == 200
        assert response.headers["X-Replicad-Index"] == "6"
        answer: dict[str, Any] = await response.json()
        return answer


async def test_all_agree(gateway: aiohttp.ClientSession, replicas: list[FakeLeader]) -> None:
    assert await verify(gateway) == {
        "collection": FORMS,
        "id": "a",
        "agree": True,
        "replicas": {
            "n1": {**HELD, "applied_index": 6},
            "n2": {**HELD, "applied_index": 6},
            "n3": {**HELD, "applied_index": 7},
        },
    }


@pytest.mark.parametrize("other", [{**HELD, "version": 4}, {**HELD, "sha256": None}])
async def test_one_differs(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], other: dict[str, Any]
) -> None:
    replicas[1].record_digest = other
    answer = await verify(gateway)
    assert not answer["agree"]
    assert answer["replicas"]["n2"] == {**other, "applied_index": 6}


async def test_one_is_behind(gateway: aiohttp.ClientSession, replicas: list[FakeLeader]) -> None:
    replicas[2].applied = 5
    answer = await verify(gateway)
    assert not answer["agree"]
    assert answer["replicas"]["n3"] == {"error": "behind"}


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.RESET, Fault.UNCONFIRMED])
async def test_one_does_not_answer(
    gateway: aiohttp.ClientSession,
    replicas: list[FakeLeader],
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REPLICA_S", 0.2)
    replicas[2].faults.extend([fault] * 2)  # What breaks at once is asked again by aiohttp.
    answer = await verify(gateway)
    assert not answer["agree"]
    assert answer["replicas"]["n3"] == {"error": "unreachable"}
    assert answer["replicas"]["n1"] == {**HELD, "applied_index": 6}


@pytest.mark.parametrize("body", [{}, {"version": 1}, []])
async def test_one_answers_nonsense(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader], body: dict[str, Any]
) -> None:
    replicas[2].record_digest = body
    assert (await verify(gateway))["replicas"]["n3"] == {"error": "unreachable"}


async def test_one_was_never_there(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    leader.record_digest, leader.applied = HELD, 6
    assert (await verify(gateway))["replicas"] == {
        "n1": {**HELD, "applied_index": 6},
        "n2": {"error": "unreachable"},
        "n3": {"error": "unreachable"},
    }


@pytest.mark.parametrize(
    "query", ["verify=", "verify=some", "verify=all&verify=all", "verify=all&at_index=1"]
)
async def test_all_is_the_only_choice(gateway: aiohttp.ClientSession, query: str) -> None:
    assert await poll_problem(gateway, PATH, query) == (400, "urn:replicad:invalid-query")


async def test_there_is_no_such_collection(
    gateway: aiohttp.ClientSession, replicas: list[FakeLeader]
) -> None:
    refused = await poll_problem(gateway, "/v1/collections/none/records/a", "verify=all")
    assert refused == (404, "urn:replicad:no-such-collection")
