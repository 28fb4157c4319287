"""A stack in one process, which needs nothing but Python. For trying replicad out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

import click

from replicad.errors import StackError
from replicad.stack.control import Answer, Request, Verb, ask
from replicad.stack.processes import end, is_running, start_detached, wait_until
from replicad.stack.record import Record

_PROCESS: Final = "embedded"
_START_S: Final = 20.0
_GRACE_S: Final = 10.0
_VERBS: Final[dict[signal.Signals, Verb]] = {signal.SIGTERM: "stop", signal.SIGKILL: "crash"}


class EmbeddedBackend:
    """Starts the process, and tells it what to start and stop inside."""

    def __init__(self, record: Record) -> None:
        """Take over the process that the record names."""
        self.record = record

    def prepare(self) -> None:
        """Nothing is needed; say what this is not."""
        click.echo(
            "embedded: one process with broker and coordinator in memory, for trying out; "
            "it survives the loss of a replica, not of the process",
            err=True,
        )

    def bring_up(self) -> None:
        """Start whatever does not run, and make the cluster if it is new."""
        settings = self.record.settings
        if self.record.pid(_PROCESS) is None:
            self.record.choose_ports((*settings.node_names, *settings.gateway_names))
            self._launch()
        for name in settings.node_names:
            self._ask("start", name)
        self._ask("init")
        for name in settings.gateway_names:
            self._ask("start", name)

    def pids(self) -> dict[str, int]:
        """The process's pid, for everything that runs in it."""
        pid = self.record.pid(_PROCESS)
        if pid is None:
            return {}
        return dict.fromkeys(self._ask("status").running, pid)

    def failed(self) -> list[str]:
        """The replicas that failed inside the process, or the process itself."""
        if self.record.pid(_PROCESS) is None:
            return [_PROCESS]
        settings = self.record.settings
        running = self._ask("status").running
        names = (*settings.node_names, *settings.gateway_names)
        return [name for name in names if name not in running]

    def tail(self, _name: str) -> str:
        """The last lines of the process's output."""
        return self.record.tail(_PROCESS)

    def start(self, name: str) -> None:
        """Start a replica or gateway inside the process."""
        self._ask("start", name)

    def stop(self, name: str, number: signal.Signals) -> None:
        """Stop a replica or gateway inside the process; SIGKILL crashes it."""
        if number not in _VERBS:
            raise StackError("inside an embedded stack only TERM and KILL have a meaning")
        self._ask(_VERBS[number], name)

    def down(self) -> None:
        """End the process."""
        process = self.record.processes.get(_PROCESS)
        if process is not None:
            end(process, signal.SIGTERM, _GRACE_S)
            del self.record.processes[_PROCESS]
            self.record.save()

    def _launch(self) -> None:
        process = start_detached(
            [
                str(Path(sys.executable)),
                *("-m", "replicad.cli", "stack", "embedded-serve"),
                *("--dir", str(self.record.directory)),
            ],
            dict(os.environ),
            self.record.log(_PROCESS),
        )
        self.record.processes[_PROCESS] = process
        self.record.save()

        def answers() -> bool:
            try:
                self._ask("status")
            except StackError:
                return not is_running(process)
            return True

        wait_until(answers, _START_S)
        if not is_running(process):
            raise StackError(f"the process has ended by itself:\n{self.tail(_PROCESS)}")

    def _ask(self, verb: Verb, name: str = "") -> Answer:
        return ask(self.record.directory, Request(verb, name))
