"""`replicad get`, `put`, `patch`, `delete`, `verify-record`: one record."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

import click
import orjson

from replicad.cli.connection import (
    NOT_FOUND,
    collection_option,
    connect,
    gateway_options,
    json_option,
    key_option,
)
from replicad.cli.printing import print_json, print_members, print_table

if TYPE_CHECKING:
    from replicad.client import Receipt

_if_match = click.option(
    "--if-match", metavar="ETAG", help="Only if the record has this version, or * for any."
)


@click.command()
@click.argument("id_", metavar="ID")
@click.option("--history", is_flag=True, help="All versions that the log still has.")
@click.option("--everywhere", is_flag=True, help="Its digest at every replica, side by side.")
@collection_option
@gateway_options
@json_option
def get(
    id_: str,
    history: bool,
    everywhere: bool,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Show the record ID.

    With --json exactly the bytes that are stored. Exit code 3: there is none.
    """
    with connect(urls, timeout_s) as client:
        records = client.collection(collection)
        if history:
            _show_history([asdict(version) for version in records.history(id_)], as_json)
            return
        if everywhere:
            _show_replicas(records.verify(id_), as_json)
            return
        record = records.get(id_)
    if record is None:
        click.echo(f"replicad: there is no record {id_} in {collection}", err=True)
        sys.exit(NOT_FOUND)
    if as_json:
        sys.stdout.buffer.write(record.raw + b"\n")
        sys.stdout.buffer.flush()
    else:
        print_members({**record.value, "(etag)": record.etag})


@click.command()
@click.argument("id_", metavar="ID")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--new", "is_new", is_flag=True, help="Only if there is no such record yet.")
@_if_match
@key_option
@collection_option
@gateway_options
@json_option
def put(
    id_: str,
    file: BinaryIO,
    is_new: bool,
    if_match: str | None,
    key: str | None,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Store the JSON object in FILE (standard input if left out) as the record ID."""
    if is_new and if_match is not None:
        raise click.UsageError("--new and --if-match exclude each other")
    value = file.read()
    with connect(urls, timeout_s) as client:
        records = client.collection(collection)
        if is_new:
            receipt = records.put(id_, value, if_none_match="*", key=key)
        else:
            receipt = records.put(id_, value, if_match=if_match, key=key)
    show_receipt(receipt, as_json)


@click.command()
@click.argument("id_", metavar="ID")
@click.argument("changes", metavar="JSON")
@_if_match
@key_option
@collection_option
@gateway_options
@json_option
def patch(
    id_: str,
    changes: str,
    if_match: str | None,
    key: str | None,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Change fields of the record ID: '{"estado": "NY", "cargo": null}' sets one, removes one."""
    try:
        merge = orjson.loads(changes)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"not JSON: {error}") from error
    if not isinstance(merge, dict):
        raise click.UsageError("a patch is a JSON object")
    with connect(urls, timeout_s) as client:
        receipt = client.collection(collection).patch(id_, merge, if_match=if_match, key=key)
    show_receipt(receipt, as_json)


@click.command()
@click.argument("id_", metavar="ID")
@_if_match
@key_option
@collection_option
@gateway_options
@json_option
def delete(
    id_: str,
    if_match: str | None,
    key: str | None,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Delete the record ID. Exit code 3: there is none."""
    with connect(urls, timeout_s) as client:
        receipt = client.collection(collection).delete(id_, if_match=if_match, key=key)
    show_receipt(receipt, as_json)


def show_receipt(receipt: Receipt, as_json: bool) -> None:
    """Tell what a write did, and where it is; the JSON is what `receipt verify` takes."""
    if as_json:
        print_json(receipt)
    else:
        print_members(asdict(receipt))


def _show_history(versions: list[dict[str, object]], as_json: bool) -> None:
    if as_json:
        for version in versions:
            print_json(version)
    else:
        columns = ("index", "time", "operation", "digest", "value")
        print_table(columns, ([version[name] for name in columns] for version in versions))


def _show_replicas(told: dict[str, object], as_json: bool) -> None:
    replicas = told["replicas"]
    if as_json or not isinstance(replicas, dict):
        print_json(told)
        return
    columns = ("version", "sha256", "applied_index", "error")
    rows = ([name, *(said.get(c) for c in columns)] for name, said in replicas.items())
    print_table(("replica", *columns), rows)
    click.echo("all agree" if told["agree"] else "they do NOT agree")
