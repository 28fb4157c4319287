"""One run of one replica: opens the disk, joins the cluster, serves, and ends.

open and lock the data directory, recover the log -> serve HTTP -> repair the disk if it is suspect
    -> register -> wait for config and state -> bind the directory to the cluster -> run the core
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Final

import structlog
from aiohttp import web

from replicad.broker.port import Broker
from replicad.coordination.port import Coordinator, View
from replicad.core.cluster import ClusterConfig, Disk, Member
from replicad.core.context import Context, Identity, Settings
from replicad.core.events import BrokerChanged, MessageReceived, ViewSeen
from replicad.core.messages import Message
from replicad.core.replica import Replica
from replicad.core.retention import KEEP_ALL, Retention
from replicad.errors import (
    ConfigurationError,
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    DiskSuspectError,
    NotInitialisedError,
    ProtocolViolationError,
    ReplicadError,
)
from replicad.httpd.runner import Runner
from replicad.node.change_exchange import ChangeExchange
from replicad.node.driver import Driver
from replicad.node.gates import Json
from replicad.node.http import NodeHttp
from replicad.node.metrics import StatusCollector
from replicad.node.repair import DiskRepair
from replicad.node.snapshots import Snapshots
from replicad.node.store import Store
from replicad.node.synclog import SyncLog
from replicad.node.upkeep import Upkeep
from replicad.storage.datadir import DataDirectory, Trouble
from replicad.storage.quarantine import is_whole

SHUTDOWN_S: Final = 1.0
# Longer than the core takes to give up on handing over.
LEAVE_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What one replica's process is told.

    Attributes:
        name: The replica's name, one of the cluster's configured replicas.
        cluster: The cluster's name in ZooKeeper and RabbitMQ.
        data_dir: Its own directory.
        zookeeper: host:port of the servers, separated by commas.
        amqp: URL of RabbitMQ, with its password.
        host, port: Where to listen.
        url: Where gateways reach it.
        watchdog_s: The process ends when its event loop hangs for so long.
        retention: How much of the log to keep; all of it unless told otherwise.
    """

    name: str
    cluster: str
    data_dir: Path
    zookeeper: str
    amqp: str
    host: str
    port: int
    url: str
    watchdog_s: float = 5.0
    retention: Retention = KEEP_ALL


