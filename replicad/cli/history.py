"""`replicad history`: who led when, why that changed, and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import click
import orjson

from replicad.cli.options import url_option
from replicad.errors import ReplicadError

_TIMEOUT_S: Final = 10.0
_UNKNOWN: Final = "?"


class HistoryError(ReplicadError):
    """The gateway did not tell the history."""


@click.command()
@url_option(required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each election.")
def history(url: str, as_json: bool) -> None:
    """Show all elections, newest first."""
    failovers = asyncio.run(_fetch(url.rstrip("/")))
    if as_json:
        for failover in failovers:
            click.echo(orjson.dumps(failover).decode())
        return
    from rich.console import Console
    from rich.table import Column, Table

    time = Column("time", no_wrap=True)  # Else it is what a narrow terminal cuts.
    table = Table("epoch", time, "leader", "before", "why", "without leader", "in sync", "cut")
    for failover in failovers:
        table.add_row(*_row(failover))
    Console().print(table)


async def _fetch(url: str) -> list[dict[str, Any]]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/v1/cluster/history") as answer,
        ):
            body = await answer.read()
            if answer.status != 200:
                raise HistoryError(f"{url} answered {answer.status}")
        failovers: list[dict[str, Any]] = orjson.loads(body)["failovers"]
    except (aiohttp.ClientError, TimeoutError) as error:
        raise HistoryError(f"no answer from {url}: {error!r}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise HistoryError(f"what answers at {url} is no gateway of replicad") from error
    return failovers


def _row(failover: Mapping[str, Any]) -> tuple[str, ...]:
    leaderless = failover["leaderless_ms"]
    return (
        str(failover["epoch"]),
        failover["time"],
        failover["leader"],
        failover["previous_leader"] or "-",
        failover["reason"] or _UNKNOWN,
        "-" if leaderless is None else f"{leaderless} ms",
        f"{_names(failover['isr_before'])} -> {_names(failover['isr_after'])}",
        _cuts(failover["truncated"]),
    )


def _names(isr: list[str] | None) -> str:
    return _UNKNOWN if isr is None else ",".join(isr)


def _cuts(truncated: Mapping[str, int | None]) -> str:
    """Who cut how many entries; replicas that cut none are left out."""
    told = {name: _UNKNOWN if count is None else str(count) for name, count in truncated.items()}
    return " ".join(f"{name}:{count}" for name, count in told.items() if count != "0") or "-"
