"""etcd's three nodes on loopback, as Debian packages it, with its default settings."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Final

import aiohttp

from replicad.errors import StackError
from replicad.stack import packages
from replicad.stack.ports import LOOPBACK, accepts, free_port
from replicad.stack.processes import ProcessId, end, start_detached, wait_until
from tests.benchmarks.system import BenchmarkError, Write, ask

_PACKAGE: Final = "etcd-server"
_START_S: Final = 30.0
_END_S: Final = 20.0
_PAGE: Final = 5_000


def ensure() -> str:
    """The path of the program, installed when it is missing.

    Raises:
        StackError: It is missing and cannot be installed.
    """
    if shutil.which("etcd") is None:
        if not packages.can_install():
            raise StackError(
                f"etcd is missing; as root, on Debian: apt-get install --no-install-recommends "
                f"{_PACKAGE}"
            )
        packages.install((_PACKAGE,))
    program = shutil.which("etcd")
    if program is None:
        raise StackError(f"{_PACKAGE} is installed, yet etcd is not found")
    return program


class Etcd:
    """Implements System. Clients use the JSON gateway of each node and know all three."""

    name = "etcd"
    names: tuple[str, ...] = ("e1", "e2", "e3")
    attempt_s = 5.0  # What its own client, etcdctl, gives a command.

    def __init__(self) -> None:
        """Choose ports; nothing runs yet."""
        ports: list[int] = []
        while len(ports) < 2 * len(self.names):
            ports.append(free_port(ports))
        half = len(self.names)
        self._ports = dict(zip(self.names, ports[:half], strict=True))
        self._peers = {
            name: f"http://{LOOPBACK}:{port}"
            for name, port in zip(self.names, ports[half:], strict=True)
        }
        self._urls = {name: f"http://{LOOPBACK}:{port}" for name, port in self._ports.items()}
        self.endpoints = tuple(self._urls.values())
        self._program = ensure()
        self._directory = Path()
        self._token = ""
        self._processes: dict[str, ProcessId] = {}

    def up(self, directory: Path) -> None:
        """Start a new cluster. The nodes elect a leader once two of them run."""
        self._directory = directory
        self._token = secrets.token_hex(4)
        for name in self.names:
            self._launch(name)
        self._await(self.names)

    def down(self) -> None:
        """End the nodes. Their data are of no further use."""
        for name in tuple(self._processes):
            end(self._processes.pop(name), signal.SIGKILL, _END_S)

    def write(self, key: str, form: bytes) -> Write:
        """A put."""
        body = b'{"key":"%b","value":"%b"}' % (b64encode(key.encode()), b64encode(form))
        return Write("/v3/kv/put", body, {"Content-Type": "application/json"})

    async def leader(self, session: aiohttp.ClientSession) -> str:
        """Ask every node for its own id and the leader's."""
        statuses = await self._statuses(session)
        for name, status in statuses.items():
            if status["header"]["member_id"] == status.get("leader"):
                return name
        raise BenchmarkError(f"etcd has no leader: {statuses}")

    def url(self, name: str) -> str:
        """Where a node's own JSON gateway is."""
        return self._urls[name]

    def pids(self) -> dict[str, int]:
        """What runs, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    async def is_level(self, session: aiohttp.ClientSession) -> bool:
        """Whether all name one leader and have applied the same index."""
        try:
            statuses = (await self._statuses(session)).values()
        except (aiohttp.ClientError, OSError, BenchmarkError):
            return False
        ends = {(s.get("leader"), s["raftIndex"], s["raftAppliedIndex"]) for s in statuses}
        leader, last, applied = next(iter(ends))
        return len(ends) == 1 and leader is not None and last == applied

    async def keys(self, session: aiohttp.ClientSession) -> set[str]:
        """The keys that every node has: a serializable range shows the node's own store."""
        found = [await self._keys_at(session, url) for url in self.endpoints]
        return set.intersection(*found)

    async def stop(self, name: str, number: signal.Signals) -> None:
        """Signal one node."""
        await asyncio.to_thread(end, self._processes.pop(name), number, _END_S)

    async def start(self, name: str) -> None:
        """Start one node on its data."""
        self._launch(name)
        await asyncio.to_thread(self._await, (name,))

    async def transfer(self, session: aiohttp.ClientSession, target: str) -> None:
        """`etcdctl move-leader`: the leader is asked to hand over."""
        statuses = await self._statuses(session)
        leader = await self.leader(session)
        body = {"targetID": statuses[target]["header"]["member_id"]}
        await ask(session, f"{self._urls[leader]}/v3/maintenance/transfer-leadership", body)

    async def _statuses(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        url = "{}/v3/maintenance/status"
        asked = (ask(session, url.format(self._urls[name]), {}) for name in self.names)
        return dict(zip(self.names, await asyncio.gather(*asked), strict=True))

    async def _keys_at(self, session: aiohttp.ClientSession, url: str) -> set[str]:
        keys: set[str] = set()
        start = b"\0"
        while True:
            page: dict[str, Any] = await ask(
                session,
                f"{url}/v3/kv/range",
                {
                    "key": b64encode(start).decode(),
                    "range_end": b64encode(b"\0").decode(),  # Up to the last key.
                    "limit": _PAGE,
                    "keys_only": True,
                    "serializable": True,
                },
            )
            found = [b64decode(pair["key"]) for pair in page.get("kvs", ())]
            keys.update(key.decode() for key in found)
            if not page.get("more"):
                return keys
            start = found[-1] + b"\0"

    def _launch(self, name: str) -> None:
        cluster = ",".join(f"{peer}={url}" for peer, url in self._peers.items())
        options = {
            "name": name,
            "data-dir": str(self._directory / name),
            "listen-client-urls": self._urls[name],
            "advertise-client-urls": self._urls[name],
            "listen-peer-urls": self._peers[name],
            "initial-advertise-peer-urls": self._peers[name],
            "initial-cluster": cluster,
            "initial-cluster-token": self._token,
        }
        command = [self._program, *(f"--{option}={value}" for option, value in options.items())]
        env = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
        log = self._directory / f"{name}.log"
        self._processes[name] = start_detached(command, env, log)

    def _await(self, names: tuple[str, ...]) -> None:
        if not wait_until(lambda: all(accepts(self._ports[name]) for name in names), _START_S):
            raise BenchmarkError(f"{', '.join(names)} do not answer; see {self._directory}")
