"""The command line: `replicad --help`.

Commands import what they run only when they run it: `stack status` should not wait for the
libraries of a daemon.
"""

from __future__ import annotations

import sys

import click

from replicad.cli.cluster import cluster
from replicad.cli.daemons import gateway, node
from replicad.cli.demo import demo
from replicad.cli.disk import disk
from replicad.cli.history import history
from replicad.cli.lostfound import lostfound
from replicad.cli.recovery import recover, status
from replicad.cli.stack import stack
from replicad.cli.transfer import transfer
from replicad.cli.verify import repair, verify
from replicad.errors import ReplicadError
from replicad.logs import configure_logging


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="replicad")
def replicad() -> None:
    """Keep JSON records on every in-sync replica, and prove it."""


for _command in (
    cluster,
    demo,
    disk,
    gateway,
    history,
    lostfound,
    node,
    repair,
    stack,
    transfer,
    verify,
):
    replicad.add_command(_command)
for _command in (recover, status):
    cluster.add_command(_command)


def main() -> None:
    """Run the command line; an error raised on purpose is one line and exit code 1."""
    configure_logging("WARNING")  # To standard error; a daemon's command says more, its own way.
    try:
        replicad()
    except ReplicadError as error:
        click.echo(f"replicad: {error}", err=True)
        sys.exit(1)
