"""Two gateways that share what they store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from replicad.client import Client, Collection
from tests.support.fake_gateway import FakeGateway, FakeStore


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def gateways(store: FakeStore) -> AsyncIterator[list[FakeGateway]]:
    async with FakeGateway.running(store) as one, FakeGateway.running(store) as other:
        yield [one, other]


@pytest.fixture
async def collection(gateways: list[FakeGateway]) -> AsyncIterator[Collection]:
    """A client that goes to the first gateway, as long as it answers."""
    async with Client([gateway.url for gateway in gateways], timeout_s=2.0) as client:
        yield client.collection("c")
