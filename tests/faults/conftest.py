"""One cluster for all fault tests, in a network and on file systems of its own.

Each test leaves it whole and in sync. One that cannot be mended is thrown away, so that a failure
does not spread to the tests after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.support import tools
from tests.support.faults.cluster import FaultCluster
from tests.support.isolation import isolated


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes 20 s or more; run by `make faults`")


class Clusters:
    """At most one cluster at a time."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        """Make none yet."""
        self._factory = factory
        self._running = ExitStack()
        self._cluster: FaultCluster | None = None

    def get(self) -> FaultCluster:
        """The cluster, made if there is none."""
        if self._cluster is None:
            directory = self._factory.mktemp("faults")
            self._cluster = self._running.enter_context(FaultCluster.running(directory))
        return self._cluster

    def discard(self) -> None:
        """End it."""
        self._cluster = None
        self._running.close()


@pytest.fixture(scope="package")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Where the tests' cluster comes from; fails, and says why, where faults cannot be injected."""
    tools.require()
    with isolated():
        clusters = Clusters(tmp_path_factory)
        try:
            yield clusters
        finally:
            clusters.discard()


@pytest.fixture
async def cluster(clusters: Clusters) -> AsyncIterator[FaultCluster]:
    """Three replicas in sync, two gateways."""
    cluster = clusters.get()
    yield cluster
    try:
        await cluster.mend()
    except BaseException:
        clusters.discard()
        raise
