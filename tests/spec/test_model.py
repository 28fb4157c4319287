"""The model of the protocol holds within its bounds, and the planted mistakes are found in it.

`pytest -s tests/spec` prints how many states were searched, and the way to each mistake.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.spec.checker import SPEC, search

BOUNDS = (("EPOCHS=2", "ENTRIES=3", "WIPES=1"), ("EPOCHS=3", "ENTRIES=3", "WIPES=0"))
FEW_STEPS = 25

_SWITCH = re.compile(r"^#ifn?def (\w+)", re.MULTILINE)


def names_in(file: str) -> list[str]:
    """What may be defined to change the model."""
    return sorted(set(_SWITCH.findall((SPEC / file).read_text())))


MISTAKES = names_in("replication.pml")
POSSIBILITIES = names_in("judge.pml")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bounds", BOUNDS, ids=" ".join)
def test_nothing_acknowledged_is_ever_lost(bounds: tuple[str, ...], tmp_path: Path) -> None:
    """Every state within the bounds is seen, and docs/spec/README.md tells how many those are."""
    result = search(tmp_path, *bounds, steps_max=1_000_000, optimise="-O2")
    print(f"{' '.join(bounds)}: {result.states:,} states")  # noqa: T201 - worth knowing
    assert result.violation is None, result.violation
    assert result.complete
    row = f"| `{' '.join(bounds)}` | {result.states:,} |"
    assert row in (SPEC / "README.md").read_text(), row


@pytest.mark.parametrize("name", MISTAKES)
def test_the_model_catches(name: str, tmp_path: Path) -> None:
    assert_found(name, tmp_path)


@pytest.mark.parametrize("name", POSSIBILITIES)
def test_the_model_does_not_stand_still(name: str, tmp_path: Path) -> None:
    """What the safety of the model would mean little without does happen in it."""
    assert_found(name, tmp_path)


def assert_found(name: str, directory: Path) -> None:
    result = search(directory, name, steps_max=FEW_STEPS)
    assert result.violation is not None, f"{name} was not found in {result.states:,} states"
    print(f"{name}: {result.states:,} states\n{result.violation}")  # noqa: T201 - worth knowing


def test_every_switch_is_explained() -> None:
    table = (SPEC / "README.md").read_text()
    assert MISTAKES
    assert POSSIBILITIES
    for name in (*MISTAKES, *POSSIBILITIES):
        assert f"| `{name}` |" in table, name
