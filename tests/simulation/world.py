"""Simulated time, and every random choice of a run, from one seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random


class World:
    """A queue of things that will happen. Runs them in order of time, then of planning.

    Attributes:
        trace: What happened, for people; with every message and event if `verbose`.
        steps: How many things have happened.
    """

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.rng = Random(seed)  # noqa: S311 - a reproducible run is the purpose
        self.now = 0.0
        self.verbose = verbose
        self.trace: list[str] = []
        self.steps = 0
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._planned, (self.now + delay_s, self._count, action))

    def chance(self, probability: float) -> bool:
        return probability > 0.0 and self.rng.random() < probability

    def log(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, action = heapq.heappop(self._planned)
        self.steps += 1
        action()

    def until(self, time: float) -> None:
        """Let everything happen that is planned before `time`."""
        while self.now < time:
            self.step()
