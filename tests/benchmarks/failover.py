"""`make bench-failover`: how long a fault stops writes, beside etcd, and how replicas come back."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
import click
import uvloop

from replicad.cli.stack import interruptible
from replicad.logs import configure_logging
from tests.benchmarks.etcd import Etcd
from tests.benchmarks.etcd import ensure as ensure_etcd
from tests.benchmarks.faults import FAULTS, FaultFigures, await_level, measure_fault
from tests.benchmarks.machine import command_line, describe_machine
from tests.benchmarks.recovery import (
    CatchUpFigures,
    RestartFigures,
    fill,
    measure_catch_up,
    measure_restart,
)
from tests.benchmarks.replicad_stack import Replicad
from tests.benchmarks.report import Results
from tests.benchmarks.system import System

_RECOVERY: Final = ("catch-up", "restart")
_SYSTEMS: Final = ("replicad", "etcd")
_CATCH_UPS: Final = 3


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--writers", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--entries",
    type=click.IntRange(1_000),
    default=1_000_000,
    show_default=True,
    help="In the log of a restarted replica; one that catches up missed three tenths of it.",
)
@click.option(
    "--only",
    type=click.Choice([*FAULTS, *_RECOVERY]),
    multiple=True,
    help="Measure this; may be repeated.  [default: everything]",
)
@click.option("--system", type=click.Choice(_SYSTEMS), help="Only this one.  [default: both]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="build/bench-failover",
    show_default=True,
    help="Two files, .json and .md. The clusters' data are beside them while they run.",
)
def failover(
    rounds: int, writers: int, entries: int, only: tuple[str, ...], system: str | None, out: Path
) -> None:
    """Measure failovers and recoveries on this machine; nothing else should run on it."""
    wanted = only or (*FAULTS, *_RECOVERY)
    faults = [fault for fault in FAULTS if fault in wanted]
    if faults and system != "replicad":
        ensure_etcd()
    out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(
        describe_machine(out.parent), command_line("tests.benchmarks.failover"), writers
    )
    bench = _Bench(results, out)
    with interruptible():
        for number in range(rounds if faults else 0):
            # In turns, each first as often as the other: whatever drifts touches both alike.
            order = _SYSTEMS if number % 2 == 0 else _SYSTEMS[::-1]
            for name in order if system is None else (system,):
                bench.faults(Replicad() if name == "replicad" else Etcd(), faults, number)
        recovery = [part for part in _RECOVERY if part in wanted]
        if recovery and system != "etcd":
            bench.recovery(recovery, rounds, entries)
    click.echo(results.markdown())
    click.echo(f"written to {out.with_suffix('.json')} and {out.with_suffix('.md')}", err=True)
    sys.exit(any(results.lost.values()))


class _Bench:
    """Runs one system after the other and adds to the results."""

    def __init__(self, results: Results, out: Path) -> None:
        self._results = results
        self._out = out

    def faults(self, system: System, faults: Collection[str], number: int) -> None:
        """One round of all faults on one system, made anew."""
        with self._running(system), _runner() as runner:
            runner.run(self._faults(system, faults, number))

    async def _faults(self, system: System, faults: Collection[str], number: int) -> None:
        acknowledged: set[str] = set()
        # Of the round: both systems draw the same.
        random = Random(number)  # noqa: S311 - picks victims
        async with _session() as session:
            for fault in faults:
                figures, keys = await measure_fault(
                    system, session, fault, number, self._results.writers, random
                )
                acknowledged |= keys
                self._results.faults.append(figures)
                self._tell(figures)
            lost = len(acknowledged - await system.keys(session))
        self._results.lost[system.name] = self._results.lost.get(system.name, 0) + lost
        self._results.save(self._out)

    def recovery(self, parts: Collection[str], rounds: int, entries: int) -> None:
        """Catch-ups, and then restarts with a log of `entries`."""
        stack = Replicad()
        with self._running(stack), _runner() as runner:
            runner.run(self._recovery(stack, parts, rounds, entries))

    async def _recovery(
        self, stack: Replicad, parts: Collection[str], rounds: int, entries: int
    ) -> None:
        async with _session() as session:
            missed = entries * 3 // 10
            if "catch-up" in parts:
                await fill(stack, session, "base", entries - _CATCH_UPS * missed)
                for number in range(_CATCH_UPS):
                    catch_up = await measure_catch_up(stack, session, number, missed)
                    self._results.catch_ups.append(catch_up)
                    self._tell(catch_up)
            if "restart" in parts:
                leader = await stack.leader(session)
                there = (await stack.status(session, leader))["last_index"]
                await fill(stack, session, "more", entries - there)
                await await_level(stack, session)
                for number in range(rounds):
                    for ended_by in (signal.SIGTERM, signal.SIGKILL):
                        restart = await measure_restart(stack, session, number, ended_by)
                        self._results.restarts.append(restart)
                        self._tell(restart)

    def _tell(self, figures: FaultFigures | CatchUpFigures | RestartFigures) -> None:
        """Save what there is, and show that it goes on: one line a measurement."""
        self._results.save(self._out)
        shown = (
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in asdict(figures).items()
        )
        click.echo("  ".join(shown), err=True)

    @contextmanager
    def _running(self, system: System) -> Iterator[None]:
        """A new cluster; its directory is kept for a look if the measurement fails."""
        directory = tempfile.mkdtemp(prefix=f"bench-{system.name}-", dir=self._out.parent)
        try:
            system.up(Path(directory).absolute())
            yield
        except BaseException:
            click.echo(f"what {system.name} left is in {directory}", err=True)
            raise
        finally:
            system.down()
        shutil.rmtree(directory)


def _runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )


if __name__ == "__main__":
    configure_logging("WARNING")
    failover()
