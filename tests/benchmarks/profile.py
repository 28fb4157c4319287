"""`make profile`: where the processor's time goes while many clients store forms.

What each process takes for a write comes from the kernel's accounts, while nothing else is done.
Then py-spy looks at the gateway, the leader and a follower, under the same load.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import click

from replicad.cli.stack import interruptible
from replicad.logs import configure_logging
from tests.benchmarks.compare import wrk
from tests.benchmarks.compare.forms import prepared
from tests.benchmarks.compare.peer import Usage
from tests.benchmarks.compare.replicad import Replicad
from tests.benchmarks.figures import number, table
from tests.benchmarks.flames import shares
from tests.benchmarks.machine import command_line, describe_machine
from tests.benchmarks.system import BenchmarkError

_PAGE: Final = Path(__file__).parents[2] / "docs" / "performance.md"
_BEGIN: Final = "<!-- made by make profile -->\n"
_END: Final = "<!-- /made by make profile -->\n"
_PROFILED: Final = ("gateway", "leader", "follower 1")
_WARM_UP_S: Final = 2.0
# py-spy takes a moment until it looks, and the load must last for longer than it does.
_SPARE_S: Final = 3.0
_SAMPLES_PER_S: Final = 200
_FUNCTIONS: Final = 15


async def _press(system: Replicad, seconds: float, connections: int, tag: str) -> wrk.Answered:
    with tempfile.NamedTemporaryFile(prefix="requests-") as file:
        file.write(prepared(system.writes()))
        file.flush()
        return await wrk.press(system.url, Path(file.name), tag, connections, seconds)


async def _look(
    system: Replicad, seconds: float, connections: int, kind: str, tag: str, out: Path
) -> None:
    """Have samples taken of all that are profiled, into a file for each."""
    suffix = {"raw": "folded", "flamegraph": "svg"}[kind]
    pids = system.pids()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_press(system, seconds + _SPARE_S, connections, tag))
        for name in _PROFILED:
            path = out / f"{name.replace(' ', '-')}.{suffix}"
            tasks.create_task(_record(pids[name], seconds, kind, path))


async def _profile(system: Replicad, seconds: float, connections: int, out: Path) -> str:
    """All that is measured, as text; the graphs are in files."""
    await _press(system, _WARM_UP_S, connections, "warm")
    usage = Usage(system.pids())
    answered = await _press(system, seconds, connections, "cost")
    cpu_us = {name: 1e6 * s / answered.requests for name, s in usage.cpu_s().items()}
    await _look(system, seconds, connections, "raw", "look", out)
    await _look(system, seconds, connections, "flamegraph", "draw", out)
    tables = [_processes(answered, cpu_us)]
    for name in _PROFILED:
        folded = (out / f"{name.replace(' ', '-')}.folded").read_text()
        tables.append(_functions(name, folded))
    return "\n\n".join(tables)


def _processes(answered: wrk.Answered, cpu_us: dict[str, float]) -> str:
    rate = number(answered.requests / answered.seconds)
    told = f"{rate} writes/s, p50 {number(answered.p50_ms)} ms, p99 {number(answered.p99_ms)} ms"
    rows = [(name, number(us)) for name, us in cpu_us.items()]
    rows.append(("all", number(sum(cpu_us.values()))))
    return f"{told}\n\n{table(('process', 'processor time, us a write'), rows)}"


def _functions(name: str, folded: str) -> str:
    head = (f"{name}: function", "itself", "with what it calls")
    rows = [
        (f"`{share.function}`", f"{share.own:.1%}", f"{share.total:.1%}")
        for share in shares(folded.splitlines())[:_FUNCTIONS]
    ]
    return table(head, rows)


async def _record(pid: int, seconds: float, kind: str, path: Path) -> None:
    """Let py-spy look at a process, function by function.

    It must not stop the process for each look: that lets threads that only wait seem to work.

    Raises:
        BenchmarkError: It cannot.
    """
    options = ("--pid", str(pid), "--duration", str(round(seconds)), "--rate", str(_SAMPLES_PER_S))
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("py-spy")), "record", *options),
        *("--function", "--nonblocking", "--format", kind, "--output", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkError(f"py-spy: {output.decode()[-1000:]}")


@click.command()
@click.option("--connections", type=click.IntRange(1), default=64, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="build/profile",
    show_default=True,
    help="For the graphs and tables. The system's data are beside them while it runs.",
)
@click.option("--publish", is_flag=True, help="Put the tables into docs/performance.md.")
def profile(connections: int, seconds: int, out: Path, publish: bool) -> None:
    """Look where the time of single writes goes."""
    wrk.ensure()
    data = out / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    machine, system = describe_machine(out), Replicad()
    with interruptible():
        try:
            system.up(data)
            found = asyncio.run(_profile(system, seconds, connections, out))
        finally:
            system.down()
    shutil.rmtree(data)
    measured_on = table(("measured on", ""), machine.items())
    text = f"{measured_on}\n\n`{command_line('tests.benchmarks.profile')}`\n\n{found}\n"
    (out / "profile.md").write_text(text)
    click.echo(text)
    if publish:
        before, begin, rest = _PAGE.read_text().partition(_BEGIN)
        _, end, after = rest.partition(_END)
        _PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


if __name__ == "__main__":
    configure_logging("WARNING")
    profile()
