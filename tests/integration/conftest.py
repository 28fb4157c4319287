"""One cluster for each backend, shared by the behaviour tests: each leaves it whole and in sync."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.client import Client
from tests.support.cluster import Cluster
from tests.support.stack import BACKENDS, Stack


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "processes: needs a process for each replica and server")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what has no meaning inside one process."""
    dropped = [item for item in items if _lacks_processes(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def _lacks_processes(item: pytest.Item) -> bool:
    if item.get_closest_marker("processes") is None or not isinstance(item, pytest.Function):
        return False
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("cluster") != "native"


@pytest.fixture(scope="session", params=BACKENDS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A running cluster with two gateways; a container's file has one."""
    stack = Stack(tmp_path_factory.mktemp("cluster"), request.param)
    stack.up(*(() if request.param == "compose" else ("--gateways", "2")))
    yield Cluster(stack)
    stack.down()


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    """A client of the first gateway."""
    async with Client.open(cluster.url) as client:
        yield client


@pytest.fixture
async def restored(cluster: Cluster, client: Client) -> AsyncIterator[None]:
    """For tests that break something: whatever they leave is whole and in sync afterwards."""
    yield
    await cluster.restore(client)
