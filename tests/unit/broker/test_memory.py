from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from replicad.broker.memory import MemoryBroker, MemoryExchange
from tests.support.waiting import eventually
from tests.unit.broker.contract import ACK, APPEND, BrokerContract, NewNode, Received, started


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    async def new_node(self) -> AsyncIterator[NewNode]:
        nodes: list[Received] = []
        yield partial(started, partial(MemoryBroker, MemoryExchange()), nodes)
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
