"""What a stack remembers in DIR/stack.json: what was asked for, its ports, and its processes.

Written whole and renamed into place after every change, above all right after each start of a
process: whatever ends the starter, `stack down` finds what it left running.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

import orjson

from replicad.errors import StackError
from replicad.stack.ports import free_port, is_free
from replicad.stack.processes import ProcessId, is_running
from replicad.storage.durable import replace_file

Backend = Literal["native", "compose", "embedded"]
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
CLUSTER: Final = "local"
_FILE: Final = "stack.json"
_TAIL_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for at the stack's first start; the same in every later one.

    Attributes:
        backend: How the cluster runs.
        replicas: How many; they are called n1, n2, ...
        min_in_sync: The stored ISR never shrinks below this many.
        gateways: How many.
        lists_gateways: Whether the description lists all gateways: it was asked for a number.
        gateway_port: The first gateway's port when one was given; otherwise any free one.
    """

    backend: Backend
    replicas: int
    min_in_sync: int
    gateways: int
    lists_gateways: bool
    gateway_port: int | None

    @property
    def node_names(self) -> tuple[str, ...]:
        """The replicas' names."""
        return tuple(f"n{number}" for number in range(1, self.replicas + 1))

    @property
    def gateway_names(self) -> tuple[str, ...]:
        """The gateways' names: gateway, gateway2, gateway3, ..."""
        return ("gateway", *(f"gateway{number}" for number in range(2, self.gateways + 1)))


@dataclass(slots=True)
class Record:
    """One stack.

    Attributes:
        directory: DIR, absolute.
        settings: What was asked for.
        identity: 8 random hex digits: names that must not meet another stack's carry them.
        password: Of the RabbitMQ user; random.
        ports: Loopback ports by what listens there; kept, so that addresses survive a restart.
        processes: What was started and not ended, by name.
    """

    directory: Path
    settings: Settings
    identity: str = field(default_factory=lambda: secrets.token_hex(4))
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, ProcessId] = field(default_factory=dict)

    def save(self) -> None:
        """Write DIR/stack.json, readable by its owner only: it holds a password."""
        fields = asdict(self)
        del fields["directory"]
        fields["processes"] = {name: list(process) for name, process in self.processes.items()}
        replace_file(self.directory / _FILE, orjson.dumps(fields, option=orjson.OPT_INDENT_2))

    def pid(self, name: str) -> int | None:
        """The pid of a process that runs now."""
        process = self.processes.get(name)
        return process.pid if process is not None and is_running(process) else None

    def data_dir(self, node: str) -> Path:
        """Where a replica keeps its data."""
        return self.directory / "data" / node

    def log(self, name: str) -> Path:
        """Where the output of a process goes."""
        return self.directory / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last lines of that output; empty when there is none."""
        log = self.log(name)
        if not log.exists():
            return ""
        return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])

    def choose_ports(self, names: tuple[str, ...]) -> None:
        """Give every name a port: the one it had if it is free, otherwise another one.

        Raises:
            StackError: The gateway's port, which was given, is taken.
        """
        given = self.settings.gateway_port
        if given is not None:
            if not is_free(given):
                raise StackError(f"port {given} is taken: choose another one with --gateway-port")
            self.ports["gateway"] = given
        for name in names:
            if name not in self.ports or not is_free(self.ports[name]):
                self.ports[name] = free_port(self.ports.values())
        self.save()


def load(directory: Path) -> Record | None:
    """Read DIR/stack.json; None when there is no stack.

    Raises:
        StackError: The file is not one of ours.
    """
    path = directory / _FILE
    try:
        fields = orjson.loads(path.read_bytes())
        settings = Settings(**fields.pop("settings"))
        processes = {name: ProcessId(*pair) for name, pair in fields.pop("processes").items()}
        return Record(directory=directory, settings=settings, processes=processes, **fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StackError(f"{path} cannot be read: {error}") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other commands away from this stack. The kernel lifts the lock if we die."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StackError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
