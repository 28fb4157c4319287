"""The simulator finds each planted mistake: what it does not find in the real core is not there."""

from __future__ import annotations

import pytest

from replicad.errors import ProtocolViolationError
from tests.simulation.planted import MISTAKES, planted
from tests.simulation.plays import play_of

SEEDS_MAX = 1000


@pytest.mark.parametrize("name", MISTAKES)
def test_the_simulator_catches(name: str) -> None:
    """Prints how many seeds it took and what gave the mistake away (see them with `pytest -s`)."""
    with planted(name):
        for seed in range(SEEDS_MAX):
            try:
                play_of(seed).play()
            # A mistake may also break what the core takes for granted of its own lists.
            except (AssertionError, ProtocolViolationError, LookupError) as error:
                print(f"{name}: {seed + 1} seeds, {error}")  # noqa: T201 - worth knowing
                return
    pytest.fail(f"{name} was not found with {SEEDS_MAX} seeds")
