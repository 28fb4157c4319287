"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]+(:[0-9]+)?|https?://\[[0-9a-f:.]+\](:[0-9]+)?")

_CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class AddressType(click.ParamType[Address]):
    """HOST:PORT; an IPv6 host stands in brackets."""

    name = "HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Parse, or fail with a message that shows the form."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) < 65536:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:8001", param, ctx)
        return Address(host.strip("[]"), int(port))


class MinInSyncType(click.ParamType[int | str]):
    """A number of replicas, or `all`."""

    name = "N|all"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Parse; `all` stays a word until the number of replicas is known."""
        if value == "all" or isinstance(value, int):
            return value
        if not str(value).isdigit() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither a number from 1 on nor 'all'", param, ctx)
        return int(str(value))


class OriginType(click.ParamType[str]):
    """The origin of web pages: scheme, host and port, or `*` for all of them."""

    name = "ORIGIN"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Check; a path, even a lone slash, would never equal what browsers send."""
        if value != "*" and not _ORIGIN.fullmatch(str(value)):
            self.fail(f"{value!r} is not an origin, such as https://forms.example", param, ctx)
        return str(value)


class ClusterNameType(click.ParamType[str]):
    """A cluster's name: what a dot or a slash ends in the names of exchanges and znodes."""

    name = "NAME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Check. `x.changes`, say, would be called as an exchange of the cluster `x` is."""
        if not _CLUSTER_NAME.fullmatch(str(value)):
            self.fail(f"{value!r} is not a name of 1 to 64 of A-Z a-z 0-9 _ -", param, ctx)
        return str(value)


cluster_option = click.option(
    "--cluster",
    envvar="REPLICAD_CLUSTER",
    type=ClusterNameType(),
    required=True,
    help="The cluster's name, in ZooKeeper's paths and RabbitMQ's exchange.",
)
zookeeper_option = click.option(
    "--zookeeper",
    envvar="REPLICAD_ZOOKEEPER",
    required=True,
    metavar="HOSTS",
    help="ZooKeeper's connection string: host:port,host:port.",
)
listen_option = click.option(
    "--listen",
    envvar="REPLICAD_LISTEN",
    type=AddressType(),
    required=True,
    help="Where to serve HTTP.",
)
directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=".replicad",
    show_default=True,
    help="Holds everything of the stack: data, logs, stack.json.",
)


def url_option(*, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option --url: a gateway."""
    return click.option(
        "--url",
        envvar="REPLICAD_URL",
        required=required,
        metavar="URL",
        help="A gateway, such as http://127.0.0.1:8080.",
    )
