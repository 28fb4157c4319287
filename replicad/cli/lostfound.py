"""`replicad lostfound`: what was cut off a replica's log, and how to send it again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replicad.cli.options import url_option
from replicad.errors import ConfigurationError
from replicad.storage.lostfound import Kept, describe_kept, kept_entries, list_kept

if TYPE_CHECKING:
    from replicad.cli.resubmission import Told

_data_dir_option = click.option(
    "--data-dir",
    "data_dirs",
    envvar="REPLICAD_DATA_DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    multiple=True,
    help="A replica's data directory; it may be running. May be given several times.",
)


@click.group()
def lostfound() -> None:
    """See and send again what was cut off a log.

    A replica cuts what was never acknowledged: entries that a new leader does not have.
    """


@lostfound.command(name="list")
@_data_dir_option
@url_option(required=False)
def list_files(data_dirs: tuple[Path, ...], url: str | None) -> None:
    """Show the files in lost+found, and with --url what became of each entry."""
    for kept in _all_kept(data_dirs):
        click.echo(_line(kept))
        if url is not None:
            from replicad.cli.resubmission import look_up

            asyncio.run(_show(look_up(url, kept_entries(kept.path))))


@lostfound.command()
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False), nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All files of the data directories.")
@_data_dir_option
@url_option(required=True)
def resubmit(
    files: tuple[Path, ...], everything: bool, data_dirs: tuple[Path, ...], url: str
) -> None:
    """Send every insert in FILES again, with its own request id: none is stored twice.

    Updates, deletes and batches are never sent again: they rest on what stood before. It may be
    interrupted and done again. Segments from a quarantine may be given as well.
    """
    from replicad.cli.resubmission import resubmit as send_again

    if everything == bool(files):
        raise click.UsageError("name files, or --all with --data-dir")
    total: Counter[str] = Counter()
    for kept in _all_kept(data_dirs) if everything else map(describe_kept, files):
        click.echo(_line(kept))
        total += asyncio.run(_show(send_again(url, kept_entries(kept.path))))
    click.echo(", ".join(f"{count} {fate}" for fate, count in total.items()) or "nothing to send")


def _line(kept: Kept) -> str:
    epoch = "?" if kept.epoch is None else kept.epoch
    garbled = f"  garbled lines {kept.garbled}" if kept.garbled else ""
    return (
        f"{kept.path}  first {kept.first}  epoch {epoch}  entries {kept.entries}  "
        f"inserts {len(kept.requests)}  others {kept.others}{garbled}"
    )


def _all_kept(data_dirs: Sequence[Path]) -> list[Kept]:
    if not data_dirs:
        raise ConfigurationError("name a replica's data directory with --data-dir")
    return [kept for data_dir in data_dirs for kept in list_kept(data_dir)]


async def _show(tellings: AsyncIterator[Told]) -> Counter[str]:
    total: Counter[str] = Counter()
    async for told in tellings:
        total[told.fate.value] += 1
        where = "" if told.index is None else f" at {told.index}"
        entry = told.entry
        name = entry.key or len(entry.changes)
        click.echo(f"  {entry.operation} {name}  request {entry.request}  {told.fate.value}{where}")
    return total
