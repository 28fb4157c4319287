"""replicad's native stack: RabbitMQ, ZooKeeper, three replicas and two gateways."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp

from replicad.stack import commands
from replicad.stack.description import Description
from replicad.stack.record import CLUSTER
from tests.benchmarks.system import BenchmarkError, Write, ask
from tests.support.logs import inserted_keys

GATEWAYS: Final = 2
_LIST_S: Final = 300.0


class Replicad:
    """Implements System. Clients know both gateways."""

    name = "replicad"
    names: tuple[str, ...] = ("n1", "n2", "n3")
    attempt_s = 15.0  # Above a gateway's own deadline of 10 s.

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.endpoints: tuple[str, ...] = ()
        self._directory = Path()
        self._urls: dict[str, str] = {}
        self._data: dict[str, Path] = {}
        self._zookeeper = ""

    def up(self, directory: Path) -> None:
        """`replicad stack up`."""
        self._directory = directory
        wishes = commands.Wishes(backend="native", replicas=len(self.names), gateways=GATEWAYS)
        stack: Description = commands.up(directory, wishes)
        self.endpoints = tuple(gateway["url"] for gateway in stack["gateways"])
        self._urls = {node["name"]: node["url"] for node in stack["nodes"]}
        if stack["zookeeper"] is None:
            raise BenchmarkError("a native stack has a ZooKeeper")
        self._zookeeper = stack["zookeeper"]["hosts"]
        self._data = {node["name"]: Path(node["data_dir"]) for node in stack["nodes"]}

    def down(self) -> None:
        """`replicad stack down`."""
        commands.down(self._directory)

    def write(self, key: str, form: bytes) -> Write:
        """A form with an idempotency key, which its retries carry again."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return Write("/API/IngresarFormulario", form, headers)

    async def view(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        """GET /v1/cluster."""
        return await ask(session, f"{self.endpoints[0]}/v1/cluster")

    async def status(self, session: aiohttp.ClientSession, name: str) -> dict[str, Any]:
        """What a replica says of itself."""
        return await ask(session, f"{self._urls[name]}/internal/status")

    async def leader(self, session: aiohttp.ClientSession) -> str:
        """As the first gateway knows it."""
        view = await self.view(session)
        if view["leader"] is None:
            raise BenchmarkError("replicad has no leader")
        return str(view["leader"])

    async def is_level(self, session: aiohttp.ClientSession) -> bool:
        """Whether all are in sync with one last digest, all of it committed and applied."""
        view = await self.view(session)
        ends = {
            (each["last_index"], each["commit_index"], each["applied_index"], each["digest"])
            for each in view["replicas"]
        }
        last, commit, applied, _ = next(iter(ends))
        in_sync = sorted(view["isr"]) == list(self.names) and view["leader"] is not None
        return in_sync and len(ends) == 1 and last == commit == applied

    async def keys(self, session: aiohttp.ClientSession) -> set[str]:
        """The keys that stand in the log of every replica and are listed by a gateway."""
        logs = await asyncio.gather(
            *(asyncio.to_thread(inserted_keys, path) for path in self._data.values())
        )
        timeout = aiohttp.ClientTimeout(total=_LIST_S)
        url = f"{self.endpoints[0]}/API/ObtenerTodosLosFormularios"
        async with session.get(url, timeout=timeout) as answer:
            listed = {each["id"] for each in await answer.json()}
        return listed.intersection(*logs)

    async def stop(self, name: str, number: signal.Signals) -> None:
        """`replicad stack stop`."""
        await asyncio.to_thread(commands.stop, self._directory, name, number)

    async def start(self, name: str) -> None:
        """`replicad stack start`."""
        await asyncio.to_thread(commands.start, self._directory, name)

    async def transfer(self, session: aiohttp.ClientSession, target: str) -> None:
        """`replicad transfer`."""
        options = ("--cluster", CLUSTER, "--zookeeper", self._zookeeper)
        command = (sys.executable, "-m", "replicad.cli", "transfer", target, *options)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise BenchmarkError(f"{' '.join(command)}: {output.decode()[-1000:]}")
