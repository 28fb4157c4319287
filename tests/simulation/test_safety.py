"""Nothing acknowledged is lost, whatever the seed brings; and healing brings progress."""

from __future__ import annotations

import pytest

from tests.simulation.simulation import Simulation

SEEDS = 500


def play(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.play()
    except BaseException:
        print("\n".join(simulation.world.trace[-60:]))  # noqa: T201 - the story of the failure
        raise
    return simulation


@pytest.mark.parametrize("seed", range(SEEDS))
def test_acknowledged_writes_survive(seed: int) -> None:
    simulation = play(seed)
    for disk in simulation.disks.values():
        for request, result in simulation.judge.acknowledged.items():
            assert disk.requests[request][0] == result.index


def test_a_seed_replays_exactly() -> None:
    assert play(7).world.trace == play(7).world.trace


def test_plays_are_eventful() -> None:
    """The faults take effect: otherwise the plays above show nothing."""
    plays = [play(seed) for seed in range(30)]
    story = "\n".join(line for p in plays for line in p.world.trace)
    for what in (
        "kill",
        "power cut",
        "pause",
        "cut",
        "from the coordinator",
        "isolate",
        "expires",
        "disk full",
        "empty disk",
        "old disk",
        "truncates",
        "deposed",
    ):
        assert what in story, what
    assert sum(len(p.judge.acknowledged) for p in plays) > 3000
    assert sum(p.clients.reads_served for p in plays) > 200
    assert sum(p.clients.rejected for p in plays) > 100
