"""`replicad collections`: what there is, and by which rules."""

from __future__ import annotations

from typing import BinaryIO

import click
import orjson

from replicad.cli.connection import connect, gateway_options, json_option
from replicad.cli.printing import print_json, print_table


@click.group()
def collections() -> None:
    """List, show, define and delete collections."""


@collections.command("list")
@gateway_options
@json_option
def list_(urls: str, timeout_s: float, as_json: bool) -> None:
    """All collections."""
    with connect(urls, timeout_s) as client:
        items = client.collections()
    if as_json:
        for item in items:
            print_json(item)
    else:
        columns = ("name", "key", "indexes", "search", "version")
        print_table(columns, ([item.get(name) for name in columns] for item in items))


@collections.command()
@click.argument("name")
@gateway_options
def show(name: str, urls: str, timeout_s: float) -> None:
    """The definition of NAME, as `define` takes it."""
    with connect(urls, timeout_s) as client:
        definition = client.collection(name).definition()
    kept = {member: definition[member] for member in ("schema", "indexes", "search", "key")}
    click.echo(orjson.dumps(kept, option=orjson.OPT_INDENT_2).decode())


@collections.command()
@click.argument("name")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--force", is_flag=True, help="Also if existing records would not pass.")
@gateway_options
@json_option
def define(
    name: str, file: BinaryIO, force: bool, urls: str, timeout_s: float, as_json: bool
) -> None:
    """Create NAME, or change its definition to the JSON object in FILE (or standard input)."""
    try:
        definition = orjson.loads(file.read())
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"not JSON: {error}") from error
    with connect(urls, timeout_s) as client:
        told = client.collection(name).define(definition, force=force)
    if as_json:
        print_json(told)
    else:
        click.echo(f"{name} is defined")


@collections.command()
@click.argument("name")
@gateway_options
def delete(name: str, urls: str, timeout_s: float) -> None:
    """Delete NAME, which must be empty."""
    with connect(urls, timeout_s) as client:
        client.collection(name).drop()
    click.echo(f"{name} is deleted")
