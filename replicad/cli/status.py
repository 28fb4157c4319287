"""`replicad status`: who leads, who is in sync, and how far everybody is."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from replicad.cli.connection import connect, gateway_options, json_option
from replicad.cli.printing import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from replicad.client import SyncClient

_INTERVAL_S: Final = 1.0


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Again every second; end with Ctrl-C.")
@gateway_options
@json_option
def status(watch: bool, urls: str, timeout_s: float, as_json: bool) -> None:
    """Show the cluster."""
    with suppress(KeyboardInterrupt), connect(urls, timeout_s) as client:
        if watch and not as_json:
            _watch(client)
        while True:
            report = client.cluster()
            if as_json:
                print_json(report)
            else:
                from rich.console import Console

                Console().print(_table(report))
            if not watch:
                return
            time.sleep(_INTERVAL_S)


def _watch(client: SyncClient) -> None:
    from rich.live import Live

    from replicad.client import ClientError

    with Live(auto_refresh=False) as live:
        while True:
            try:
                live.update(_table(client.cluster()), refresh=True)
            except ClientError as error:
                live.update(f"no answer: {error}", refresh=True)
            time.sleep(_INTERVAL_S)


def _table(report: dict[str, Any]) -> Table:
    from rich.table import Table

    isr = report["isr"]
    title = (
        f"epoch {report['epoch']}, leader {report['leader'] or 'none'}, "
        f"in sync {len(isr)} (at least {report['min_in_sync']})"
    )
    columns = ("replica", "role", "in sync", "last", "committed", "applied", "lag", "heard", "url")
    table = Table(*columns, title=title)
    for replica in report["replicas"]:
        heard = replica["last_contact_ms"]
        told = (
            replica["name"],
            replica["role"],
            "yes" if replica["name"] in isr else "no",
            *(replica[name] for name in ("last_index", "commit_index", "applied_index", "lag")),
            None if heard is None else f"{heard} ms",
            replica["url"],
        )
        table.add_row(*("" if value is None else str(value) for value in told))
    return table
