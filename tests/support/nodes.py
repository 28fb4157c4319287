"""Drivers and nodes on adapters in memory, with real files, all in the test's own process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

import structlog

from replicad.broker.memory import MemoryBroker, MemoryExchange
from replicad.coordination.bootstrap import initialise
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.core.cluster import ClusterConfig, ClusterState, Disk
from replicad.core.context import Context, Identity, Settings
from replicad.core.effects import Committed, Effect
from replicad.core.events import BrokerChanged, Event, MessageReceived, ViewSeen
from replicad.core.replica import Replica
from replicad.core.retention import KEEP_ALL
from replicad.core.write import WriteRequest
from replicad.node.daemon import Node, NodeSettings
from replicad.node.driver import Driver
from replicad.node.gates import Json
from replicad.node.metrics import StatusCollector
from replicad.node.snapshots import Snapshots
from replicad.node.store import Store
from replicad.node.synclog import SyncLog
from replicad.node.upkeep import Upkeep
from replicad.stack.ports import LOOPBACK, free_port
from replicad.storage.datadir import DataDirectory
from tests.support.waiting import eventually

CLUSTER_ID = "test"
_PLENTY = 1 << 40


class FaultyStore(Store):
    """A real store whose disk can be made to fail.

    Attributes:
        append_error: Raised by the next append, before anything is written.
        sync_error: Raised by every sync.
        room: What the disk says is free.
    """

    append_error: BaseException | None = None
    sync_error: BaseException | None = None
    room = _PLENTY

    def append(self, first: int, lines: bytes) -> None:
        error, self.append_error = self.append_error, None
        if error is not None:
            raise error
        super().append(first, lines)

    def sync(self) -> int:
        if self.sync_error is not None:
            raise self.sync_error
        return super().sync()

    def free_bytes(self) -> int:
        return self.room


class RecordedReplica(Replica):
    """A core that remembers what it was told."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events: list[Event] = []

    def step(self, event: Event, *, now: float, unix_ms: int) -> list[Effect]:
        self.events.append(event)
        return super().step(event, now=now, unix_ms=unix_ms)


@dataclass(slots=True)
class Driven:
    """The only replica of a cluster, without a node around its driver. What NodeHttp serves.

    Attributes:
        failures: What the driver reported.
    """

    driver: Driver
    replica: RecordedReplica
    store: FaultyStore
    coordinator: MemoryCoordinator
    failures: list[BaseException] = field(default_factory=list)

    def describe(self) -> Json:
        return {"name": "n1", "epoch": self.driver.epoch}

    async def leads(self) -> int:
        """Wait until it leads and accepts writes; returns the epoch."""
        await eventually(lambda: self.driver.status().refusal is None)
        return self.driver.epoch

    async def store_all(self, *writes: WriteRequest) -> list[Committed]:
        """Write what must be accepted; returns when it is applied as well."""
        answer = await self.driver.write(await self.leads(), writes)
        self.driver.status()  # Tells of what is applied, so sees to it.
        results = [result for result in answer.results if isinstance(result, Committed)]
        assert len(results) == len(writes), answer
        return results


@asynccontextmanager
async def driven(
    path: Path, coordinator_type: type[MemoryCoordinator] = MemoryCoordinator
) -> AsyncIterator[Driven]:
    """Run the one replica of a cluster of one in `path`, and abandon it at the end."""
    directory = DataDirectory.open(path, "n1")
    directory.adopt_cluster(CLUSTER_ID)
    store = FaultyStore(directory)
    disk = Disk("n1", directory.disk_id)
    config = ClusterConfig(CLUSTER_ID, ("n1",), 1)
    coordinated = MemoryStore(
        config, ClusterState(directory.epoch, None, None, None, (disk,), "first"), 0
    )
    context = Context(
        Identity(disk, "run-1", "http://n1"),
        config,
        store.log,
        epoch=directory.epoch,
        commit=store.commit,
        applied=store.commit,
        last_time=store.last_time,
        settings=Settings(candidate_delay_max_s=0.0),
        rng=Random(1),  # noqa: S311 - reproducible
    )
    broker = MemoryBroker(MemoryExchange(), "n1")
    coordinator = coordinator_type(coordinated)
    replica = RecordedReplica(context)
    sync_log = SyncLog(path / "sync.log", "n1")
    failures: list[BaseException] = []
    log = structlog.get_logger("test")
    upkeep = Upkeep(store, Snapshots(path), CLUSTER_ID, KEEP_ALL, list, log)
    driver = Driver(
        replica,
        store,
        upkeep,
        broker,
        coordinator,
        sync_log,
        log,
        failures.append,
    )
    driver.metrics.registry.register(
        StatusCollector(driver.status, lambda: store.records.transactions)
    )
    await broker.start(
        lambda message: driver.feed(MessageReceived(message)),
        lambda up: driver.feed(BrokerChanged(up)),
    )
    await coordinator.start(lambda view: driver.feed(ViewSeen(view)))
    try:
        yield Driven(driver, replica, store, coordinator, failures)
    finally:
        await driver.stop()
        await broker.stop()
        await coordinator.stop()
        sync_log.close()
        store.abandon()
        directory.close()


