"""Processes that hang and come back, and directories that are not theirs to use."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from replicad.core.write import encode_write
from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.readiness import get
from replicad.stack.record import CLUSTER
from tests.support.client import Client, Load, form
from tests.support.cluster import Cluster
from tests.support.entries import write_of
from tests.support.logs import inserted_keys
from tests.support.servers import ZooKeeperServer
from tests.support.waiting import eventually, until

pytestmark = [
    pytest.mark.processes,
    pytest.mark.usefixtures("restored"),
    pytest.mark.timeout(180),
]
DEADLINE_S = 10.0
WARM = 50


def new_prefix() -> str:
    return f"pausa-{uuid.uuid4().hex[:8]}"


async def test_a_follower_hangs_and_comes_back(client: Client, cluster: Cluster) -> None:
    before = await cluster.in_sync(client)
    victim = (await cluster.followers(client))[0]

    async def has_left_isr() -> bool:
        return victim not in (await client.view())["isr"]

    async with Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop(victim, "STOP")
        await until(has_left_isr, DEADLINE_S)
        alone = len(load.stored)
        # So far behind that it has to catch up, and gone for longer than its ZooKeeper session.
        await eventually(lambda: len(load.stored) >= alone + 10 * WARM, 30)
        await cluster.stop(victim, "CONT")
        await cluster.is_in_isr(client, victim)
    load.assert_all_stored(within_s=DEADLINE_S)
    await cluster.assert_kept(client, load.stored)
    after = await client.view()
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])


async def test_the_leader_hangs_and_comes_back(client: Client, cluster: Cluster) -> None:
    """Requests that wait in its socket meanwhile are served by a leader that is none any more."""
    before = await cluster.in_sync(client)
    victim = before["leader"]
    url = next(each["url"] for each in before["replicas"] if each["name"] == victim)
    old = {"X-Replicad-Epoch": str(before["epoch"])}
    late, fresh = f"{new_prefix()}-tarde", f"{new_prefix()}-fresco"
    write = write_of(late, b'{"id":"%b"}' % late.encode(), collection="formularios")
    query = json.dumps({"keys": [["formularios", fresh]]}).encode()

    async def is_replaced() -> bool:
        view = await client.view()
        return view["epoch"] > before["epoch"] and view["leader"] not in (None, victim)

    async def ask(path: str, body: bytes) -> tuple[int, bytes]:
        async with session.post(f"{url}/internal/{path}", data=body, headers=old) as answer:
            return answer.status, await answer.read()

    async with aiohttp.ClientSession() as session, Load.run(client, new_prefix()) as load:
        await eventually(lambda: len(load.stored) >= WARM)
        await cluster.stop(victim, "STOP")
        await until(is_replaced, DEADLINE_S)
        await client.store(fresh)
        writing = asyncio.create_task(ask("writes", encode_write(write)))
        reading = asyncio.create_task(ask("gets", query))
        after = len(load.stored)
        await eventually(lambda: len(load.stored) >= after + WARM)
        await cluster.stop(victim, "CONT")
        status, outcome = await writing
        assert status == 421 or json.loads(outcome)["status"] in ("refused", "unknown")
        assert (await reading)[0] == 421
        await cluster.is_in_isr(client, victim)
    load.assert_all_stored(within_s=DEADLINE_S)
    await cluster.assert_kept(client, [*load.stored, fresh])
    assert late not in inserted_keys(cluster.data_dir(victim))
    assert (await client.view())["leader"] != victim


@contextmanager
def daemon(
    name: str, data_dir: Path, zookeeper: str, port: int, errors: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`replicad node` on this directory. No broker listens where it is told to look."""
    listen = f"{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "replicad.cli", "node", "--name", name]
    command += ["--cluster", CLUSTER, "--data-dir", str(data_dir), "--zookeeper", zookeeper]
    command += ["--listen", listen, "--advertise", f"http://{listen}"]
    env = {**os.environ, "REPLICAD_AMQP": f"amqp://nadie@{LOOPBACK}:{free_port([port])}/"}
    with errors.open("wb") as log, subprocess.Popen(command, env=env, stderr=log) as process:  # noqa: S603
        try:
            yield process
        finally:
            process.kill()


async def test_a_second_daemon_on_a_directory(
    client: Client, cluster: Cluster, tmp_path: Path
) -> None:
    before = await cluster.in_sync(client)
    zookeeper = cluster.stack.description["zookeeper"]["hosts"]
    data_dir, errors = cluster.data_dir("n2"), tmp_path / "errors"
    with daemon("n2", data_dir, zookeeper, free_port(()), errors) as process:
        await eventually(lambda: process.poll() is not None)
        assert process.returncode == 1
    message = errors.read_text().splitlines()[-1]
    assert message.startswith("replicad: ")
    assert f"{data_dir} is in use by another" in message
    after = await cluster.in_sync(client)
    assert (after["leader"], after["epoch"]) == (before["leader"], before["epoch"])


async def test_data_without_a_state_in_zookeeper(
    client: Client, cluster: Cluster, tmp_path: Path
) -> None:
    key = new_prefix()
    await client.store(key)
    await cluster.in_sync(client)
    await cluster.stop("n3", "TERM")
    data_dir, errors = tmp_path / "n3", tmp_path / "errors"
    shutil.copytree(cluster.data_dir("n3"), data_dir)
    port = free_port(())
    url = f"http://{LOOPBACK}:{port}"
    empty = ZooKeeperServer(tmp_path / "zookeeper")
    empty.start()
    try:
        with daemon("n3", data_dir, empty.hosts, port, errors) as process:
            await eventually(lambda: "replicad cluster adopt" in errors.read_text())
            status, body = get(f"{url}/internal/status")
            assert status == 200
            assert json.loads(body)["writable"] is False
            async with aiohttp.ClientSession(headers={"X-Replicad-Epoch": "1"}) as session:
                for path, body in (
                    ("writes", form("x")),
                    ("gets", b'{"keys":[["forms","x"]]}'),
                    ("requests", b'{"request":"x"}'),
                ):
                    async with session.post(f"{url}/internal/{path}", data=body) as answer:
                        assert answer.status == 421, path
            assert process.poll() is None
    finally:
        empty.stop()
    assert key in inserted_keys(data_dir)
