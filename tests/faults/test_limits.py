"""Clocks, descriptors, memory, pipes, clients and impostors (catalogue 13, 14, 38 to 41)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.record import CLUSTER
from tests.support.client import STORE, form
from tests.support.faults.broker import Broker
from tests.support.faults.cluster import RECOVERY_S, FaultCluster
from tests.support.faults.limits import kill_by_memory, no_descriptors, shifted_clock
from tests.support.logs import entries, inserted_keys
from tests.support.waiting import eventually, until

pytestmark = pytest.mark.timeout(180)
SERVED = {200, 404, 409}


@pytest.mark.slow
async def test_clocks_are_wrong_by_an_hour(cluster: FaultCluster, tmp_path: Path) -> None:
    """One replica is ahead, one behind. Times in the log never decrease, and decide nothing."""
    async with cluster.load() as load:
        for name, shift in (("n1", "+1h"), ("n2", "-1h")):
            cluster.settings(name, env=shifted_clock(shift, tmp_path))
            await cluster.kill(name)
            await cluster.start(name)
            await cluster.joined_isr(name)
            cluster.settings(name)
        for _ in range(3):  # So that more than one of them leads.
            before = await cluster.view()
            async with cluster.paused(before["leader"]):
                await cluster.replaced(before)
            await load.progress()
            await cluster.joined_isr(before["leader"])
        assert shifted(cluster.log("n1")) > timedelta(minutes=59)
        assert shifted(cluster.log("n2")) < -timedelta(minutes=59)
        times = [entry["time"] for entry in entries(cluster.data_dir("n3"))]
        assert times == sorted(times)
        for name in ("n1", "n2"):
            await cluster.kill(name)
            await cluster.start(name)
            await cluster.joined_isr(name)


def shifted(log: str) -> timedelta:
    """By how much the last line's time differs from this clock."""
    line = log.strip().splitlines()[-1]
    said = datetime.fromisoformat(line.split('"time":"')[1].split('"')[0].replace("Z", "+00:00"))
    return said - datetime.now(UTC)


async def test_the_leader_has_no_descriptors_left(cluster: FaultCluster) -> None:
    """It cannot connect again to RabbitMQ: it makes way or comes back, and fails nobody's write."""
    broker = Broker(cluster)
    async with cluster.load() as load:
        before = await cluster.view()
        victim = before["leader"]
        with no_descriptors(cluster.pid(victim), cluster.firewall.groups[victim]):
            # It may have ended by then: its connection to ZooKeeper needs descriptors, too.
            closed = await broker.close_connections(victim)
            assert closed in (2, 3) or cluster.record.pid(victim) is None
            await eventually(lambda: "Too many open files" in cluster.log(victim), RECOVERY_S)
            await cluster.replaced(before)
            await load.progress()
        if cluster.record.pid(victim) is None:  # It may have ended: that is closed, too.
            await cluster.start(victim)
        await cluster.joined_isr(victim)


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_replica_is_killed_for_lack_of_memory(cluster: FaultCluster, role: str) -> None:
    async with cluster.load() as load, cluster.client() as client:
        victim = await (cluster.leader() if role == "leader" else cluster.follower())
        await kill_by_memory(cluster.pid(victim), client)
        await load.progress()
        await cluster.start(victim)
        await cluster.joined_isr(victim)


async def test_standard_error_is_blocked(cluster: FaultCluster, tmp_path: Path) -> None:
    """Nobody reads what a replica says, and the pipe is full: it goes on without words."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        async with cluster.load() as load:
            victim = await cluster.follower()
            await cluster.kill(victim)
            cluster.settings(victim, becoming=f"exec 2>{pipe}")
            await cluster.start(victim)
            cluster.settings(victim)
            await cluster.joined_isr(victim)
            fill(held)
            # Things that it has words for: others come and go, and then it leads itself.
            while (await cluster.leader()) != victim:
                before = await cluster.view()
                await cluster.kill(before["leader"])
                await cluster.replaced(before)
                await cluster.start(before["leader"])
                await cluster.joined_isr(before["leader"])
            await load.progress()
            with pytest.raises(BlockingIOError):
                os.write(held, b"x")
            await cluster.kill(victim)
            await cluster.start(victim)
    finally:
        os.close(held)


def fill(descriptor: int) -> None:
    try:
        while True:
            os.write(descriptor, b"." * 4096)
    except BlockingIOError:
        pass


async def test_a_client_leaves_in_the_middle(cluster: FaultCluster) -> None:
    """Half a form is no form; a whole one whose sender does not wait is stored once, or not."""
    async with cluster.load() as load:
        gateway = urlsplit(cluster.url)
        names = []
        for number in range(50):
            name = f"ido-{load.prefix}-{number}"
            names.append(name)
            body = form(name, genero="Femenino")
            head = f"POST {STORE} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            _, writer = await asyncio.open_connection(gateway.hostname, gateway.port)
            writer.write(head.encode() + (body if number % 2 else body[: len(body) // 2]))
            await writer.drain()
            writer.transport.abort()
        await load.progress()
        stored = inserted_keys(cluster.data_dir("n1"))
        assert not set(names[::2]) & set(stored)
        assert all(stored.count(name) <= 1 for name in names)


async def test_a_gateway_is_killed(cluster: FaultCluster) -> None:
    async with cluster.load() as load:
        await cluster.kill("gateway2")
        await eventually(lambda: 0 in load.statuses)
        await load.progress()
        await cluster.start("gateway2")
        await load.progress()


async def test_two_daemons_want_one_directory(cluster: FaultCluster, tmp_path: Path) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        said = await impostor(cluster, "n2", cluster.data_dir("n2"), tmp_path)
        assert f"{cluster.data_dir('n2')} is in use by another" in said
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - SERVED


async def test_two_directories_claim_one_name(cluster: FaultCluster, tmp_path: Path) -> None:
    async with cluster.load() as load:
        before = await cluster.view()
        said = await impostor(cluster, "n2", tmp_path / "other", tmp_path)
        assert "n2" in said
        await load.progress()
    after = await cluster.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])
    assert not set(load.statuses) - SERVED


async def impostor(cluster: FaultCluster, name: str, data_dir: Path, tmp_path: Path) -> str:
    """Run another daemon, which must refuse; returns the last line that it wrote."""
    listen = f"{LOOPBACK}:{free_port(cluster.record.ports.values())}"
    command = [sys.executable, "-m", "replicad.cli", "node", "--name", name]
    command += ["--cluster", CLUSTER, "--data-dir", str(data_dir)]
    command += ["--zookeeper", cluster.stack.description["zookeeper"]["hosts"]]
    command += ["--listen", listen, "--advertise", f"http://{listen}"]
    env = {**os.environ, "REPLICAD_AMQP": cluster.stack.description["rabbitmq"]["amqp"]}
    errors = tmp_path / "errors"
    with (
        errors.open("wb") as log,
        subprocess.Popen(command, env=env, stderr=log) as process,  # noqa: S603, ASYNC220
    ):
        try:

            async def has_ended() -> bool:
                return process.poll() is not None

            await until(has_ended, RECOVERY_S)
        finally:
            process.kill()
    assert process.returncode == 1
    return errors.read_text().splitlines()[-1]
