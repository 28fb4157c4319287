"""First start and adoption against the in-memory coordinator."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from replicad.coordination.bootstrap import adopt, initialise
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.core.bootstrap import Beginning
from replicad.core.cluster import Member
from replicad.errors import ConfigurationError, NotInitialisedError

REPLICAS = ("n1", "n2")


class RefusedError(Exception):
    """The operator said no."""


def member(node: str) -> Member:
    return Member(node, f"run-{node}", "http://x", f"disk-{node}", 0, 0, "", 0, "")


async def register(store: MemoryStore, *members: Member) -> None:
    for each in members:
        coordinator = MemoryCoordinator(store)
        await coordinator.start(lambda _view: None)
        await coordinator.register(partial(Member.from_json, each.to_json()))


def with_data(node: str) -> Member:
    return replace(
        member(node), last_index=5, last_epoch=2, last_digest="d", epoch=3, cluster_id="c"
    )


async def test_waits_for_the_last_replica() -> None:
    store = MemoryStore()
    await register(store, member("n1"))
    begun = asyncio.create_task(initialise(MemoryCoordinator(store), REPLICAS, 2, 10))
    await asyncio.sleep(0)
    assert not begun.done()
    await register(store, member("n2"))
    assert await begun
    assert store.config is not None
    assert store.config.replicas == REPLICAS


async def test_a_replica_that_never_comes_is_named() -> None:
    store = MemoryStore()
    await register(store, member("n1"))
    with pytest.raises(ConfigurationError, match="not registered after 0 s: n2"):
        await initialise(MemoryCoordinator(store), REPLICAS, 2, 0.05)
    assert store.config is None


async def test_a_second_time_changes_nothing_and_needs_no_replicas() -> None:
    store = MemoryStore()
    await register(store, *map(member, REPLICAS))
    assert await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)
    before = store.config
    for session in list(store.sessions):
        session.crash()
    assert not await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)
    assert store.config is before


async def test_another_configuration_is_refused() -> None:
    store = MemoryStore()
    await register(store, *map(member, REPLICAS))
    await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)
    with pytest.raises(ConfigurationError, match="exists with replicas n1, n2"):
        await initialise(MemoryCoordinator(store), REPLICAS, 1, 10)


async def test_data_without_state_names_the_operators_command() -> None:
    store = MemoryStore()
    await register(store, with_data("n1"), member("n2"))
    with pytest.raises(NotInitialisedError, match="replicad cluster adopt"):
        await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)


async def test_adoption_writes_what_was_confirmed() -> None:
    store = MemoryStore()
    await register(store, *map(with_data, REPLICAS))
    shown: list[Beginning] = []
    await adopt(MemoryCoordinator(store), REPLICAS, 2, 10, shown.append)
    assert (store.config, store.state) == (shown[0].config, shown[0].state)
    assert store.state is not None
    assert store.state.epoch == 3


async def test_adoption_writes_nothing_without_consent() -> None:
    store = MemoryStore()
    await register(store, *map(with_data, REPLICAS))

    def refuse(_plan: Beginning) -> None:
        raise RefusedError

    with pytest.raises(RefusedError):
        await adopt(MemoryCoordinator(store), REPLICAS, 2, 10, refuse)
    assert store.config is None


async def test_a_known_cluster_is_not_adopted() -> None:
    store = MemoryStore()
    await register(store, *map(member, REPLICAS))
    await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)
    with pytest.raises(ConfigurationError, match="nothing to adopt"):
        await adopt(MemoryCoordinator(store), REPLICAS, 2, 10, lambda _plan: None)


async def test_with_a_path_the_cluster_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.json"
    store = MemoryStore(path=path)
    await register(store, *map(member, REPLICAS))
    await initialise(MemoryCoordinator(store), REPLICAS, 2, 10)
    session = MemoryCoordinator(store)
    await session.start(lambda _view: None)
    assert store.state is not None
    assert await session.propose(replace(store.state, epoch=1, leader="n1"), 0) == 1

    later = MemoryStore(path=path)
    assert later.view() == replace(store.view(), members=())
    assert later.version == 1
