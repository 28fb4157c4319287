"""A native stack made to be broken: each replica on a file system, with a group and under preloaded
libraries of its own, so that a fault can be aimed at one of them.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from replicad.errors import StackError
from replicad.stack import commands
from replicad.stack.record import Record, load
from tests.support.client import Client
from tests.support.cluster import Cluster, runs
from tests.support.faults.disks import Disk
from tests.support.faults.network import Firewall
from tests.support.history import History
from tests.support.judgement import Judge
from tests.support.logs import inserted_keys
from tests.support.stack import Stack
from tests.support.tools import FIU_PRELOAD
from tests.support.waiting import eventually, until

REPLICAS: Final = ("n1", "n2", "n3")
RECOVERY_S: Final = 30.0
"""Bounded time: within this every fault is over for the clients, once it is healed."""
_FIRST_GROUP: Final = 20_001
_WRAPPER: Final = """#!/bin/sh
# Called with a process's name and its command. What NAME.sh sets applies to that process alone.
name=$1
shift
settings=$(dirname "$0")/$name.sh
if [ -f "$settings" ]; then . "$settings"; fi
exec "$@"
"""


class FaultCluster(Cluster):
    """Three replicas and two gateways, and the means to break them.

    Attributes:
        disks: Each replica's file system.
        firewall: Cuts links.
    """

    def __init__(self, directory: Path) -> None:
        """Prepare file systems and rules; nothing runs yet."""
        super().__init__(Stack(directory / "stack", "native", wrapper=str(directory / "wrapper")))
        self._directory = directory
        self._numbers = count(1)
        self.disks = {
            name: Disk(directory / f"{name}.ext4", directory / "stack" / "data" / name)
            for name in REPLICAS
        }
        self.firewall = Firewall({name: n for n, name in enumerate(REPLICAS, _FIRST_GROUP)})
        self._judge = Judge(self)

    @classmethod
    @contextmanager
    def running(cls, directory: Path, *options: str) -> Iterator[FaultCluster]:
        """A cluster that is up; taken down at the end, whatever was done to it.

        Args:
            directory: For all that belongs to it.
            options: More options of `stack up`.
        """
        cluster = cls(directory)
        (directory / "wrapper").write_text(_WRAPPER)
        (directory / "wrapper").chmod(0o700)
        os.environ["REPLICAD_STACK_WRAPPER"] = cluster.stack.wrapper
        for name in REPLICAS:
            cluster.settings(name)
            cluster.disks[name].make()
        cluster.firewall.mark()
        try:
            cluster.stack.up("--gateways", "2", *options)
            yield cluster
        finally:
            cluster.heal()
            cluster.stack.down()
            del os.environ["REPLICAD_STACK_WRAPPER"]
            for disk in cluster.disks.values():
                disk.remove()

    def settings(
        self, name: str, *, env: Mapping[str, str] | None = None, becoming: str = ""
    ) -> None:
        """How a replica is to run from its next start on.

        Args:
            name: The replica.
            env: Put into its environment.
            becoming: Run by the shell that becomes the replica.
        """
        given = dict(env or {})
        preload = [*map(str, FIU_PRELOAD), *filter(None, [given.get("LD_PRELOAD")])]
        own = {
            **given,
            "LD_PRELOAD": ":".join(preload),
            "FIU_ENABLE": "",
            "FIU_CTRL_FIFO": str(self.fiu_control),
        }
        # Not exported: the programs on the way to Python must not load any of it.
        words = " ".join(f"{key}={shlex.quote(value)}" for key, value in own.items())
        group = self.firewall.groups[name]
        (self._directory / f"{name}.sh").write_text(
            f'{becoming}\nset -- setpriv --regid {group} --clear-groups env {words} "$@"\n'
        )

    @property
    def fiu_control(self) -> Path:
        """Where each replica's libfiu listens: this, a hyphen and its pid."""
        return self._directory / "fiu"

    @property
    def record(self) -> Record:
        """What the stack remembers: ports, password, processes."""
        record = load(self.stack.directory)
        assert record is not None
        return record

    @property
    def urls(self) -> list[str]:
        """All gateways."""
        return [gateway["url"] for gateway in self.stack.description["gateways"]]

    def pid(self, name: str) -> int:
        """Of a process that runs."""
        pid = self.record.pid(name)
        assert pid is not None, f"{name} does not run"
        return pid

    def log(self, name: str) -> str:
        """What a process has written."""
        return self.record.log(name).read_text(errors="replace")

    async def says(self, name: str, words: str) -> None:
        """Wait until a process has written something."""
        await eventually(lambda: words in self.log(name), RECOVERY_S)

    # -- load and judgement -------------------------------------------------------------------

    @asynccontextmanager
    async def load(self, *, seed: int = 1) -> AsyncIterator[History]:
        """Clients at work while the block injects faults; then all is healed and judged."""
        prefix = f"f{os.getpid()}-{next(self._numbers)}"
        async with History.record(self.urls, prefix, seed) as history:
            await history.progress()
            yield history
        self.heal()
        async with self.client() as client:
            await self._judge.judge(history, client)

    def client(self) -> Any:  # noqa: ANN401
        """A client of the first gateway."""
        return Client.open(self.url)

    def heal(self) -> None:
        """End all that was done to links and disks, and wake what sleeps."""
        self.firewall.heal()
        for disk in self.disks.values():
            disk.mend()
        record = load(self.stack.directory)
        for name in record.processes if record is not None else ():
            pid = self.record.pid(name)
            if pid is not None:
                os.kill(pid, signal.SIGCONT)

    async def assert_equal_records(self) -> None:
        """Every replica has applied its whole log, to the same rows."""
        async with self.client() as client:
            await self.in_sync(client)
        inserted = len(inserted_keys(self.data_dir(self.names[0])))
        rows: dict[str, list[tuple[object, ...]]] = {}

        def are_written() -> bool:
            rows.update((name, _rows(self.data_dir(name))) for name in self.names)
            return all(len(each) == inserted for each in rows.values())

        await eventually(are_written)  # What is applied is in the file after a second or so.
        assert all(each == rows[self.names[0]] for each in rows.values())

    async def mend(self) -> None:
        """Undo every fault, and wait until all replicas are in sync."""
        self.heal()
        await self.start_all()
        async with self.client() as client:
            await self.in_sync(client)

    # -- what the cluster says ----------------------------------------------------------------

    async def view(self) -> dict[str, Any]:
        """GET /v1/cluster at the first gateway."""
        async with self.client() as client:
            view: dict[str, Any] = await client.view()
        return view

    async def leader(self) -> str:
        """Who leads."""
        leader: str = (await self.view())["leader"]
        assert leader in self.names
        return leader

    async def follower(self) -> str:
        """One that does not lead, always the first."""
        leader = await self.leader()
        return next(name for name in self.names if name != leader)

    async def replaced(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Wait for another leader than the one of an earlier view; returns the new view."""
        view: dict[str, Any] = {}

        async def another() -> bool:
            view.update(await self.view())
            newer = view["epoch"] > before["epoch"]
            return newer and view["leader"] not in (None, before["leader"])

        await until(another, RECOVERY_S, lambda: view)
        return view

    async def left_isr(self, name: str) -> None:
        """Wait until a replica is no longer in sync."""

        async def left() -> bool:
            return name not in (await self.view())["isr"]

        await until(left, RECOVERY_S)

    async def joined_isr(self, name: str) -> None:
        """Wait until a replica is in sync."""
        async with self.client() as client:
            await self.is_in_isr(client, name)

    # -- processes ----------------------------------------------------------------------------

    async def kill(self, *names: str) -> None:
        """SIGKILL, at the same moment, and wait until they are gone."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(map(runs, pids)))

    async def ended(self, pid: int, timeout_s: float = RECOVERY_S) -> None:
        """Wait until a process has ended by itself."""
        await eventually(lambda: not runs(pid), timeout_s)

    @asynccontextmanager
    async def paused(self, name: str) -> AsyncIterator[None]:
        """SIGSTOP now, SIGCONT at the end of the block."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: _state(pid) == "T")
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            await eventually(lambda: _state(pid) != "T")

    async def start(self, name: str) -> None:
        """`stack start`, in this process: that is quicker, and faults are many."""
        await asyncio.to_thread(commands.start, self.stack.directory, name)

    async def attempt(self, name: str) -> bool:
        """Start a process that may refuse to run; tells whether it came up."""
        try:
            await self.start(name)
        except StackError:
            return False
        return True

    async def start_all(self) -> None:
        """Start whatever does not run, servers first."""
        for name in ("zookeeper", "rabbitmq", *self.names, "gateway", "gateway2"):
            if self.record.pid(name) is None:
                await self.start(name)


def _rows(data_dir: Path) -> list[tuple[object, ...]]:
    """What SQLite holds."""
    path = (data_dir / "records.sqlite").absolute()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT at, key, value FROM records ORDER BY at").fetchall()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
