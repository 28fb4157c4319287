"""`make bench`: whole systems side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from replicad.cli.stack import interruptible
from replicad.logs import configure_logging
from tests.benchmarks.compare import document, report, wrk
from tests.benchmarks.compare.bench import Bench
from tests.benchmarks.compare.plan import FAILOVER, IN_TURNS, PARTS, REPLICAS, STORED
from tests.benchmarks.compare.rounds import SYSTEMS, run_groups, run_rounds
from tests.benchmarks.compare.samples import Results, load
from tests.benchmarks.compare.stored import run_stored
from tests.benchmarks.compare.timeline import run_timelines
from tests.benchmarks.figures import goal_table
from tests.benchmarks.machine import command_line, describe_machine


def _names(known: tuple[str, ...], given: str) -> list[str]:
    """Names from a list with commas, in the order that is known.

    Raises:
        BadParameter: One is not known.
    """
    wanted = given.split(",")
    unknown = set(wanted) - set(known)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
    return [name for name in known if name in wanted]


@click.command()
@click.option("--parts", default=",".join(PARTS), show_default=True)
@click.option("--systems", default=",".join(SYSTEMS), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--records", type=click.IntRange(20_000), default=1_000_000, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="build/bench",
    show_default=True,
    help="For a JSON file of each part. The systems' data are beside them while they run.",
)
@click.option("--publish", is_flag=True, help="Bring what was measured into docs/.")
@click.option("--report-only", is_flag=True, help="Write docs/ anew from the figures kept there.")
def compare(
    parts: str,
    systems: str,
    rounds: int,
    seconds: int,
    pairs: int,
    records: int,
    out: Path,
    publish: bool,
    report_only: bool,
) -> None:
    """Compare whole systems on this machine; nothing else should run on it."""
    if report_only:
        document.write(load(document.FIGURES, PARTS))
        return
    wrk.ensure()
    out.mkdir(parents=True, exist_ok=True)
    wanted, names = _names(PARTS, parts), _names(tuple(SYSTEMS), systems)
    for name in names:
        SYSTEMS[name]()  # Looks for its programs, and installs what is missing.
    machine, command = describe_machine(out), command_line("tests.benchmarks.compare")
    results = {part: Results(part, machine, command, seconds) for part in wanted}
    bench = Bench(out, seconds, results, lambda part: part.save(out))
    with interruptible():
        in_turns = [part for part in IN_TURNS if part in wanted]
        if in_turns:
            run_rounds(bench, rounds, names, in_turns)
            _tell(results, in_turns, publish)
        if REPLICAS in wanted:
            run_groups(bench, rounds)
            _tell(results, [REPLICAS], publish)
        if STORED in wanted:
            run_stored(bench, pairs, records)
            _tell(results, [STORED], publish)
        if FAILOVER in wanted:
            run_timelines(bench, names)
            _tell(results, [FAILOVER], publish)
    click.echo(goal_table(report.goals(results)))


def _tell(results: dict[str, Results], parts: Sequence[str], publish: bool) -> None:
    """Print the tables of parts that are complete, and bring them into docs/."""
    for part in parts:
        click.echo(report.tables(results[part]) + "\n")
        if publish:
            results[part].save(document.FIGURES)
    if publish:
        document.write(load(document.FIGURES, PARTS))


if __name__ == "__main__":
    configure_logging("WARNING")
    compare()
