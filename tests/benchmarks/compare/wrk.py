"""The load generator: wrk, one thread, requests that were prepared before."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replicad.errors import StackError
from replicad.stack import packages
from tests.benchmarks.system import BenchmarkError

_SCRIPT: Final = Path(__file__).with_name("requests.lua")
_TIMEOUT_S: Final = 10
_SPARE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What wrk saw. Errors there were none."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float


def ensure() -> None:
    """Install wrk when it is missing.

    Raises:
        StackError: It cannot be installed.
    """
    if shutil.which("wrk") is not None:
        return
    if not packages.can_install():
        raise StackError("wrk is missing; as root, on Debian: apt-get install wrk")
    packages.install(("wrk",))


async def press(
    url: str, requests: Path, tag: str, connections: int, seconds: float, *, draw_from: int = 0
) -> Answered:
    """Send requests for some time, on each connection the next one once the last is answered.

    Args:
        url: Scheme, host and port.
        requests: A file made by `forms.prepared`.
        tag: The beginning of all ids; 4 characters.
        connections: How many.
        seconds: How long; wrk takes whole ones.
        draw_from: Ids are drawn at random from so many; 0: each is a new one.

    Raises:
        BenchmarkError: A request failed, was answered with an error, or not in time.
    """
    options = (f"-t1 -c{connections} -d{max(1, round(seconds))}s --timeout {_TIMEOUT_S}s").split()
    process = await asyncio.create_subprocess_exec(
        *("wrk", *options, "-s", str(_SCRIPT), url, "--", str(requests), tag, str(draw_from)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(seconds + _SPARE_S):
        output, _ = await process.communicate()
    return read_answer(output.decode())


def read_answer(output: str) -> Answered:
    """The last line that `requests.lua` prints.

    Raises:
        BenchmarkError: There were errors, or no answers.
    """
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkError(f"wrk: {output[-1000:]}")
    told = json.loads(lines[-1])
    errors = {kind: count for kind, count in told.pop("errors").items() if count}
    if errors or not told["requests"]:
        raise BenchmarkError(f"of {told['requests']} requests some failed: {errors}")
    return Answered(**told)
