from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from replicad.broker.rabbitmq import RabbitBroker
from replicad.broker.rabbitmq_wire import answer
from replicad.errors import BrokerError
from tests.support.waiting import eventually


class Session:
    """Carries nothing until it is lost."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.is_heard = True
        self.is_lost_at_the_end = False

    def follow_all(self, following: bool) -> None:
        pass

    async def run(self, on_status: Callable[[bool], None]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            await self.lost.wait()
        except asyncio.CancelledError:
            if not self.is_lost_at_the_end:
                raise
        raise BrokerError("lost")

    async def close(self) -> None:
        if not self.is_heard:
            with suppress(BrokerError):
                await answer(asyncio.Event().wait(), 0.01)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """All that were opened."""
    opened: list[Session] = []

    async def open_session(stack: AsyncExitStack, *_: object, follow_all: bool) -> Session:
        opened.append(Session())
        stack.push_async_callback(opened[-1].close)
        return opened[-1]

    monkeypatch.setattr("replicad.broker.rabbitmq.open_session", open_session)
    return opened


@pytest.fixture
async def broker(sessions: list[Session]) -> AsyncIterator[RabbitBroker]:
    """One that has a session."""
    broker = RabbitBroker("amqp://nowhere", "c", "n1", "abc")
    await broker.start(lambda _: None, lambda _: None)
    await eventually(lambda: len(sessions) == 1)
    yield broker
    await broker.stop()


def connecting() -> asyncio.Task[object] | None:
    """The task that keeps the connection."""
    return next((task for task in asyncio.all_tasks() if task.get_name() == "rabbitmq"), None)


async def test_connects_again_whenever_a_session_is_lost(
    broker: RabbitBroker, sessions: list[Session]
) -> None:
    """Also when RabbitMQ does not even answer that it closes what is left of it."""
    for number in range(1, 4):
        await eventually(lambda: len(sessions) == number)  # noqa: B023 - called here.
        sessions[-1].is_heard = False
        sessions[-1].lost.set()
    await eventually(lambda: len(sessions) == 4)


async def test_stops_although_the_session_is_lost_meanwhile(
    broker: RabbitBroker, sessions: list[Session]
) -> None:
    sessions[0].is_lost_at_the_end = True
    await broker.stop()
    assert connecting() is None


async def test_tells_when_nobody_connects_any_more(broker: RabbitBroker) -> None:
    task = connecting()
    assert task is not None
    task.cancel()
    with pytest.raises(RuntimeError, match="nobody connects"):
        await broker.failed