class Node:
    """One run of one replica, on given adapters.

    Attributes:
        driver: Runs the core; None until the cluster is known.
        failed: What made it impossible to go on, or None.
        ended: Set when it has failed.
    """

    def __init__(
        self,
        settings: NodeSettings,
        broker: Broker,
        coordinator: Coordinator,
        *,
        incarnation: str,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the adapters, not yet started.

        Args:
            settings: What this replica is told.
            broker: To the other replicas.
            coordinator: To ZooKeeper.
            incarnation: Random for each run.
            progress: Called again and again during long work on the event loop's thread.
        """
        self._settings = settings
        self._progress = progress
        self._broker = broker
        self._coordinator = coordinator
        self._incarnation = incarnation
        self._log = structlog.get_logger("replicad.node").bind(node=settings.name)
        self._runner: web.AppRunner | None = None
        self._directory: DataDirectory | None = None
        self._store: Store | None = None
        self._sync_log: SyncLog | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._broker_up = False
        self._view: View | None = None
        self._registered = False
        self._warned = False
        self._crashed = False
        self.driver: Driver | None = None
        self.failed: BaseException | None = None
        self.ended = asyncio.Event()

    async def start(self) -> None:
        """Lock the directory, recover the log, serve HTTP and register.

        A suspect disk is repaired from other replicas first, for as long as that takes; it is not
        registered when `ended` is set meanwhile.

        Raises:
            ReplicadError: It cannot run like this; everything is released again.
            OSError: It cannot listen.
        """
        try:
            self._directory = DataDirectory.open(self._settings.data_dir, self._settings.name)
            self._snapshots = Snapshots(self._settings.data_dir)
            sync_log = self._settings.data_dir / "sync.log"
            self._sync_log = SyncLog(sync_log, self._settings.name)
            self._store = self._open_trusted(self._directory)
            await self._serve()
            await self._coordinator.start(self._on_view)
            if self._directory.suspicion is not None:
                if not await self._repaired(self._directory, self._sync_log):
                    return
                self._store = self._open_store(self._directory)
            await self._broker.start(self._on_message, self._on_broker_status)
            await self._coordinator.register(self._describe_member)
            self._registered = True
            if self._view is not None:
                self._on_view(self._view)
        except (ReplicadError, OSError) as error:
            self.failed = error
            await self.stop()
            raise

    async def stop(self) -> None:
        """Hand over, leave the cluster, then close everything."""
        if self.driver is not None and self.failed is None and not self._crashed:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self.driver.leave()
        async with AsyncExitStack() as last_things:  # Done in reverse order, whatever fails.
            last_things.callback(self._release)
            last_things.callback(self._note_damage)
            last_things.callback(self._close_store)
            if self._runner is not None:
                last_things.push_async_callback(self._runner.cleanup)
            last_things.push_async_callback(self._broker.stop)
            if self.driver is not None:
                last_things.push_async_callback(self.driver.stop)
            if self._publishing is not None:
                self._publishing.cancel()
                await asyncio.wait({self._publishing})
            await self._coordinator.stop()

    async def crash(self) -> None:
        """Be gone as after SIGKILL: nothing is flushed, synced or said good-bye to."""
        self._crashed = True
        if self.driver is not None:
            self.driver.abandon()
        await self.stop()

    def end_with(self, part: asyncio.Future[None]) -> None:
        """Fail when `part`, something that this node depends on, completes with an error."""

        def on_done(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self._fail(error)

        part.add_done_callback(on_done)

    def describe(self) -> Json:
        """What /internal/status says: see docs/protocol.md."""
        identity: Json = {"name": self._settings.name, "url": self._settings.url}
        if self.driver is None:
            suspect = self._directory is not None and self._directory.suspicion is not None
            reason = "damaged-disk" if suspect else "no-cluster"
            return {**identity, "role": "waiting", "writable": False, "reason": reason}
        status = self.driver.status()
        return {
            **identity,
            "role": status.role,
            "epoch": status.epoch,
            "leader": status.leader,
            "last_index": status.last_index,
            "last_epoch": self.driver.store.log.last_epoch,
            "commit_index": status.commit_index,
            "applied_index": status.applied_index,
            "digest": status.digest.hex(),
            "isr": status.isr,
            "min_in_sync": self.driver.min_in_sync,
            "writable": status.refusal is None,
            "reason": status.refusal.value if status.refusal else "",
            "scrub": self.driver.scrub.last.describe() if self.driver.scrub.last else None,
            "followers": {
                node: {
                    "matched": follower.matched,
                    "last_contact_ms": round(follower.last_contact_s * 1000),
                }
                for node, follower in status.followers.items()
            },
        }

    # -- starting -----------------------------------------------------------------------------

    def _open_trusted(self, directory: DataDirectory) -> Store | None:
        """The store; None if the directory belongs to no cluster yet, or its disk is suspect."""
        suspicion = directory.suspicion
        if suspicion is not None and suspicion.trouble is not Trouble.CORRUPT:
            return None
        if not directory.cluster_id:
            return None
        try:
            if suspicion is not None and not is_whole(directory.path, directory.cluster_id):
                return None
            store = self._open_store(directory)
        except CorruptLogError as error:
            directory.suspect(Trouble.CORRUPT, str(error))
            return None
        if suspicion is not None:
            # What was read wrong once reads well now: an operator has restored it, perhaps.
            directory.trust()
        return store

    async def _repaired(self, directory: DataDirectory, sync_log: SyncLog) -> bool:
        """Repair a suspect disk; False when the process is told to end meanwhile."""
        repair = asyncio.ensure_future(
            DiskRepair(directory, self._coordinator, sync_log, self._log).run()
        )
        ended = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait({repair, ended}, return_when=asyncio.FIRST_COMPLETED)
            if repair.done():
                repair.result()
            return repair.done()
        finally:
            repair.cancel()
            ended.cancel()
            await asyncio.wait({repair, ended})

    def _open_store(self, directory: DataDirectory) -> Store:
        store = Store(directory, progress=self._progress)
        self._log.info(
            "log recovered",
            last=store.log.last,
            commit=store.commit,
            epoch=directory.epoch,
            cut_bytes=store.cut_bytes,
        )
        return store

    async def _serve(self) -> None:
        http = NodeHttp(self, self._settings.name, self._settings.data_dir)
        app = http.application()
        app.add_routes(self._snapshots.routes())
        self._runner = Runner(
            app,
            http.usual(),
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            auto_decompress=False,  # Gateways send plain bytes; anything else is malformed.
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, self._settings.host, self._settings.port).start()

    def _describe_member(self) -> Member:
        """What this replica registers: true now, and asked again for each new session."""
        directory = self._directory
        if directory is None:
            raise ProtocolViolationError("only a started node registers")
        log = self._store.log if self._store else None
        return Member(
            node=self._settings.name,
            incarnation=self._incarnation,
            url=self._settings.url,
            disk_id=directory.disk_id,
            last_index=log.last if log else 0,
            last_epoch=log.last_epoch if log else 0,
            last_digest=log.last_point.digest.hex() if log and log.last else "",
            epoch=directory.epoch,
            cluster_id=directory.cluster_id,
        )

    def _on_view(self, view: View) -> None:
        self._view = view
        # Not before it is registered: who is elected unregistered counts as dead.
        if self.failed is not None or not self._registered:
            return
        try:
            if self.driver is None:
                self._join(view)
        except (ReplicadError, OSError) as error:
            self._fail(error)
            return
        if self.driver is not None:
            self.driver.feed(ViewSeen(view))

    def _join(self, view: View) -> None:
        """Begin to run the core, as soon as the coordinator knows the cluster."""
        directory = self._directory
        if directory is None:
            return
        if view.config is None or view.state is None:
            self._refuse_without_state(directory)
            return
        if self._settings.name not in view.config.replicas:
            raise ConfigurationError(
                f"{self._settings.name!r} is none of the cluster's replicas {view.config.replicas}"
            )
        directory.adopt_cluster(view.config.cluster_id)
        if self._store is None:
            self._store = self._open_store(directory)
        self.driver = self._make_driver(directory, view.config, self._store)
        self.driver.feed(BrokerChanged(self._broker_up))

    def _refuse_without_state(self, directory: DataDirectory) -> None:
        if directory.cluster_id and not self._warned:
            self._warned = True
            error = NotInitialisedError(
                f"{directory.path} holds data of cluster {directory.cluster_id}, but ZooKeeper "
                f"knows no cluster {self._settings.cluster!r}. If its state is lost for good, "
                "start all replicas and run: replicad cluster adopt"
            )
            self._log.error("waiting", reason=str(error))

    def _make_driver(self, directory: DataDirectory, config: ClusterConfig, store: Store) -> Driver:
        disk = Disk(self._settings.name, directory.disk_id)
        context = Context(
            Identity(disk, self._incarnation, self._settings.url),
            config,
            store.log,
            epoch=directory.epoch,
            commit=store.commit,
            applied=store.commit,
            last_time=store.last_time,
            settings=Settings(),
            rng=SystemRandom(),
        )
        if self._sync_log is None:
            raise ConfigurationError("the node is not started")
        upkeep = Upkeep(
            store,
            self._snapshots,
            config.cluster_id,
            self._settings.retention,
            self._peer_urls,
            self._log,
        )
        driver = Driver(
            Replica(context),
            store,
            upkeep,
            self._broker,
            self._coordinator,
            self._sync_log,
            self._log,
            self._fail,
        )
        driver.metrics.registry.register(
            StatusCollector(driver.status, lambda: store.records.transactions)
        )
        self._publish_changes(driver, self._sync_log)
        return driver

    def _publish_changes(self, driver: Driver, sync_log: SyncLog) -> None:
        exchange = ChangeExchange(
            driver, self._broker, self._coordinator, lambda: self._view, sync_log, self._log
        )
        self._publishing = asyncio.create_task(exchange.run(), name="changes")
        self.end_with(self._publishing)

    def _peer_urls(self) -> list[str]:
        members = self._view.members if self._view is not None else ()
        return [member.url for member in members if member.node != self._settings.name]

    # -- running ------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if self.driver is not None:
            self.driver.feed(MessageReceived(message))

    def _on_broker_status(self, up: bool) -> None:
        self._broker_up = up
        if self.driver is not None:
            self.driver.feed(BrokerChanged(up))

    def _fail(self, error: BaseException) -> None:
        if self.driver is not None:
            self.driver.abandon()
        self._log.error("replica ends", error=str(error), kind=type(error).__name__)
        self.failed = error
        self.ended.set()

    def _close_store(self) -> None:
        if self._store is None:
            return
        if self._crashed or self.failed is not None:
            self._store.abandon()
        else:
            self._store.close()

    def _note_damage(self) -> None:
        """Leave a mark for the next start if this run has found that the disk cannot be trusted."""
        if self._directory is None or self._crashed:
            return
        if isinstance(self.failed, CorruptLogError):
            self._directory.suspect(Trouble.CORRUPT, str(self.failed))
        elif isinstance(self.failed, DiskSuspectError):
            self._directory.suspect(Trouble.UNSYNCED, str(self.failed))
        else:
            return
        try:
            self._directory.mark_suspect()
        except (DiskFullError, DiskFailedError) as error:
            self._log.error("suspect disk not marked", error=str(error))

    def _release(self) -> None:
        if self._sync_log is not None:
            self._sync_log.close()
        if self._directory is not None:
            self._directory.close()
        self._store, self._sync_log, self._directory = None, None, None
