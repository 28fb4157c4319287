"""`replicad receipt`: is what a receipt says in the log?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson

from replicad.cli import logfiles
from replicad.core.entry import BATCH, Entry, decode_entry
from replicad.errors import ConfigurationError, ReplicadError


class ReceiptError(ReplicadError):
    """The log does not hold what the receipt says."""


@click.group()
def receipt() -> None:
    """Check receipts of writes."""


@receipt.command()
@click.argument("file", metavar="RECEIPT", type=click.File("rb"))
@click.argument("path", metavar="DATA_DIR", type=click.Path(path_type=Path, exists=True))
def verify(file: BinaryIO, path: Path) -> None:
    """Check a RECEIPT (the JSON of a write's answer) against the log in DATA_DIR, offline.

    Every entry up to the receipt's is checked to follow from the one before; DATA_DIR may also be
    one segment. Exit code 1: the log does not hold what the receipt says.
    """
    told = _read(file)
    entry = _find(path, told["index"])
    expected = _members(entry)
    for member in ("digest", "collection", "id", "operation", "epoch", "etag", "results"):
        if member in told and told[member] != expected.get(member):
            raise ReceiptError(
                f"entry {entry.index} has the {member} {_shown(expected.get(member))}, "
                f"not {_shown(told[member])}"
            )
    click.echo(f"entry {entry.index} is in the log as the receipt says, written at {entry.time}")


def _members(entry: Entry) -> dict[str, object]:
    """What the receipt of this entry's write says."""
    results: list[dict[str, object]] = [
        {
            "id": change.key,
            "operation": change.operation,
            "etag": None if change.value is None else f'"{entry.index}"',
        }
        for change in entry.changes
    ]
    proof: dict[str, object] = {
        "collection": entry.collection,
        "epoch": entry.epoch,
        "digest": entry.digest.hex(),
    }
    return proof | (results[0] if entry.operation != BATCH else {"results": results})


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()[:200]


def _read(file: BinaryIO) -> dict[str, Any]:
    try:
        told: dict[str, Any] = orjson.loads(file.read())
        if type(told["index"]) is int and told["digest"] and told["collection"]:
            return told
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise ConfigurationError(f"{file.name} is no receipt: it lacks index, digest or collection")


def _find(path: Path, index: int) -> Entry:
    for line in logfiles.verified(path):
        if line.at == index:
            return decode_entry(line.text)
    raise ReceiptError(f"the log in {path} holds no entry {index}")
