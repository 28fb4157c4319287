"""A stack of containers, from the files in compose/."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import replicad
from replicad.errors import StackError
from replicad.stack.ports import accepts
from replicad.stack.processes import wait_until
from replicad.stack.record import Record

_FILE: Final = Path(replicad.__file__).parents[1] / "compose" / "docker-compose.yml"
_SERVICES: Final = ("rabbitmq", "zookeeper", "n1", "n2", "n3", "gateway")
_SERVICE_LABEL: Final = "com.docker.compose.service"
_PROJECT_LABEL: Final = "com.docker.compose.project"
_GRACE_S: Final = 30.0
_START_S: Final = 60.0
_LETHAL: Final = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT)


class ComposeBackend:
    """Drives `docker compose`; one project for each stack."""

    def __init__(self, record: Record) -> None:
        """Take over the project that belongs to the record."""
        self.record = record
        self._project = f"replicad-{record.identity}"

    def prepare(self) -> None:
        """Check that an engine answers and that the compose file fits what was asked for."""
        if not _FILE.exists():
            raise StackError(f"{_FILE} is missing: a compose stack needs a checkout of replicad")
        if self.record.settings.replicas != 3 or self.record.settings.gateways != 1:
            raise StackError("compose/ has three replicas and one gateway; for more use native")
        if not engine_answers():
            raise StackError("no container engine answers: start one, such as Debian's docker.io")
        _compose_command()

    def bring_up(self) -> None:
        """Build the images and start whatever does not run."""
        if not self.pids():
            self.record.choose_ports(
                ("amqp", "management", "zookeeper", "n1", "n2", "n3", "gateway")
            )
        for path in self._mounts().values():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._compose("up", "--build", "--detach")

    def pids(self) -> dict[str, int]:
        """The pid of each container's first process, as the host sees it."""
        containers = self._containers()
        if not containers:
            return {}
        lines = _docker("inspect", "--format", "{{.State.Pid}}", *containers.values()).split()
        pids = zip(containers, map(int, lines), strict=True)
        return {name: pid for name, pid in pids if pid and name in _SERVICES}

    def failed(self) -> list[str]:
        """Which containers have ended."""
        running = self.pids()
        return [name for name in _SERVICES if name not in running]

    def tail(self, name: str) -> str:
        """The last lines of a container's output."""
        container = self._containers().get(name)
        return "" if container is None else _docker("logs", "--tail", "20", container)

    def start(self, name: str) -> None:
        """Start one container again, once it has ended."""
        container = self._container(name)
        _docker("start", container)
        port = self.record.ports["amqp" if name == "rabbitmq" else name]
        if not wait_until(lambda: accepts(port), _START_S):
            raise StackError(f"{name} does not answer after {_START_S:.0f} s")

    def stop(self, name: str, number: signal.Signals) -> None:
        """Send a signal, and wait for the end if it is one that ends a process."""
        container = self._container(name)
        if name not in self.pids():
            return
        _docker("kill", "--signal", number.name, container)
        if number in _LETHAL and not wait_until(lambda: name not in self.pids(), _GRACE_S):
            _docker("kill", container)

    def down(self) -> None:
        """Remove the containers and their network; the data in DIR stay."""
        self._compose("down")

    def _mounts(self) -> dict[str, Path]:
        """The directories that the containers keep their data in, by service."""
        servers = {name: self.record.directory / name for name in ("rabbitmq", "zookeeper")}
        return servers | {name: self.record.data_dir(name) for name in ("n1", "n2", "n3")}

    def _environment(self) -> dict[str, str]:
        """The variables of the compose file. Those that name images come from the caller."""
        own = {
            "REPLICAD_RABBITMQ_PASSWORD": self.record.password,
            "REPLICAD_MIN_IN_SYNC": str(self.record.settings.min_in_sync),
            # Files in DIR belong to whoever started the stack.
            "REPLICAD_USER": f"{os.getuid()}:{os.getgid()}",
        }
        ports = {f"REPLICAD_{name.upper()}_PORT": str(n) for name, n in self.record.ports.items()}
        mounts = {f"REPLICAD_{name.upper()}_DATA": str(p) for name, p in self._mounts().items()}
        return os.environ | own | ports | mounts

    def _compose(self, *arguments: str) -> None:
        command = [*_compose_command(), "--project-name", self._project, "--file", str(_FILE)]
        _run([*command, *arguments], self._environment())

    def _containers(self) -> dict[str, str]:
        """The project's containers, running or not: container id by service."""
        lines = _docker(
            *("ps", "--all", "--filter", f"label={_PROJECT_LABEL}={self._project}"),
            *("--format", f'{{{{.Label "{_SERVICE_LABEL}"}}}} {{{{.ID}}}}'),
        ).splitlines()
        return dict(line.split() for line in lines)

    def _container(self, name: str) -> str:
        container = self._containers().get(name) if name in _SERVICES else None
        if container is None:
            raise StackError(f"this stack has no {name!r}, only {', '.join(_SERVICES)}")
        return container


def engine_answers() -> bool:
    """Whether a container engine is there and answers."""
    docker = shutil.which("docker")
    return docker is not None and _succeeds([docker, "info"])


def _compose_command() -> list[str]:
    """Compose as the engine's plugin, or the older program of its own."""
    docker, standalone = shutil.which("docker"), shutil.which("docker-compose")
    if docker is not None and _succeeds([docker, "compose", "version"]):
        return [docker, "compose"]
    if standalone is not None:
        return [standalone]
    raise StackError("docker compose is missing; on Debian: apt-get install docker-compose")


def _succeeds(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed
    return done.returncode == 0


def _docker(*arguments: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise StackError("docker is missing; on Debian: apt-get install docker.io")
    return _run([docker, *arguments], dict(os.environ))


def _run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(  # noqa: S603 - the engine's client, with arguments of our own
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return done.stdout
