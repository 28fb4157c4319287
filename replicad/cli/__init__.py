"""The command line: `replicad --help`.

Commands import what they run only when they run it: `stack status` should not wait for the
libraries of a daemon.
"""

from __future__ import annotations

import sys

import click

from replicad.cli.bulk import export, import_
from replicad.cli.changes import changes
from replicad.cli.cluster import cluster
from replicad.cli.collections import collections
from replicad.cli.completion import completion
from replicad.cli.connection import FAILED, exit_code_of
from replicad.cli.daemons import gateway, node
from replicad.cli.demo import demo
from replicad.cli.disk import disk
from replicad.cli.history import history
from replicad.cli.log import log
from replicad.cli.lostfound import lostfound
from replicad.cli.query import query
from replicad.cli.receipt import receipt
from replicad.cli.records import delete, get, patch, put
from replicad.cli.recovery import recover
from replicad.cli.recovery import status as cluster_status
from replicad.cli.stack import stack
from replicad.cli.status import status
from replicad.cli.transfer import transfer
from replicad.cli.verify import repair, verify
from replicad.errors import ReplicadError
from replicad.logs import configure_logging


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="replicad")
def replicad() -> None:
    """Keep JSON records on every in-sync replica, and prove it."""


for _command in (
    changes,
    cluster,
    collections,
    completion,
    delete,
    demo,
    disk,
    export,
    gateway,
    get,
    history,
    import_,
    log,
    lostfound,
    node,
    patch,
    put,
    query,
    receipt,
    repair,
    stack,
    status,
    transfer,
    verify,
):
    replicad.add_command(_command)
for _command in (recover, cluster_status):
    cluster.add_command(_command)


def main() -> None:
    """Run the command line; an error raised on purpose is one line and an exit code."""
    configure_logging("WARNING")  # To standard error; a daemon's command says more, its own way.
    try:
        replicad()
    except ReplicadError as error:
        click.echo(f"replicad: {error}", err=True)
        sys.exit(exit_code_of(error))
    except OSError as error:  # A file or a directory that the user named.
        click.echo(f"replicad: {error}", err=True)
        sys.exit(FAILED)
