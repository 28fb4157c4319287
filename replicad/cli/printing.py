"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click
import orjson

_COLUMNS_MAX: Final = 8


def print_json(value: object) -> None:
    """One line of JSON."""
    click.echo(orjson.dumps(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as wide as the terminal; None is shown as nothing."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console().print(table)


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """Records side by side: the fields that most of them have, in the order of the first."""
    names = list(dict.fromkeys(name for record in records for name in record))
    shown = names[:_COLUMNS_MAX]
    print_table(shown, ([record.get(name) for name in shown] for record in records))
    if len(names) > len(shown):
        click.echo(f"{len(names) - len(shown)} more fields: choose with --fields, or use --json")


def print_members(members: Mapping[str, object]) -> None:
    """One thing, a line for each of its members."""
    width = max(map(len, members), default=0)
    for name, value in members.items():
        click.echo(f"{name:{width}}  {_cell(value)}")


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case list() | tuple() if all(isinstance(each, str) for each in value):
            return ",".join(value)
        case _:
            return orjson.dumps(value).decode()
