"""What the commands of `replicad stack` do, whatever the backend."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click

from replicad.core.cluster import majority
from replicad.errors import StackError
from replicad.stack import compose, packages
from replicad.stack.backend import StackBackend
from replicad.stack.compose import ComposeBackend
from replicad.stack.description import Description, describe, http_url
from replicad.stack.embedded import EmbeddedBackend
from replicad.stack.native import NativeBackend
from replicad.stack.readiness import unready_reason
from replicad.stack.record import Backend, Record, Settings, load, locked

_READY_S: Final = 60.0
_POLL_S: Final = 0.1
_BACKENDS: Final[dict[Backend, Callable[[Record], StackBackend]]] = {
    "native": NativeBackend,
    "embedded": EmbeddedBackend,
    "compose": ComposeBackend,
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of `stack up`; None where one was not given."""

    backend: Backend | None = None
    replicas: int | None = None
    min_in_sync: int | str | None = None
    gateways: int | None = None
    gateway_port: int | None = None


def up(directory: Path, wishes: Wishes) -> Description:
    """Start a stack, or what is missing of it, and wait until it can be used.

    Raises:
        StackError: It cannot be used. What this call started is ended again.
    """
    directory = directory.absolute()
    with locked(directory):
        record = load(directory)
        if record is None:
            record = Record(directory, settle(wishes))
        else:
            record.settings = merge(record, wishes)
        backend = _backend(record)
        backend.prepare()
        found = set(backend.pids())
        if "gateway" in found and wishes.gateway_port not in (None, record.ports["gateway"]):
            raise StackError(f"the gateway runs on port {record.ports['gateway']}: stop it first")
        record.save()
        try:
            backend.bring_up()
            _await_ready(backend)
        except BaseException:
            with _uninterrupted():
                _end_again(backend, found)
            raise
        return describe(record, backend.pids())


def down(directory: Path) -> None:
    """End everything that a stack started. Nothing to end is fine."""
    backend = _find(directory)
    if backend is not None:
        with _uninterrupted(), locked(directory.absolute()):
            require(directory).down()


def status(directory: Path) -> Description:
    """Describe a stack as it is now."""
    backend = require(directory)
    return describe(backend.record, backend.pids())


def is_running(directory: Path) -> bool:
    """Whether anything of the stack in a directory runs."""
    backend = _find(directory)
    return backend is not None and bool(backend.pids())


def start(directory: Path, name: str) -> None:
    """Start one replica or server again."""
    require(directory)
    with locked(directory.absolute()):
        require(directory).start(name)


def stop(directory: Path, name: str, number: signal.Signals) -> None:
    """Signal one replica or server, and wait for its end if the signal ends it."""
    require(directory)
    with locked(directory.absolute()):
        require(directory).stop(name, number)


def require(directory: Path) -> StackBackend:
    """The stack in a directory.

    Raises:
        StackError: There is none.
    """
    backend = _find(directory)
    if backend is None:
        raise StackError(f"there is no stack in {directory}: replicad stack up --dir {directory}")
    return backend


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not leave half of a stack running."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _find(directory: Path) -> StackBackend | None:
    record = load(directory.absolute())
    return None if record is None else _backend(record)


def _backend(record: Record) -> StackBackend:
    return _BACKENDS[record.settings.backend](record)


def settle(wishes: Wishes) -> Settings:
    """The settings of a new stack."""
    replicas = 3 if wishes.replicas is None else wishes.replicas
    minimum = _minimum(wishes.min_in_sync, replicas)
    if not 1 <= minimum <= replicas:
        raise StackError(f"--min-in-sync {minimum} does not fit {replicas} replicas")
    return Settings(
        backend=wishes.backend or _choose_backend(),
        replicas=replicas,
        min_in_sync=minimum,
        gateways=wishes.gateways or 1,
        lists_gateways=wishes.gateways is not None,
        gateway_port=wishes.gateway_port,
    )


def _minimum(wish: int | str | None, replicas: int) -> int:
    if wish is None:
        return majority(replicas)
    return replicas if isinstance(wish, str) else wish


def merge(record: Record, wishes: Wishes) -> Settings:
    """The recorded settings, with what may change from one start to the next.

    Raises:
        StackError: An option contradicts what the stack was made with.
    """
    old = record.settings
    wanted = {
        "backend": (wishes.backend or old.backend, old.backend),
        "replicas": (wishes.replicas or old.replicas, old.replicas),
        "min-in-sync": (
            old.min_in_sync
            if wishes.min_in_sync is None
            else _minimum(wishes.min_in_sync, old.replicas),
            old.min_in_sync,
        ),
        "gateways": (wishes.gateways or old.gateways, old.gateways),
    }
    for option, (wish, is_so) in wanted.items():
        if wish != is_so:
            raise StackError(
                f"the stack in {record.directory} was made with --{option} {is_so}, not {wish}"
            )
    return replace(
        old,
        lists_gateways=old.lists_gateways or wishes.gateways is not None,
        gateway_port=wishes.gateway_port or old.gateway_port,
    )


def _choose_backend() -> Backend:
    missing = packages.missing()
    if not missing:
        chosen: Backend = "native"
        reason = "RabbitMQ and ZooKeeper are installed"
    elif packages.can_install():
        chosen, reason = "native", f"{' and '.join(missing)} can be installed"
    elif compose.engine_answers():
        chosen, reason = "compose", f"{' and '.join(missing)} missing, a container engine answers"
    else:
        chosen = "embedded"
        reason = f"{' and '.join(missing)} missing, and no container engine answers; for trying out"
    click.echo(f"backend {chosen}: {reason}", err=True)
    return chosen


def _await_ready(backend: StackBackend) -> None:
    settings = backend.record.settings
    urls = [http_url(backend.record, name) for name in settings.gateway_names]
    deadline = time.monotonic() + _READY_S
    while (reason := unready_reason(urls, settings.node_names)) is not None:
        failed = backend.failed()
        if failed:
            raise StackError(f"{', '.join(failed)} ended by itself; {reason}")
        if time.monotonic() > deadline:
            raise StackError(f"not ready after {_READY_S:.0f} s: {reason}")
        time.sleep(_POLL_S)


def _end_again(backend: StackBackend, found: set[str]) -> None:
    """After a failed `up`: show why, and end what it had started."""
    settings = backend.record.settings
    for name in (*settings.node_names, *settings.gateway_names):
        text = backend.tail(name)
        if text:
            click.echo(f"--- {name}\n{text}", err=True)
    if not found:
        backend.down()
        return
    for name in set(backend.pids()) - found:
        backend.stop(name, signal.SIGTERM)
