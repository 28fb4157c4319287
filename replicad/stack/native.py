"""A stack of ordinary processes: RabbitMQ, ZooKeeper, the replicas and the gateways."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from replicad.coordination.bootstrap import initialise
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.errors import StackError
from replicad.stack import packages, zookeeper
from replicad.stack.description import http_url, zookeeper_hosts
from replicad.stack.ports import LOOPBACK, accepts
from replicad.stack.processes import (
    ProcessId,
    end,
    is_running,
    send,
    start_detached,
    wait_gone,
    wait_until,
)
from replicad.stack.rabbitmq import RabbitMQ, RabbitPorts, amqp_url
from replicad.stack.record import CLUSTER, Record

_SERVERS: Final = ("zookeeper", "epmd", "rabbitmq")
_RABBIT_PORTS: Final = ("amqp", "management", "prometheus", "distribution", "epmd")
_SERVER_START_S: Final = 60.0
_DAEMON_START_S: Final = 15.0
_FIRST_START_S: Final = 30.0
# A daemon ends within 3 s of SIGTERM; RabbitMQ takes about 6 s to close its tables.
_GRACE_S: Final = 10.0
_RABBITMQ_GRACE_S: Final = 30.0
_SETTLE_S: Final = 0.2
# An executable that is called with a process's name and its command, which it is to become: to run
# single processes with another priority, in a cgroup or a namespace, or under a debugger.
_WRAPPER: Final = "REPLICAD_STACK_WRAPPER"
_LETHAL: Final = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT)


class NativeBackend:
    """Starts each process detached and knows it by pid and start time."""

    def __init__(self, record: Record) -> None:
        """Take over the processes that the record names."""
        self.record = record
        settings = record.settings
        self._names = (*_SERVERS, *settings.node_names, *settings.gateway_names)

    def prepare(self) -> None:
        """Install the servers if they are missing."""
        packages.ensure()

    def bring_up(self) -> None:
        """Start whatever does not run, servers first, and make the cluster if it is new."""
        if not self.pids():
            self.record.choose_ports((*_RABBIT_PORTS, *self._names))
        settings = self.record.settings
        self._launch_missing(_SERVERS)
        self._await("zookeeper", lambda: zookeeper.answers(self.record.ports["zookeeper"]))
        self._await("rabbitmq", self._rabbitmq().answers)
        self._launch_missing(settings.node_names)
        coordinator = ZooKeeperCoordinator(zookeeper_hosts(self.record), CLUSTER)
        asyncio.run(
            initialise(coordinator, settings.node_names, settings.min_in_sync, _FIRST_START_S)
        )
        self._launch_missing(settings.gateway_names)

    def pids(self) -> dict[str, int]:
        """The pid of everything that runs now, by name."""
        return {name: pid for name in self._names if (pid := self.record.pid(name)) is not None}

    def failed(self) -> list[str]:
        """What was started and has ended by itself, by name."""
        return [name for name in self.record.processes if self.record.pid(name) is None]

    def tail(self, name: str) -> str:
        """The last lines of a process's output."""
        return self.record.tail(name)

    def start(self, name: str) -> None:
        """Start one process again. Waits out one that is exiting; leaves a running one alone."""
        self._check(name)
        process = self.record.processes.get(name)
        if process is not None and self._stays(name, process):
            return
        if name == "rabbitmq":
            self._launch_missing(("epmd",))
        self._launch(name)
        match name:
            case "rabbitmq":
                self._await(name, self._rabbitmq().answers)
            case "zookeeper":
                self._await(name, lambda: zookeeper.answers(self.record.ports[name]))
            case _:
                self._await(name, lambda: accepts(self.record.ports[name]), _DAEMON_START_S)

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a signal, and wait for the end if it is one that ends a process."""
        self._check(name)
        process = self.record.processes.get(name)
        if process is None:
            return
        if number not in _LETHAL:
            send(process, number)
            return
        self._end(name, process, number)

    def down(self) -> None:
        """End everything: gateways, replicas together, then the servers they need."""
        settings = self.record.settings
        for names in (settings.gateway_names, settings.node_names, ("rabbitmq", "zookeeper")):
            running = [(n, self.record.processes[n]) for n in names if n in self.record.processes]
            for _, process in running:
                send(process, signal.SIGTERM)
                send(process, signal.SIGCONT)  # One that was stopped on purpose must see SIGTERM.
            for name, process in running:
                self._end(name, process, signal.SIGTERM)
        if "epmd" in self.record.processes:
            self._end("epmd", self.record.processes["epmd"], signal.SIGTERM)

    def _end(self, name: str, process: ProcessId, number: signal.Signals) -> None:
        end(process, number, _RABBITMQ_GRACE_S if name == "rabbitmq" else _GRACE_S)
        del self.record.processes[name]
        self.record.save()

    def _check(self, name: str) -> None:
        if name not in self._names:
            raise StackError(f"this stack has no {name!r}, only {', '.join(self._names)}")

    def _stays(self, name: str, process: ProcessId) -> bool:
        """Whether the process runs and will go on running.

        A process that was told to end closes its port first. So one that listens, and still does
        a moment later, stays; one that does not is either coming up or going down: wait and see.
        """
        if name == "epmd":
            return is_running(process)
        port = self.record.ports["amqp" if name == "rabbitmq" else name]

        def settled() -> bool:
            return not is_running(process) or (
                accepts(port) and not wait_gone(process, _SETTLE_S) and accepts(port)
            )

        wait_until(settled, _GRACE_S)
        return is_running(process)

    def _launch_missing(self, names: Sequence[str]) -> None:
        for name in names:
            if self.record.pid(name) is None:
                self._launch(name)

    def _launch(self, name: str) -> None:
        command, env = self._command(name)
        if wrapper := os.environ.get(_WRAPPER):
            command = [wrapper, name, *command]
        self.record.processes[name] = start_detached(command, env, self.record.log(name))
        self.record.save()

    def _await(
        self, name: str, answers: Callable[[], bool], timeout_s: float = _SERVER_START_S
    ) -> None:
        process = self.record.processes[name]
        if not wait_until(lambda: answers() or not is_running(process), timeout_s):
            raise StackError(f"{name} does not answer after {timeout_s:.0f} s")
        if not is_running(process):
            raise StackError(f"{name} has ended by itself:\n{self.tail(name)}")

    def _rabbitmq(self) -> RabbitMQ:
        ports = RabbitPorts(**{name: self.record.ports[name] for name in _RABBIT_PORTS})
        directory = self.record.directory / "rabbitmq"
        return RabbitMQ(directory, f"replicad-{self.record.identity}", self.record.password, ports)

    def _command(self, name: str) -> tuple[list[str], dict[str, str]]:
        """The command and the environment of one process; writes its configuration if any."""
        match name:
            case "zookeeper":
                directory = self.record.directory / "zookeeper"
                return zookeeper.prepare(directory, self.record.ports[name]), dict(os.environ)
            case "epmd":
                return self._rabbitmq().epmd_command(), self._rabbitmq().environment()
            case "rabbitmq":
                self._rabbitmq().prepare()
                return self._rabbitmq().command(), self._rabbitmq().environment()
        listen = f"{LOOPBACK}:{self.record.ports[name]}"
        common = ["--cluster", CLUSTER, "--zookeeper", zookeeper_hosts(self.record)]
        env = {key: value for key, value in os.environ.items() if not key.startswith("REPLICAD_")}
        if name in self.record.settings.gateway_names:
            return [*python("gateway"), *common, "--listen", listen], env
        data_dir = self.record.data_dir(name)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # By environment: every user of the machine can read a process's arguments.
        env["REPLICAD_AMQP"] = amqp_url(self.record.password, self.record.ports["amqp"])
        options = ["--name", name, "--data-dir", str(data_dir), "--listen", listen]
        return [*python("node"), *common, *options, "--advertise", http_url(self.record, name)], env


def python(*arguments: str) -> list[str]:
    """The command line of replicad itself, run by this very Python."""
    return [str(Path(sys.executable)), "-m", "replicad.cli", *arguments]
