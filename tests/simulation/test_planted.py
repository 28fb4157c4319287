"""The simulator finds each planted mistake: what it does not find in the real core is not there."""

from __future__ import annotations

from itertools import count, islice

import pytest

from replicad.errors import ProtocolViolationError
from tests.simulation.planted import MISTAKES, SEEN_IN_A_CALM, planted
from tests.simulation.plays import is_calm, play_of

PLAYS_MAX = 1000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MISTAKES)
def test_the_simulator_catches(name: str) -> None:
    """Prints how many plays it took and what gave the mistake away (see them with `pytest -s`)."""
    seeds = (seed for seed in count() if is_calm(seed) == (name in SEEN_IN_A_CALM))
    with planted(name):
        for plays, seed in enumerate(islice(seeds, PLAYS_MAX), 1):
            try:
                play_of(seed).play()
            # A mistake may also break what the core takes for granted of its own lists.
            except (AssertionError, ProtocolViolationError, LookupError) as error:
                print(f"{name}: {plays} plays, {error}")  # noqa: T201 - worth knowing
                return
    pytest.fail(f"{name} was not found with {PLAYS_MAX} plays")
