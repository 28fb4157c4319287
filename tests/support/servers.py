"""Private servers for tests: on free loopback ports, in a temporary directory, ended by pid."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from replicad.stack import zookeeper
from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.processes import ProcessId, end, is_running, start_detached, wait_until
from replicad.stack.rabbitmq import RabbitMQ, RabbitPorts, amqp_url

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
CTL_TIMEOUT_S = 60.0


def free_ports(count: int) -> list[int]:
    """As many different free ports."""
    ports: list[int] = []
    while len(ports) < count:
        ports.append(free_port(ports))
    return ports


class Server:
    """One process, ended by its pid."""

    _process: ProcessId | None = None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server; its data stay."""
        if self._process is not None:
            end(self._process, number, STOP_TIMEOUT_S)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it answer nothing for a while, though its connections stay."""
        assert self._process is not None
        assert is_running(self._process)
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)


class RabbitMQServer(Server):
    """One RabbitMQ, its port mapper and its command line tool."""

    def __init__(self, directory: Path) -> None:
        """Prepare the server's files; it keeps its data over a restart."""
        self._directory = directory
        self._server = RabbitMQ(
            directory, f"test{os.getpid()}", secrets.token_hex(8), RabbitPorts(*free_ports(5))
        )
        self._server.prepare()
        self._epmd: ProcessId | None = None

    @property
    def url(self) -> str:
        """Where AMQP clients connect."""
        return amqp_url(self._server.password, self._server.ports.amqp)

    def start(self) -> None:
        """Start it, and return once it answers."""
        environment = self._server.environment()
        if self._epmd is None:
            self._epmd = start_detached(
                self._server.epmd_command(), environment, self._directory / "epmd.out"
            )
        log = self._directory / "server.out"
        self._process = start_detached(self._server.command(), environment, log)
        assert wait_until(self._server.answers, START_TIMEOUT_S), log.read_text()[-3000:]

    def close(self) -> None:
        """End everything."""
        self.stop(signal.SIGKILL)
        if self._epmd is not None:
            end(self._epmd, signal.SIGTERM, STOP_TIMEOUT_S)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it prints."""
        script = Path(self._server.command()[0]).with_name("rabbitmqctl")
        run = subprocess.run(  # noqa: S603  # Our own arguments only.
            [script, "--quiet", *arguments],
            env=self._server.environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=CTL_TIMEOUT_S,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def queues(self) -> list[str]:
        """The names of all queues, sorted."""
        return sorted(self.ctl("list_queues", "--no-table-headers", "name").split())


class ZooKeeperServer(Server):
    """One ZooKeeper."""

    def __init__(self, directory: Path) -> None:
        """Prepare the server's files; it keeps its data over a restart."""
        self._directory = directory
        self.port = free_port(())
        self._command = zookeeper.prepare(directory, self.port)

    @property
    def hosts(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it, and return once it answers."""
        log = self._directory / "server.out"
        self._process = start_detached(self._command, dict(os.environ), log)
        answers = wait_until(lambda: zookeeper.answers(self.port), START_TIMEOUT_S)
        assert answers, log.read_text()[-3000:]
