"""`replicad changes`: what happens to a collection."""

from __future__ import annotations

from contextlib import suppress

import click
import orjson

from replicad.cli.connection import collection_option, connect, gateway_options, json_option
from replicad.cli.printing import print_json


@click.command()
@click.option(
    "--since", default="0", show_default=True, metavar="CURSOR|now", help="Only what came after."
)
@click.option("--follow", "-f", is_flag=True, help="Wait for further ones; end with Ctrl-C.")
@collection_option
@gateway_options
@json_option
def changes(
    since: str, follow: bool, collection: str, urls: str, timeout_s: float, as_json: bool
) -> None:
    """Show every change after a cursor, in the order of the log.

    With --json each line holds the cursor with which to go on after it.
    """
    with suppress(KeyboardInterrupt), connect(urls, timeout_s) as client:
        for change in client.collection(collection).changes(since, follow_on=follow):
            if as_json:
                print_json(change)
            else:
                value = "" if change.value is None else orjson.dumps(change.value).decode()
                click.echo(
                    f"{change.cursor}  {change.time}  {change.operation}  {change.id}  {value}"
                )
