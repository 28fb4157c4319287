from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from api_gateway.app import Deadlines, serve_gateway
from replicad.coordination.memory import MemoryCoordinator
from tests.support.fake_leader import FakeCluster, FakeLeader, one_leader
from tests.support.gateway import Serve, client_of


@pytest.fixture
async def led() -> AsyncIterator[tuple[FakeCluster, FakeLeader]]:
    async with one_leader() as both:
        yield both


@pytest.fixture
def cluster(led: tuple[FakeCluster, FakeLeader]) -> FakeCluster:
    return led[0]


@pytest.fixture
def leader(led: tuple[FakeCluster, FakeLeader]) -> FakeLeader:
    return led[1]


@pytest.fixture
async def serve(cluster: FakeCluster) -> AsyncIterator[Serve]:
    """Starts gateways on the cluster, and gives a client of each."""
    async with AsyncExitStack() as stack:

        async def serve_one(
            *,
            request_s: float = 5.0,
            body_s: float = 5.0,
            coordinator: MemoryCoordinator | None = None,
        ) -> aiohttp.ClientSession:
            runner = await serve_gateway(
                coordinator or MemoryCoordinator(cluster.store),
                host="127.0.0.1",
                port=0,
                deadlines=Deadlines(request_s=request_s, body_s=body_s),
            )
            stack.push_async_callback(runner.cleanup)
            return await stack.enter_async_context(client_of(runner))

        yield serve_one


@pytest.fixture
async def gateway(serve: Serve) -> aiohttp.ClientSession:
    """A client of a gateway with ordinary deadlines."""
    return await serve()
