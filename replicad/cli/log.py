"""`replicad log`: look into a replica's log, whether it runs or not."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import click
import orjson

from replicad.cli import logfiles
from replicad.cli.connection import NOT_FOUND

_POLL_S: Final = 0.2
_where = click.argument("path", metavar="DATA_DIR", type=click.Path(path_type=Path, exists=True))
_raw = click.option("--json", "as_json", is_flag=True, help="The lines as they stand there.")


@click.group()
def log() -> None:
    """Show or check the log in a DATA_DIR, or one segment of it."""


@log.command()
@_where
@click.option("--from", "first", type=click.IntRange(min=1), default=1, help="The first index.")
@click.option("--count", type=click.IntRange(min=1), help="How many entries.")
@_raw
def show(path: Path, first: int, count: int | None, as_json: bool) -> None:
    """Show entries. Exit code 3: there is none from --from on."""
    line = None
    for line in islice(logfiles.lines(path, first), count):
        _show(line, as_json)
    if line is None:
        click.echo(f"replicad: the log in {path} holds no entry {first}", err=True)
        sys.exit(NOT_FOUND)


@log.command()
@_where
@click.option("--lines", "-n", "count", type=click.IntRange(min=0), default=10, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Wait for further ones; end with Ctrl-C.")
@_raw
def tail(path: Path, count: int, follow: bool, as_json: bool) -> None:
    """Show the last entries."""
    last = max((line.at for line in logfiles.lines(path)), default=0)
    first = max(1, last - count + 1)
    with suppress(KeyboardInterrupt):
        while True:
            for line in logfiles.lines(path, first):
                _show(line, as_json)
                first = line.at + 1
            if not follow:
                return
            time.sleep(_POLL_S)


@log.command()
@_where
def verify(path: Path) -> None:
    """Check that every entry follows from the one before. Exit code 1: one does not."""
    entries, last = 0, None
    for line in logfiles.verified(path):
        entries, last = entries + 1, line
    digest = logfiles.claimed(last.text).hex() if last is not None else "none"
    begin = "" if logfiles.digest_before(path) is not None else "; the first was taken as it is"
    click.echo(f"{entries} entries follow from each other{begin}; last digest {digest}")


def _show(line: logfiles.Line, as_json: bool) -> None:
    if as_json:
        click.echo(line.text)
        return
    entry = orjson.loads(line.text)
    about = " ".join(str(entry[name]) for name in ("collection", "key") if entry[name] is not None)
    click.echo(
        f"{entry['index']}  {entry['time']}  epoch {entry['epoch']}  {entry['operation']}  "
        f"{about}  {entry['digest'][:12]}"
    )
