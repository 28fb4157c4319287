"""Every fault that can be thrown at random, on its own or over others: inject, hold, mend.

A fault that meets another one at the same place may find nothing to break: it then says so by
`Missed`. Whatever cannot be mended is left to the end of the run, which starts what is missing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from tests.support.faults.broker import Broker
from tests.support.faults.cluster import FaultCluster
from tests.support.faults.coordinator import Coordination
from tests.support.faults.disks import fail_syncs, slow_syncs
from tests.support.faults.limits import kill_by_memory, no_descriptors, shifted_clock
from tests.support.faults.network import Way

_LONG_SHARE: Final = 0.1
_LONG_S: Final = 45.0


class Missed(Exception):  # noqa: N818 - nothing went wrong
    """There was nothing to break: another fault had been there first."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault is to happen.

    Attributes:
        victim: A replica; the faults of servers ignore it.
        rng: Decides what the fault has to choose.
        scratch: A directory for files of the tools.
    """

    cluster: FaultCluster
    victim: str
    rng: Random
    scratch: Path

    def pid(self, name: str | None = None) -> int:
        """Of the victim, or of another process."""
        pid = self.cluster.record.pid(name or self.victim)
        if pid is None:
            raise Missed
        return pid

    async def hold(self, low_s: float = 0.3, high_s: float = 6.0) -> None:
        """Let the fault last; one in ten outlives every timeout."""
        if self.rng.random() < _LONG_SHARE:
            low_s, high_s = high_s, _LONG_S
        await asyncio.sleep(self.rng.uniform(low_s, high_s))


async def kill(scene: Scene) -> None:
    """SIGKILL, and a start some time later."""
    os.kill(scene.pid(), signal.SIGKILL)
    await scene.hold()
    await scene.cluster.start(scene.victim)


async def terminate(scene: Scene) -> None:
    """SIGTERM, and a start some time later."""
    pid = scene.pid()
    os.kill(pid, signal.SIGTERM)
    await scene.cluster.ended(pid)
    await scene.hold()
    await scene.cluster.start(scene.victim)


async def pause(scene: Scene) -> None:
    """SIGSTOP and SIGCONT."""
    scene.pid()
    async with scene.cluster.paused(scene.victim):
        await scene.hold(0.05)


async def cut_zookeeper(scene: Scene) -> None:
    """The link to ZooKeeper, in one or both directions."""
    await _cut(scene, "zookeeper")


async def cut_rabbitmq(scene: Scene) -> None:
    """The link to RabbitMQ, in one or both directions."""
    await _cut(scene, "amqp")


async def _cut(scene: Scene, port: str) -> None:
    scene.pid()
    way = scene.rng.choice(list(Way))
    async with scene.cluster.firewall.cut(scene.victim, scene.cluster.record.ports[port], way):
        await scene.hold()


async def expire(scene: Scene) -> None:
    """Its ZooKeeper session."""
    scene.pid("zookeeper")
    coordination = Coordination(scene.cluster)
    if await asyncio.to_thread(coordination.session, scene.victim) is None:
        raise Missed
    await asyncio.to_thread(coordination.expire, scene.victim)


async def restart_zookeeper(scene: Scene) -> None:
    """SIGKILL to ZooKeeper."""
    os.kill(scene.pid("zookeeper"), signal.SIGKILL)
    await scene.hold()
    await scene.cluster.start("zookeeper")


async def pause_zookeeper(scene: Scene) -> None:
    """SIGSTOP to ZooKeeper."""
    scene.pid("zookeeper")
    async with scene.cluster.paused("zookeeper"):
        await scene.hold()


async def restart_rabbitmq(scene: Scene) -> None:
    """SIGKILL to RabbitMQ."""
    os.kill(scene.pid("rabbitmq"), signal.SIGKILL)
    await scene.hold()
    await scene.cluster.start("rabbitmq")


async def pause_rabbitmq(scene: Scene) -> None:
    """SIGSTOP to RabbitMQ."""
    scene.pid("rabbitmq")
    async with scene.cluster.paused("rabbitmq"):
        await scene.hold()


async def memory_alarm(scene: Scene) -> None:
    """RabbitMQ believes to be out of memory."""
    scene.pid("rabbitmq")
    async with Broker(scene.cluster).memory_alarm():
        await scene.hold()


async def delete_queue(scene: Scene) -> None:
    """One of its queues."""
    scene.pid("rabbitmq")
    broker = Broker(scene.cluster)
    queue = await broker.queue_or_none(scene.victim, scene.rng.choice(("log", "acks")))
    if queue is None:
        raise Missed
    await broker.delete_queue(queue)


async def close_connections(scene: Scene) -> None:
    """Its connections to RabbitMQ."""
    scene.pid("rabbitmq")
    if await Broker(scene.cluster).queue_or_none(scene.victim, "log") is None:
        raise Missed
    closed = await Broker(scene.cluster).close_connections(scene.victim)
    assert closed in (2, 3), closed


async def slow_disk(scene: Scene) -> None:
    """Syncs that take 20 to 300 ms."""
    delay_ms = scene.rng.randint(20, 300)
    async with slow_syncs(scene.pid(), scene.scratch / f"strace-{scene.victim}", delay_ms):
        await scene.hold()


async def full_disk(scene: Scene) -> None:
    """No byte left."""
    scene.cluster.disks[scene.victim].fill()
    await scene.hold()
    scene.cluster.disks[scene.victim].free()


async def lose_power(scene: Scene) -> None:
    """What it had not synced is gone, and so is the process."""
    disk, pid = scene.cluster.disks[scene.victim], scene.pid()
    disk.cut_power()
    os.kill(pid, signal.SIGKILL)
    await scene.cluster.ended(pid)
    await scene.hold()
    disk.power_on()
    await scene.cluster.start(scene.victim)


async def sync_fails(scene: Scene) -> None:
    """EIO from its next sync; the process ends, its disk is suspect."""
    pid = scene.pid()
    fail_syncs(scene.cluster.fiu_control, pid)
    await scene.cluster.ended(pid)
    await scene.hold()
    await scene.cluster.start(scene.victim)


async def flip_bit(scene: Scene) -> None:
    """Somewhere in its log, while it does not run."""
    pid, disk = scene.pid(), scene.cluster.disks[scene.victim]
    os.kill(pid, signal.SIGKILL)
    await scene.cluster.ended(pid)
    segment = disk.segments()[0]
    disk.flip_bit(segment, scene.rng.randrange(segment.stat().st_size))
    await scene.cluster.start(scene.victim)


async def out_of_memory(scene: Scene) -> None:
    """The kernel kills it."""
    pid = scene.pid()
    async with scene.cluster.client() as client:
        await kill_by_memory(pid, client)
    await scene.hold()
    await scene.cluster.start(scene.victim)


async def out_of_descriptors(scene: Scene) -> None:
    """It can open nothing."""
    with no_descriptors(scene.pid(), scene.cluster.firewall.groups[scene.victim]):
        await scene.hold()


async def shift_clock(scene: Scene) -> None:
    """It is killed, and starts again with a clock that is an hour off."""
    os.kill(scene.pid(), signal.SIGKILL)
    shift = scene.rng.choice(("+1h", "-1h"))
    scene.cluster.settings(scene.victim, env=shifted_clock(shift, scene.scratch))
    try:
        await scene.cluster.start(scene.victim)
    finally:
        scene.cluster.settings(scene.victim)


async def kill_gateway(scene: Scene) -> None:
    """SIGKILL to the second gateway."""
    os.kill(scene.pid("gateway2"), signal.SIGKILL)
    await scene.hold()
    await scene.cluster.start("gateway2")


Fault = Callable[[Scene], Awaitable[None]]

REPLICA_FAULTS: Final[tuple[Fault, ...]] = (
    kill,
    terminate,
    pause,
    cut_zookeeper,
    cut_rabbitmq,
    expire,
    delete_queue,
    close_connections,
    slow_disk,
    full_disk,
    lose_power,
    out_of_memory,
    out_of_descriptors,
    shift_clock,
)
"""Of one replica; any number of replicas may be in such trouble at the same time."""

DAMAGE: Final[tuple[Fault, ...]] = (sync_fails, flip_bit)
"""After these a disk is no longer trusted. One at a time: replicas cannot lose what several disks
have lost together.
"""

SERVER_FAULTS: Final[tuple[Fault, ...]] = (
    restart_zookeeper,
    pause_zookeeper,
    restart_rabbitmq,
    pause_rabbitmq,
    memory_alarm,
    kill_gateway,
)
"""Of what the replicas need; one at a time."""
