"""A whole cluster under test, driven as its users do: commands, HTTP, files."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.logs import assert_chained, inserted_keys, log_bytes
from tests.support.stack import Stack
from tests.support.waiting import until

SYNC_S = 30.0


class Cluster:
    """A stack of three that is up."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @property
    def backend(self) -> str:
        """How it runs."""
        return self.stack.backend

    @property
    def url(self) -> str:
        """The first gateway."""
        url: str = self.stack.description["gateway"]["url"]
        return url

    @property
    def names(self) -> list[str]:
        """The replicas' names."""
        return [node["name"] for node in self.stack.description["nodes"]]

    def data_dir(self, name: str) -> Path:
        """A replica's data directory."""
        nodes = self.stack.description["nodes"]
        return next(Path(node["data_dir"]) for node in nodes if node["name"] == name)

    async def stop(self, name: str, number: str = "KILL") -> None:
        """`stack stop`, while whatever else the test does goes on."""
        await asyncio.to_thread(self.stack.run, "stop", name, "--signal", number)

    async def start(self, name: str) -> None:
        """`stack start`."""
        await asyncio.to_thread(self.stack.run, "start", name)

    async def restore(self, client: Client) -> None:
        """Start whatever is missing, wake whatever sleeps, and wait until all is in sync."""
        if self.backend != "embedded":
            for pid in self.stack.pids().values():
                if pid is not None:
                    os.kill(pid, signal.SIGCONT)
        await asyncio.to_thread(self.stack.up)
        await self.in_sync(client)

    async def in_sync(self, client: Client) -> dict[str, Any]:
        """Wait until all replicas are in sync and level; returns the view."""
        view: dict[str, Any] = {}

        async def level() -> bool:
            view.update(await client.view())
            ends = {(r["last_index"], r["commit_index"], r["digest"]) for r in view["replicas"]}
            last, commit, _ = next(iter(ends))
            in_sync = sorted(view["isr"]) == self.names and view["leader"] is not None
            return in_sync and len(ends) == 1 and last == commit

        await until(level, SYNC_S, lambda: view)
        return view

    async def is_in_isr(self, client: Client, name: str) -> None:
        """Wait until one replica is in sync, whatever goes on meanwhile."""

        async def admitted() -> bool:
            return name in (await client.view())["isr"]

        await until(admitted, SYNC_S)

    async def followers(self, client: Client) -> list[str]:
        """The replicas that do not lead."""
        leader = (await client.view())["leader"]
        assert leader in self.names
        return [name for name in self.names if name != leader]

    async def assert_equal_logs(self, client: Client) -> None:
        """All logs are one, and hold together."""
        await self.in_sync(client)
        logs = [log_bytes(self.data_dir(name)) for name in self.names]
        assert logs[0]
        assert logs[0] == logs[1] == logs[2]
        assert_chained(self.data_dir(self.names[0]))

    async def assert_kept(self, client: Client, acknowledged: Iterable[str]) -> None:
        """What was acknowledged is there, in every log and over HTTP; nothing is there twice."""
        await self.assert_equal_logs(client)
        counts = Counter(inserted_keys(self.data_dir(self.names[0])))
        assert max(counts.values()) == 1, counts.most_common(3)
        assert_all_in(acknowledged, counts)
        assert_all_in(acknowledged, {each["id"] for each in await client.all_forms()})


def assert_all_in(keys: Iterable[str], found: Iterable[str]) -> None:
    """No key is missing; the failure names a few that are."""
    missing = sorted(set(keys) - set(found))
    assert not missing, (len(missing), missing[:10])


def runs(pid: int) -> bool:
    """Whether there is such a process that does more than wait to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
