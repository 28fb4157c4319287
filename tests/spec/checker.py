"""Runs Spin on the model in docs/spec/: a search, and the way to what it found."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SPEC = Path(__file__).parents[2] / "docs" / "spec"
MODEL = SPEC / "replication.pml"
TRAIL = "replication.pml.trail"
HASH_TABLE = "-w24"
"""2^24 slots of 8 bytes: enough for the states that the tests reach."""

_STATES = re.compile(r"^ *(\d+) states, stored", re.MULTILINE)
_CUT_SHORT = ("Search not completed", "max search depth too small", "out of memory")


@dataclass(frozen=True)
class Search:
    """What a search gave.

    Attributes:
        states: How many different states were seen.
        violation: The steps that lead to a broken assertion, one a line; None if none was found.
        complete: Whether everything within the bounds was seen.
    """

    states: int
    violation: str | None
    complete: bool


def search(directory: Path, *names: str, steps_max: int, optimise: str = "-O0") -> Search:
    """Search the model.

    Args:
        directory: Empty; takes what Spin and the compiler write.
        names: What is to be defined: bounds such as `EPOCHS=3`, mistakes.
        steps_max: Longer ways are not followed.
        optimise: For the compiler. A short search takes less time than optimising it.
    """
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is missing: run `make tools`")
    defined = [f"-D{name}" for name in names]
    _run(directory, "spin", *defined, "-a", str(MODEL))
    _run(directory, "gcc", optimise, "-w", "-DSAFETY", "-DNOREDUCE", "-o", "pan", "pan.c")
    report = _run(directory, "./pan", HASH_TABLE, f"-m{steps_max}")
    states = _STATES.search(report)
    assert states, report
    violation = None
    if "assertion violated" in report:
        way = _run(directory, "spin", *defined, "-T", "-k", TRAIL, str(MODEL), check=False)
        violation = way.partition("spin: trail ends")[0]  # The rest is the whole last state.
    complete = "errors: 0" in report and not any(reason in report for reason in _CUT_SHORT)
    return Search(int(states[1]), violation, complete)


def _run(directory: Path, *command: str, check: bool = True) -> str:
    done = subprocess.run(  # noqa: S603 - Spin, the compiler, and what they made
        command,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}"
    return done.stdout
