from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from replicad.broker.memory import MemoryBroker, MemoryExchange
from replicad.core.feed import LoggedChange
from tests.support.waiting import eventually
from tests.unit.broker.contract import ACK, APPEND, BrokerContract, NewNode, Received, started


class MemoryTaken:
    """Another system in the same process."""

    def __init__(self, exchange: MemoryExchange) -> None:
        self.bodies: list[bytes] = []
        self._exchange = exchange

    async def begin(self) -> None:
        self._exchange.on_changes = self._take

    def _take(self, changes: Sequence[LoggedChange]) -> None:
        self.bodies += [change.encode() for change in changes]


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    def exchange(self) -> MemoryExchange:
        return MemoryExchange()

    @pytest.fixture
    def taken(self, exchange: MemoryExchange) -> MemoryTaken:
        return MemoryTaken(exchange)

    @pytest.fixture
    async def new_node(self, exchange: MemoryExchange) -> AsyncIterator[NewNode]:
        nodes: list[Received] = []
        yield partial(started, partial(MemoryBroker, exchange), nodes)
        for node in nodes:
            await node.broker.stop()


async def test_crashed_node_loses_what_was_on_its_way() -> None:
    exchange, nodes = MemoryExchange(), list[Received]()
    crashing = MemoryBroker(exchange, "n2")
    n1 = await started(lambda _: MemoryBroker(exchange, "n1"), nodes, "n1")
    n2 = await started(lambda _: crashing, nodes, "n2")
    n1.broker.send("n2", APPEND)
    crashing.crash()
    successor = await started(lambda _: MemoryBroker(exchange, "n2"), nodes, "n2")
    n1.broker.send("n2", ACK)
    await eventually(lambda: successor.messages == [ACK])
    assert n2.messages == []
