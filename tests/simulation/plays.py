"""Which play belongs to a seed, and many of them at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from threading import Thread

from replicad.core.effects import Reason
from replicad.errors import ReplicadError
from tests.simulation.calm import Calm
from tests.simulation.simulation import Simulation

CALM_EVERY = 3
CHUNK = 20
STORY_LINES = 60

Play = Simulation | Calm


def is_calm(seed: int) -> bool:
    """Whether the play of this seed is a calm, and not a storm of faults."""
    return seed % CALM_EVERY == CALM_EVERY - 1


def play_of(seed: int, *, verbose: bool = False) -> Play:
    """The play of this seed, not begun yet."""
    return Calm(seed, verbose=verbose) if is_calm(seed) else Simulation(seed, verbose=verbose)


@dataclass(frozen=True)
class Verdict:
    """How one play ended.

    Attributes:
        failure: What was violated; "" if nothing was.
        story: The end of the trace, if something was.
        acknowledged, reads: How much the clients were told.
        rejected, done: What of, and how often: see `Clients`.
    """

    seed: int
    failure: str
    story: tuple[str, ...]
    acknowledged: int
    reads: int
    rejected: Counter[Reason]
    done: Counter[str]


def judge(seed: int) -> Verdict:
    """Play it."""
    play = play_of(seed)
    failure = ""
    story: tuple[str, ...] = ()
    try:
        play.play()
    # A defect of the core may also show in its own lists.
    except (AssertionError, ReplicadError, LookupError) as error:
        failure, story = f"{type(error).__name__}: {error}", tuple(play.world.trace[-STORY_LINES:])
    simulation = play.simulation
    acknowledged, clients = len(simulation.judge.acknowledged), simulation.clients
    return Verdict(
        *(seed, failure, story, acknowledged, clients.reads_served),
        rejected=clients.rejected,
        done=clients.done,
    )


def judge_many(seeds: range, jobs: int) -> Iterator[Verdict]:
    """Play all of them in so many processes; verdicts come in the order of the seeds."""
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        yield from pool.map(judge, seeds, chunksize=CHUNK)


def _end_with_parent() -> None:
    """A parent that is killed tells its workers nothing: they would wait for ever."""
    Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
