"""Measures what the model needs and no other benchmark tells, mostly as processor time."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import aio_pika

from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.stack import commands
from replicad.stack.description import Description
from replicad.stack.ports import LOOPBACK
from replicad.stack.readiness import cluster_view
from tests.benchmarks.scaling.load_probe import Site, measure_load
from tests.benchmarks.scaling.processes import cpu_s, resident_mib
from tests.benchmarks.system import BenchmarkError
from tests.support.groups import Group

_IDLE_S: Final = 10.0
_SETTLE_S: Final = 3.0
_SYNC_S: Final = 2.0
_SYNC_BYTES: Final = 4096
_READS: Final = 300
# What `ZooKeeperCoordinator.read` asks for: sync, and the data of the two nodes and three members
# beside what says whether they exist and who there is.
_REQUESTS_A_READ: Final = 9
_MESSAGES: Final = 4000
_WINDOW: Final = 50
_SIZES: Final = (1024, 64 * 1024)


def measure(directory: Path) -> dict[str, float]:
    """Most figures, by their names in `Figures`. Takes about three minutes."""
    found = disk_syncs(directory)
    stack = commands.up(directory / "stack", commands.Wishes(backend="native", replicas=3))
    try:
        found |= asyncio.run(_of_servers(stack))
        found |= _of_groups(stack, directory)
        return {name: round(value, 2) for name, value in found.items()}
    finally:
        commands.down(directory / "stack")


# -- the disk -----------------------------------------------------------------------------------


def disk_syncs(directory: Path) -> dict[str, float]:
    """fdatasyncs a second, all together, of processes that each append to a file of their own."""
    return {f"syncs_{count}": _syncs(directory, count) for count in (1, 3, 10, 30)}


def _syncs(directory: Path, processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(processes)
    with context.Pool(processes, _keep_barrier, (begin,)) as pool:
        paths = [directory / f"sync-{number}" for number in range(processes)]
        return sum(pool.map(_append_and_sync, paths, chunksize=1)) / _SYNC_S


_begin: list[Callable[[], int]] = []


def _keep_barrier(begin: object) -> None:
    _begin.append(begin.wait)  # type: ignore[attr-defined]  # Barrier is no type here.


def _append_and_sync(path: Path) -> int:
    block, count = bytes(_SYNC_BYTES), 0
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _begin[0]()
    deadline = time.monotonic() + _SYNC_S
    while time.monotonic() < deadline:
        os.write(file, block)
        os.fdatasync(file)
        count += 1
    os.close(file)
    path.unlink()
    return count


# -- RabbitMQ and ZooKeeper ---------------------------------------------------------------------


async def _of_servers(stack: Description) -> dict[str, float]:
    rabbitmq, zookeeper = stack["rabbitmq"], stack["zookeeper"]
    if rabbitmq is None or zookeeper is None or not (rabbitmq["pid"] and zookeeper["pid"]):
        raise BenchmarkError("the stack has no servers")
    costs = [await _message_us(rabbitmq["amqp"], rabbitmq["pid"], size) for size in _SIZES]
    kib = (_SIZES[1] - _SIZES[0]) / 1024
    return {
        "rabbitmq_message_us": costs[0],
        "rabbitmq_kib_us": (costs[1] - costs[0]) / kib,
        "zookeeper_request_us": await _request_us(zookeeper["hosts"], zookeeper["pid"]),
    }


async def _message_us(amqp: str, pid: int, size: int) -> float:
    """Of a transient message to two queues that are read without acknowledgements."""
    arrived, wanted = 0, asyncio.Event()

    async def take(_: aio_pika.abc.AbstractIncomingMessage) -> None:
        nonlocal arrived
        arrived += 1
        if arrived % (2 * _WINDOW) == 0:
            wanted.set()

    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(await aio_pika.connect(amqp)) for _ in range(3)
        ]
        publishing, *consuming = [
            await each.channel(publisher_confirms=False) for each in connections
        ]
        exchange = await publishing.declare_exchange("probe", "topic", auto_delete=True)
        for channel in consuming:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange.name, "log.all")
            await queue.consume(take, no_ack=True)
        message = aio_pika.Message(bytes(size))
        before = cpu_s([pid])
        for _ in range(_MESSAGES // _WINDOW):
            wanted.clear()
            for _ in range(_WINDOW):
                await exchange.publish(message, "log.all")
            await wanted.wait()
        return 1e6 * (cpu_s([pid]) - before) / _MESSAGES


async def _request_us(hosts: str, pid: int) -> float:
    coordinator = ZooKeeperCoordinator(hosts, "local")
    await coordinator.start(lambda _: None)
    try:
        before = cpu_s([pid])
        for _ in range(_READS):
            await coordinator.read()
        return 1e6 * (cpu_s([pid]) - before) / (_READS * _REQUESTS_A_READ)
    finally:
        await coordinator.stop()


# -- groups -------------------------------------------------------------------------------------


def _of_groups(stack: Description, directory: Path) -> dict[str, float]:
    """What a second group costs that does nothing, what writes cost, and a failover."""
    rabbitmq, zookeeper = stack["rabbitmq"], stack["zookeeper"]
    if rabbitmq is None or zookeeper is None or not (rabbitmq["pid"] and zookeeper["pid"]):
        raise BenchmarkError("the stack has no servers")
    servers = (rabbitmq["pid"], zookeeper["pid"])
    alone = _idle_s(servers)
    (directory / "other").mkdir()
    with Group.up("other", directory / "other", stack) as group:
        asyncio.run(group.begin())
        group.await_ready()
        pids = group.pids
        gateway = pids.pop("gateway")
        found = {
            "idle_servers_ms": 1000 * max(0.0, _idle_s(servers) - alone),
            "idle_group_ms": 1000 * _idle_s([*pids.values(), gateway]),
            "replica_mib": resident_mib(pids.values()),
            "gateway_mib": resident_mib([gateway]),
        }
        replicas = {each["url"]: each["pid"] or 0 for each in stack["nodes"]}
        sites = [
            Site(stack["gateway"]["url"], stack["gateway"]["pid"] or 0, replicas),
            Site(group.url, gateway, {group.address(name): pid for name, pid in pids.items()}),
        ]
        found |= asyncio.run(measure_load(sites, rabbitmq["pid"], directory))
        return found | {"zookeeper_requests": _failover_requests(group, zookeeper["hosts"])}


def _idle_s(pids: Iterable[int]) -> float:
    """Processor seconds a second."""
    known = list(pids)
    time.sleep(_SETTLE_S)
    before = cpu_s(known)
    time.sleep(_IDLE_S)
    return (cpu_s(known) - before) / _IDLE_S


def _failover_requests(group: Group, hosts: str) -> float:
    """Requests to ZooKeeper after `kill -9` of the leader, above the survivors' pings."""
    view = cluster_view(group.url)
    if view is None or view["leader"] is None:
        raise BenchmarkError("the group has no leader")
    group.kill(view["leader"])
    first = _packets(hosts)
    time.sleep(_IDLE_S)
    second = _packets(hosts)
    time.sleep(_IDLE_S)
    pings = _packets(hosts) - second
    return float(max(0, second - first - pings))


def _packets(hosts: str) -> int:
    """What ZooKeeper has received since it started."""
    port = int(hosts.rpartition(":")[2])
    with socket.create_connection((LOOPBACK, port), 2.0) as connection:
        connection.sendall(b"mntr")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    fields = dict(line.split("\t", 1) for line in answer.decode().splitlines() if "\t" in line)
    return int(fields["zk_packets_received"])


def show(found: Mapping[str, object]) -> str:
    """As JSON, to be copied into the table."""
    return json.dumps(found, indent=2)
