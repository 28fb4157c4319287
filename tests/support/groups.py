"""A second group of replicas on the servers of a native stack: another cluster name, no more."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicad.coordination.bootstrap import initialise
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.processes import ProcessId, end, start_detached, wait_until
from replicad.stack.readiness import unready_reason

NODES = ("n1", "n2", "n3")
START_S = 30.0
STOP_S = 10.0


@dataclass(slots=True)
class Group:
    """Three replicas and a gateway of one cluster, called as those of every other group.

    Attributes:
        name: The cluster's.
        directory: Holds the data and the logs of the processes.
        servers: A native stack's description, whose RabbitMQ and ZooKeeper are used.
    """

    name: str
    directory: Path
    servers: Mapping[str, Any]
    _ports: dict[str, int] = field(default_factory=dict)
    _processes: dict[str, ProcessId] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def up(cls, name: str, directory: Path, servers: Mapping[str, Any]) -> Iterator[Group]:
        """A group that can be used, ended after the block."""
        group = cls(name, directory, servers)
        try:
            for node in NODES:
                group.start(node)
            group.start("gateway")
            yield group
        finally:
            for process in group._processes.values():
                end(process, signal.SIGTERM, STOP_S)

    @property
    def url(self) -> str:
        """The gateway."""
        return self.address("gateway")

    def address(self, name: str) -> str:
        """Of one process."""
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def data_dir(self, node: str) -> Path:
        """A replica's data directory."""
        return self.directory / node

    async def begin(self) -> None:
        """`replicad cluster init`, and wait until it can be used."""
        hosts = self.servers["zookeeper"]["hosts"]
        await initialise(ZooKeeperCoordinator(hosts, self.name), NODES, 2, START_S)

    def await_ready(self) -> None:
        """Return once it has a leader and all replicas are in sync."""
        assert wait_until(lambda: unready_reason([self.url], NODES) is None, START_S)

    def start(self, name: str) -> None:
        """Start one process, at the address it had before, if any."""
        port = self._ports.setdefault(name, free_port(self._ports.values()))
        listen = f"{LOOPBACK}:{port}"
        command = [sys.executable, "-m", "replicad.cli", "gateway" if name == "gateway" else "node"]
        command += ["--cluster", self.name, "--zookeeper", self.servers["zookeeper"]["hosts"]]
        command += ["--listen", listen]
        if name != "gateway":
            command += ["--name", name, "--data-dir", str(self.data_dir(name))]
            command += ["--advertise", f"http://{listen}"]
        env = {**os.environ, "REPLICAD_AMQP": self.servers["rabbitmq"]["amqp"]}
        log = self.directory / f"{name}.log"
        self._processes[name] = start_detached(command, env, log)

    @property
    def pids(self) -> dict[str, int]:
        """Of what runs, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def kill(self, name: str) -> None:
        """SIGKILL, and wait for the end."""
        end(self._processes.pop(name), signal.SIGKILL, STOP_S)
