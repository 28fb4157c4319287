"""Nothing acknowledged is lost, whatever the seed brings; and healing brings progress."""

from __future__ import annotations

import pytest

from tests.simulation.simulation import Simulation


def play(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.run_faulty(seconds=15.0)
        # Safety was judged at every step, before healing could hide a premature reply.
        simulation.heal()
        simulation.run_until_converged(seconds_max=60.0)
    except BaseException:
        print("\n".join(simulation.world.trace[-60:]))  # noqa: T201 - the story of the failure
        raise
    return simulation


@pytest.mark.parametrize("seed", range(200))
def test_acknowledged_writes_survive(seed: int) -> None:
    simulation = play(seed)
    for disk in simulation.disks.values():
        for request, result in simulation.judge.acknowledged.items():
            assert disk.requests[request][0] == result.index


def test_a_seed_replays_exactly() -> None:
    assert play(7).world.trace == play(7).world.trace


def test_plays_are_eventful() -> None:
    """The faults take effect: otherwise the plays above show nothing."""
    plays = [play(seed) for seed in range(20)]
    story = "\n".join(line for p in plays for line in p.world.trace)
    for what in ("kill", "power cut", "pause", "cut", "expires", "disk full", "wipe", "truncates"):
        assert what in story, what
    assert sum(len(p.judge.acknowledged) for p in plays) > 1000
    assert sum(p.clients.reads_served for p in plays) > 200
    assert sum(p.clients.rejected for p in plays) > 20
