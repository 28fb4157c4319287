"""A private RabbitMQ server from Debian's package, on loopback ports of its own.

Erlang's port mapper (epmd) would otherwise be started by the server, outlive it, and be shared
with every other Erlang program of the machine; here each server has its own, started before it.

Source: https://www.rabbitmq.com/docs/configure and /docs/networking.
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import StackError
from replicad.stack.ports import LOOPBACK

_PACKAGE = Path("/usr/lib/rabbitmq/lib")
_PLUGINS = "[rabbitmq_management,rabbitmq_prometheus].\n"
_AMQP_GREETING = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"
USER = "replicad"

_CONFIG = """\
listeners.tcp.1 = {address}:{amqp}
management.tcp.ip = {address}
management.tcp.port = {management}
prometheus.tcp.ip = {address}
prometheus.tcp.port = {prometheus}
default_user = {user}
default_pass = {password}
log.file = false
log.console = true
log.console.level = info
"""


def amqp_url(password: str, port: int) -> str:
    """The AMQP address with its credentials."""
    return f"amqp://{USER}:{password}@{LOOPBACK}:{port}/%2F"


def management_url(port: int) -> str:
    """The management page's address, without credentials."""
    return f"http://{LOOPBACK}:{port}/"


@dataclass(frozen=True, slots=True)
class RabbitPorts:
    """Loopback ports of one server."""

    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """One private server.

    Attributes:
        directory: Holds its configuration, data and Erlang cookie.
        node: Its Erlang node's name before the `@`; the data belong to that name.
        password: Of the one user, `replicad`. It counts when the data are made and stays.
        ports: Where it listens.
    """

    directory: Path
    node: str
    password: str
    ports: RabbitPorts

    def prepare(self) -> None:
        """Write the configuration files; the password's is readable by the owner only."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.directory / "rabbitmq.conf"
        config.touch(mode=0o600)
        config.write_text(
            _CONFIG.format(
                address=LOOPBACK,
                amqp=self.ports.amqp,
                management=self.ports.management,
                prometheus=self.ports.prometheus,
                user=USER,
                password=self.password,
            )
        )
        (self.directory / "enabled_plugins").write_text(_PLUGINS)
        # Named, though empty, so that the machine's own files in /etc/rabbitmq do not apply.
        (self.directory / "rabbitmq-env.conf").touch()
        (self.directory / "advanced.config").write_text("[].\n")

    def epmd_command(self) -> list[str]:
        """The command of the port mapper, which stays in the foreground."""
        epmd = shutil.which("epmd")
        if epmd is None:
            raise StackError("Erlang's epmd is missing: apt-get install rabbitmq-server")
        return [epmd, "-address", LOOPBACK, "-port", str(self.ports.epmd)]

    def command(self) -> list[str]:
        """The command of the server. The process becomes the Erlang machine itself."""
        return [str(_script())]

    def environment(self) -> dict[str, str]:
        """The environment of both processes, and of any `rabbitmqctl` that is to reach them."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("RABBITMQ_")}
        return own | {
            "HOME": str(self.directory),
            "TERM": "dumb",  # No colours in a log file.
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_CRASH_DUMP": str(self.directory / "erl_crash.dump"),
            "RABBITMQ_NODENAME": f"{self.node}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} "
                "-mnesia core_dir false"  # Else it may leave a file wherever we were started.
            ),
            # The script then replaces itself by the Erlang machine instead of waiting for it, so
            # that the pid we know is the server's own.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def answers(self) -> bool:
        """Whether AMQP clients are greeted and the management page listens."""
        try:
            with socket.create_connection((LOOPBACK, self.ports.amqp), 1.0) as connection:
                connection.sendall(_AMQP_GREETING)
                if connection.recv(1) != _METHOD_FRAME:
                    return False
            socket.create_connection((LOOPBACK, self.ports.management), 1.0).close()
        except OSError:
            return False
        return True


def _script() -> Path:
    # The wrapper in /usr/sbin insists on running as the system's rabbitmq user.
    scripts = sorted(_PACKAGE.glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if not scripts:
        raise StackError("RabbitMQ is missing: apt-get install rabbitmq-server")
    return scripts[-1]


def is_installed() -> bool:
    """Whether Debian's packages for it are there."""
    return shutil.which("epmd") is not None and any(_PACKAGE.glob("*/sbin/rabbitmq-server"))
