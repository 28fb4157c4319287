"""Nothing acknowledged is lost, whatever the seed brings; and healing brings progress."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from replicad.core.effects import Reason
from replicad.core.entry import DONE
from tests.simulation.calm import EVENTS
from tests.simulation.plays import Play, judge_many, play_of

SEEDS = 1000


@pytest.mark.timeout(600)
def test_plays_from_seeds() -> None:
    """No play breaks a promise, and they are not idle."""
    verdicts = []
    for verdict in judge_many(range(SEEDS), os.cpu_count() or 1):
        story = "\n".join(verdict.story)
        assert not verdict.failure, f"make sim SEED={verdict.seed}: {verdict.failure}\n{story}"
        verdicts.append(verdict)
    assert len(verdicts) == SEEDS
    assert sum(verdict.acknowledged for verdict in verdicts) > 100 * SEEDS
    assert sum(verdict.reads for verdict in verdicts) > 5 * SEEDS
    rejected = sum((verdict.rejected for verdict in verdicts), Counter[Reason]())
    done = sum((verdict.done for verdict in verdicts), Counter[str]())
    assert all(rejected[reason] > SEEDS for reason in Reason), rejected
    assert all(done[what] > SEEDS for what in (*DONE, "batch")), done


def test_a_seed_replays_exactly() -> None:
    for seed in range(3):
        assert _played(seed).world.trace == _played(seed).world.trace


def test_plays_are_eventful() -> None:
    """The faults take effect: otherwise the plays above show nothing."""
    expected = {
        "kill",
        "power cut",
        "pause",
        "cut n",
        "from the coordinator",
        "isolate",
        "expires",
        "disk full",
        "empty disk",
        "old disk",
        "truncates",
        "deposed",
        "stops",
        "handing over",
        "transferred to n",
        "clock",
        "loses its connection",
        "sever",
        "broker restarts",
        "broker stalls",
        "broker blocks",
        "hangs",
        "a sync of",
        "torn",
        "follower gone",
        "connection to the broker is gone",
        "it was synced",
        "it was applied",
        "it was committed",
        *(event.__name__ for event in EVENTS),
    }
    for seed in range(1_000):
        story = "\n".join(_played(seed).world.trace)
        expected = {what for what in expected if what not in story}
        if not expected:
            return
    pytest.fail(f"never happened: {sorted(expected)}")


def _played(seed: int) -> Play:
    play = play_of(seed)
    play.play()
    return play


def test_a_late_proposal_may_leave_in_sync_only_who_is_down() -> None:
    """Then an operator brings one of them up, also in a simulated cluster."""
    (verdict,) = judge_many(range(2640, 2641), 1)
    assert not verdict.failure
