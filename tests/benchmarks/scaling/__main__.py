"""`python -m tests.benchmarks.scaling`: the figures and the tables of docs/scaling.md."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from replicad.cli.stack import interruptible
from tests.benchmarks.machine import describe_machine
from tests.benchmarks.scaling.probe import measure, show
from tests.benchmarks.scaling.tables import filled, with_figures

_PAGE = Path(__file__).parents[3] / "docs/scaling.md"


@click.group()
def scaling() -> None:
    """Measure what the arithmetic needs, and compute the tables."""


@scaling.command(name="measure")
@click.option("--beside", type=click.Path(path_type=Path, file_okay=False), default="build")
@click.option("--write", is_flag=True, help="Write them into the page, and compute its tables.")
def measure_command(beside: Path, write: bool) -> None:
    """Print figures for the first table; two minutes, during which nothing else should run."""
    beside.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="scaling-", dir=beside))
    try:
        with interruptible():
            click.echo(show(describe_machine(directory)))
            found = measure(directory)
    finally:
        shutil.rmtree(directory)
    click.echo(show(found))
    if write:
        _PAGE.write_text(filled(with_figures(_PAGE.read_text(), found)))


@scaling.command()
def tables() -> None:
    """Compute the other tables of the page anew from its first one."""
    _PAGE.write_text(filled(_PAGE.read_text()))


if __name__ == "__main__":
    scaling()
