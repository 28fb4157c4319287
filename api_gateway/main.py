"""The gateway's process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
import uvloop

from api_gateway.app import serve_gateway
from api_gateway.web.limits import DEFAULT_LIMITS, Limits
from replicad.coordination.port import View
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.errors import CoordinationError
from replicad.garbage import settle_collector

_RECONNECT_S: Final = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What one gateway needs to know.

    Attributes:
        cluster: The cluster's name in ZooKeeper.
        zookeeper: host:port of ZooKeeper's servers, separated by commas.
        host, port: Where to listen.
        limits: What clients may ask.
        cors_origins: Whose pages may use it from a browser.
    """

    cluster: str
    zookeeper: str
    host: str
    port: int
    limits: Limits = DEFAULT_LIMITS
    cors_origins: frozenset[str] = frozenset()


def run_gateway(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, which end it within 3 seconds.

    Raises:
        OSError: The address cannot be listened at.
    """
    uvloop.run(_run(settings))


class PatientViews:
    """ZooKeeper's views, also when ZooKeeper cannot be reached at first.

    A coordinator whose start failed cannot be started again, so each attempt has its own.

    Attributes:
        failed: Completes only with a defect in following ZooKeeper.
    """

    def __init__(self, hosts: str, cluster: str) -> None:
        """Describe where the views are; needs a running loop."""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hosts = hosts
        self._cluster = cluster
        self._coordinator: ZooKeeperCoordinator | None = None

    async def start(self, on_view: Callable[[View], None]) -> None:
        """Return once ZooKeeper was reached; from then on the coordinator reconnects itself."""
        while self._coordinator is None:
            coordinator = ZooKeeperCoordinator(self._hosts, self._cluster)
            try:
                await coordinator.start(on_view)
            except CoordinationError as error:
                _log.warning("zookeeper_unreachable", reason=str(error))
                await asyncio.sleep(_RECONNECT_S)
            else:
                coordinator.failed.add_done_callback(self._on_failed)
                self._coordinator = coordinator

    def _on_failed(self, failed: asyncio.Future[None]) -> None:
        if not failed.cancelled() and (error := failed.exception()):
            self.failed.set_exception(error)

    async def stop(self) -> None:
        """End the session, if there is one."""
        if self._coordinator is not None:
            await self._coordinator.stop()


async def _run(settings: GatewaySettings) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    views = PatientViews(settings.zookeeper, settings.cluster)
    runner = await serve_gateway(
        views,
        host=settings.host,
        port=settings.port,
        limits=settings.limits,
        cors_origins=settings.cors_origins,
    )
    settle_collector()
    _log.info("gateway_started", cluster=settings.cluster, host=settings.host, port=settings.port)
    stopping = asyncio.create_task(stopped.wait())
    ends: set[asyncio.Future[Any]] = {stopping, views.failed}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await runner.cleanup()
    _log.info("gateway_stopped")
    if views.failed.done():
        views.failed.result()
