from __future__ import annotations

from typing import Any

import aiohttp

from tests.support.fake_leader import FakeCluster, FakeLeader

FIRST = {"epoch": 1, "index": 1, "time": "t1", "leader": "n1", "incarnation": "i1"}
SECOND = {
    "epoch": 3,
    "index": 9,
    "time": "t3",
    "leader": "n2",
    "incarnation": "i2",
    "reason": "n1 is gone",
    "previous_leader": "n1",
    "previous_epoch": 1,
    "isr_before": ["n1", "n2", "n3"],
    "isr_after": ["n2", "n3"],
    "leaderless_ms": 180,
}
OLDER = dict.fromkeys(
    ("reason", "previous_leader", "previous_epoch", "isr_before", "isr_after", "leaderless_ms")
)


async def failovers_of(gateway: aiohttp.ClientSession) -> Any:  # noqa: ANN401 (any JSON)
    async with gateway.get("/v1/cluster/history") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return (await response.json())["failovers"]


async def test_the_newest_election_comes_first(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    other = await cluster.replica("n2")
    leader.history = {"epochs": [FIRST], "kept": [{"epoch": 3, "first": 8, "entries": 4}]}
    other.history = {"epochs": [SECOND, FIRST], "kept": []}
    assert await failovers_of(gateway) == [
        {**SECOND, "truncated": {"n1": 4, "n2": 0}},
        {**FIRST, **OLDER, "truncated": {"n1": 0, "n2": 0}},
    ]


async def test_cuts_of_one_epoch_are_added_up(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    kept = [{"epoch": epoch, "first": 2, "entries": 2} for epoch in (1, 1, None, 7)]
    leader.history = {"epochs": [FIRST], "kept": kept}
    (failover,) = await failovers_of(gateway)
    assert failover["truncated"] == {"n1": 4}


async def test_who_does_not_answer_is_not_said_to_have_cut_nothing(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    other = await cluster.replica("n2")
    leader.history = {"epochs": [FIRST], "kept": []}
    await other.stop()
    (failover,) = await failovers_of(gateway)
    assert failover["truncated"] == {"n1": 0, "n2": None}


async def test_another_replica_at_a_known_address_is_not_mistaken(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.history = {"epochs": [FIRST], "kept": []}
    leader.name = "n2"
    assert await failovers_of(gateway) == []