class Nodes:
    """Replicas that share one process, one broker and one coordinator.

    Attributes:
        running: Those that run now, by name.
        retention: What those that are made from now on keep of their logs.
    """

    def __init__(self, root: Path, names: tuple[str, ...]) -> None:
        """Start nothing yet."""
        self.names = names
        self.coordinated = MemoryStore()
        self.running: dict[str, Node] = {}
        self.retention = KEEP_ALL
        self._root = root
        self._exchange = MemoryExchange()
        self._urls: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, *names: str) -> AsyncIterator[Self]:
        """No replica runs yet; all that do at the end are stopped."""
        nodes = cls(root, names)
        try:
            yield nodes
        finally:
            for name in tuple(nodes.running):
                await nodes.stop(name)

    def data_dir(self, name: str) -> Path:
        return self._root / name

    def url(self, name: str) -> str:
        return self._urls[name]

    def make(
        self,
        name: str,
        *,
        broker: MemoryBroker | None = None,
        coordinator: MemoryCoordinator | None = None,
        port: int | None = None,
    ) -> Node:
        """One run of a replica, on these adapters or ordinary ones."""
        port = port or free_port(())
        self._urls[name] = f"http://{LOOPBACK}:{port}"
        settings = NodeSettings(
            name=name,
            cluster=CLUSTER_ID,
            data_dir=self.data_dir(name),
            zookeeper="",
            amqp="",
            host=LOOPBACK,
            port=port,
            url=self.url(name),
            retention=self.retention,
        )
        return Node(
            settings,
            broker or MemoryBroker(self._exchange, name),
            coordinator or MemoryCoordinator(self.coordinated),
            incarnation=secrets.token_hex(8),
        )

    async def start(self, name: str) -> Node:
        node = self.running[name] = self.make(name)
        await node.start()
        return node

    async def stop(self, name: str) -> None:
        await self.running.pop(name).stop()

    async def crash(self, name: str) -> None:
        await self.running.pop(name).crash()

    async def start_cluster(self, min_in_sync: int) -> None:
        """Start all replicas and make them a cluster."""
        for name in self.names:
            await self.start(name)
        created = await initialise(
            MemoryCoordinator(self.coordinated), self.names, min_in_sync, timeout_s=10.0
        )
        assert created

    async def leader(self) -> Driver:
        """Wait until some replica leads and accepts writes."""
        await eventually(lambda: bool(self._leaders()))
        return self._leaders()[0]

    def _leaders(self) -> list[Driver]:
        drivers = [node.driver for node in self.running.values() if node.driver is not None]
        return [driver for driver in drivers if driver.status().refusal is None]

    async def write(self, *writes: WriteRequest) -> None:
        """Have the leader commit and apply what it must accept."""
        leader = await self.leader()
        answer = await leader.write(leader.epoch, writes)
        leader.status()  # Tells of what is applied, so sees to it.
        assert all(isinstance(result, Committed) for result in answer.results), answer

    async def level(self) -> None:
        """Wait until all replicas run, are in sync, and hold and apply the same log."""

        def same() -> bool:
            drivers = [node.driver for node in self.running.values()]
            states = [driver.status() for driver in drivers if driver is not None]
            ends = {(s.last_index, s.digest, s.commit_index, s.applied_index) for s in states}
            isr = self.coordinated.state.isr if self.coordinated.state else ()
            return len(states) == len(isr) == len(self.names) and len(ends) == 1

        await eventually(same)
