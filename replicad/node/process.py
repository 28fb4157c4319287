"""A replica's process: one incarnation of it after the other, until it is told to end."""

from __future__ import annotations

import asyncio
import secrets
import signal
from contextlib import suppress
from typing import Final

import uvloop

from replicad.broker.rabbitmq import RabbitBroker
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.errors import CorruptLogError, RecordsDamagedError
from replicad.garbage import settle_collector
from replicad.node.daemon import LEAVE_S, SHUTDOWN_S, Node, NodeSettings
from replicad.node.watchdog import Watchdog

# What is damaged again so soon is not repaired again without an operator.
_RESTART_S: Final = 60.0


def run_node(settings: NodeSettings) -> None:
    """Run one replica until SIGTERM or SIGINT.

    When its log turns out to be damaged, or its records too large to be made anew while it runs, it
    begins again as another incarnation, which repairs what is damaged.

    Raises:
        ReplicadError: It cannot start, or cannot go on.
    """
    uvloop.run(_run(settings))


async def _run(settings: NodeSettings) -> None:
    loop = asyncio.get_running_loop()
    told_to_end = asyncio.Event()
    began_again_at = float("-inf")
    while True:
        try:
            await _run_once(settings, told_to_end)
        except (CorruptLogError, RecordsDamagedError):
            if told_to_end.is_set() or loop.time() - began_again_at < _RESTART_S:
                raise
            began_again_at = loop.time()
        else:
            return


async def _run_once(settings: NodeSettings, told_to_end: asyncio.Event) -> None:
    """Be one incarnation."""
    incarnation = secrets.token_hex(8)
    broker = RabbitBroker(settings.amqp, settings.cluster, settings.name, incarnation)
    coordinator = ZooKeeperCoordinator(settings.zookeeper, settings.cluster)
    watchdog = Watchdog(settings.watchdog_s)
    node = Node(settings, broker, coordinator, incarnation=incarnation, progress=watchdog.progress)
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        told_to_end.set()
        node.ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await node.start()
    watchdog.start()  # Not before: recovering a log takes as long as it takes.
    settle_collector()
    try:
        if not node.ended.is_set():
            node.end_with(broker.failed)
            node.end_with(coordinator.failed)
            await node.ended.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S + 2 * SHUTDOWN_S):
                await node.stop()
    finally:
        watchdog.stop()
    if node.failed is not None:
        raise node.failed
