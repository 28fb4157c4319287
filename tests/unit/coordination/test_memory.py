from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.errors import CoordinationError
from tests.unit.coordination.contract import (
    CONFIG,
    ELECTED,
    FOUNDED,
    MEMBER,
    CoordinatorContract,
    NewSession,
    Session,
    opened,
)


class TestMemoryCoordinator(CoordinatorContract):
    @pytest.fixture
    async def new_session(self) -> AsyncIterator[NewSession]:
        sessions: list[Session] = []
        yield partial(opened, partial(MemoryCoordinator, MemoryStore()), sessions)
        for session in sessions:
            await session.coordinator.stop()


async def test_member_vanishes_with_a_crash() -> None:
    store, sessions = MemoryStore(), list[Session]()
    crashing = MemoryCoordinator(store)
    await opened(lambda: crashing, sessions)
    watcher = await opened(lambda: MemoryCoordinator(store), sessions)
    await crashing.register(lambda: MEMBER)
    await watcher.sees(MEMBER)
    crashing.crash()
    await watcher.sees()
    with pytest.raises(CoordinationError):
        await crashing.read()


async def test_store_outlives_its_sessions() -> None:
    store = MemoryStore(config=CONFIG, state=FOUNDED, version=4)
    first = await opened(lambda: MemoryCoordinator(store), [])
    assert await first.coordinator.propose(ELECTED, 4) == 5
    await first.coordinator.stop()
    second = await opened(lambda: MemoryCoordinator(store), [])
    assert (second.view.config, second.view.state, second.view.version) == (CONFIG, ELECTED, 5)
    await second.coordinator.stop()
