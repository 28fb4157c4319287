"""`replicad import` and `export`: many records, from and to files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from replicad.cli.connection import (
    FAILED,
    UNKNOWN,
    collection_option,
    connect,
    gateway_options,
    json_option,
)
from replicad.cli.importing import Source
from replicad.cli.printing import print_json
from replicad.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.progress import Progress

    from replicad.client import ImportResult

_CONTENT_TYPES: Final = {"ndjson": "application/x-ndjson", "csv": "text/csv"}

_format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(sorted(_CONTENT_TYPES)),
    help="[default: by the file's name, else ndjson]",
)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@_format_option
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Remember here how far it came; the next run goes on from there.",
)
@collection_option
@gateway_options
@json_option
def import_(
    file: BinaryIO,
    format_: str | None,
    state: Path | None,
    collection: str,
    urls: str,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Store every record in FILE whose id is not there yet; - is standard input.

    NDJSON has a record a line; CSV has the fields' names in its first row, and takes their types
    from the collection's schema. Safe to run again: what is stored counts as duplicate then. Exit
    code 1: some records are invalid. 6: what became of some is unknown.
    """
    name = format_ or _format_of(file.name)
    source = Source(file, csv=name == "csv", skip=_read_state(state))
    source.begin()
    tally = Counter[str]()
    with (
        _remembered(state, source),  # Outermost: nothing is taken from the source any more then.
        connect(urls, timeout_s) as client,
        _progress("importing", source.size) as progress,
    ):
        results = client.collection(collection).import_records(
            source.records(), content_type=_CONTENT_TYPES[name], header=source.header
        )
        for result in results:
            tally[result.status] += 1
            progress.update(progress.task_ids[0], completed=source.read_bytes)
            _tell(source.lines.pop(result.line), result, as_json, progress)
    if state is not None:
        state.unlink(missing_ok=True)
    _end_import(tally, as_json)


def _end_import(tally: Counter[str], as_json: bool) -> None:
    told = {status: tally[status] for status in ("stored", "duplicate", "invalid", "unknown")}
    if as_json:
        print_json({"tally": told})
    else:
        click.echo(", ".join(f"{count} {status}" for status, count in told.items()))
    if tally["unknown"]:
        sys.exit(UNKNOWN)
    if tally["invalid"]:
        sys.exit(FAILED)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@_format_option
@collection_option
@gateway_options
def export(file: Path, format_: str | None, collection: str, urls: str, timeout_s: float) -> None:
    """Write all records as of one moment to FILE; - is standard output.

    The file is there when all of it is; until then it is FILE.part.
    """
    content_type = _CONTENT_TYPES[format_ or _format_of(str(file))]
    with connect(urls, timeout_s) as client:
        blocks = client.collection(collection).export(content_type=content_type)
        if str(file) == "-":
            for block in blocks:
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return
        part = file.with_name(f"{file.name}.part")
        with part.open("wb") as out, _progress("exporting", None) as progress:
            for block in blocks:
                out.write(block)
                progress.update(progress.task_ids[0], advance=len(block))
        part.replace(file)
    click.echo(f"{file}: {file.stat().st_size} bytes")


def _format_of(name: str) -> str:
    return "csv" if name.lower().endswith(".csv") else "ndjson"


def _read_state(state: Path | None) -> int:
    if state is None:
        return 0
    with suppress(FileNotFoundError):
        text = state.read_text().strip()
        if not text.isdigit():
            raise ConfigurationError(f"{state} was not written by an import")
        return int(text)
    return 0


@contextmanager
def _remembered(state: Path | None, source: Source) -> Iterator[None]:
    """Note how far all records have an answer when the block is left, whatever ends it."""
    try:
        yield
    finally:
        if state is not None:
            state.write_text(f"{source.answered}\n")


def _tell(line: int, result: ImportResult, as_json: bool, progress: Progress) -> None:
    """With --json every result; else those of which a person should know."""
    if as_json:
        told = {"line": line, "id": result.id, "status": result.status, "reason": result.reason}
        print_json(told)
    elif result.status in ("invalid", "unknown"):
        text = f"line {line}: {result.status}: {result.reason}"
        progress.console.print(text, markup=False, highlight=False)


def _progress(what: str, total: int | None) -> Progress:
    """A bar on standard error, shown on terminals only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    progress.add_task(what, total=total)
    return progress
