"""`replicad stack`: a whole cluster on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
import orjson

from replicad.cli.options import MinInSyncType, directory_option
from replicad.stack import commands, packages
from replicad.stack.description import Description
from replicad.stack.record import BACKENDS, Backend

_SIGNALS = sorted(member.name.removeprefix("SIG") for member in signal.Signals)


@click.group()
def stack() -> None:
    """Run a whole cluster on this machine: servers, replicas and gateways."""


@stack.command()
@click.option(
    "--backend",
    type=click.Choice([*BACKENDS, "auto"]),
    default="auto",
    show_default=True,
    help="How to run it; auto: native if it can be, else compose, else embedded.",
)
@click.option("--replicas", type=click.IntRange(1, 15), help="How many.  [default: 3]")
@click.option(
    "--min-in-sync",
    type=MinInSyncType(),
    help="Never acknowledge with fewer replicas in sync.  [default: a majority]",
)
@click.option("--gateways", type=click.IntRange(1, 15), help="How many.  [default: 1]")
@directory_option
@click.option(
    "--gateway-port",
    type=click.IntRange(1, 65535),
    help="Of the first gateway.  [default: a free one]",
)
@click.option("--detach", is_flag=True, help="Leave it running; otherwise Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def up(
    backend: str,
    replicas: int | None,
    min_in_sync: int | str | None,
    gateways: int | None,
    directory: Path,
    gateway_port: int | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Start a cluster, or whatever of it does not run, and wait until it can be used."""
    known: dict[str, Backend] = {name: name for name in BACKENDS}
    wishes = commands.Wishes(known.get(backend), replicas, min_in_sync, gateways, gateway_port)
    with interruptible():
        if detach:
            show(commands.up(directory, wishes), as_json=as_json)
        else:
            with foreground(directory):
                show(commands.up(directory, wishes), as_json=as_json)
                hold(directory)


@stack.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def status(directory: Path, as_json: bool) -> None:
    """Show what runs."""
    show(commands.status(directory), as_json=as_json)


@stack.command()
@directory_option
def down(directory: Path) -> None:
    """End everything that the stack started. Its data stay."""
    commands.down(directory)


@stack.command()
@click.argument("name")
@directory_option
def start(name: str, directory: Path) -> None:
    """Start one replica again, or: gateway, rabbitmq, zookeeper."""
    commands.start(directory, name)


@stack.command()
@click.argument("name")
@directory_option
@click.option(
    "--signal",
    "signal_name",
    type=click.Choice(_SIGNALS, case_sensitive=False),
    default="TERM",
    show_default=True,
    help="KILL crashes it; STOP and CONT pause it.",
)
def stop(name: str, directory: Path, signal_name: str) -> None:
    """Stop one replica, or: gateway, rabbitmq, zookeeper."""
    commands.stop(directory, name, signal.Signals[f"SIG{signal_name}"])


@stack.command()
def prepare() -> None:
    """Install RabbitMQ and ZooKeeper when they are missing."""
    packages.ensure()


@stack.command(name="embedded-serve", hidden=True)
@directory_option
def embedded_serve(directory: Path) -> None:
    """Be the one process of an embedded stack."""
    from replicad.logs import configure_logging
    from replicad.stack.embedded_server import serve

    configure_logging()
    serve(directory.absolute())


def show(description: Description, *, as_json: bool) -> None:
    """Print a description: for programs, or for people."""
    if as_json:
        click.echo(orjson.dumps(description).decode())
        return
    gateways = description.get("gateways", [description["gateway"]])
    servers = [("gateway", gateway["url"], gateway["pid"]) for gateway in gateways]
    servers += [(node["name"], node["url"], node["pid"]) for node in description["nodes"]]
    if description["rabbitmq"] is not None:
        rabbitmq = description["rabbitmq"]
        servers.append(("rabbitmq", rabbitmq["management"], rabbitmq["pid"]))
    if description["zookeeper"] is not None:
        servers.append(
            ("zookeeper", description["zookeeper"]["hosts"], description["zookeeper"]["pid"])
        )
    for name, address, pid in servers:
        click.echo(f"{name:10} {address:30} {'stopped' if pid is None else f'pid {pid}'}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the command as Ctrl-C does, so that it cleans up.

    SIGINT is among them because a shell's background job inherits it as ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def foreground(directory: Path) -> Iterator[None]:
    """Take the stack down at Ctrl-C, whenever that comes, or when the block is done.

    After a failure only if nothing of it ran before.
    """
    ran_before = commands.is_running(directory)
    try:
        yield
    except KeyboardInterrupt:
        click.echo("ending the stack ...", err=True)
    except BaseException:
        if not ran_before:
            commands.down(directory)
        raise
    commands.down(directory)


def hold(directory: Path) -> None:
    """Stay until somebody else took the stack down."""
    while commands.is_running(directory):
        time.sleep(0.5)
