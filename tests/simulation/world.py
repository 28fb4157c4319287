"""Simulated time, and every random choice of a run, from one seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random


class World:
    """A queue of things that will happen. Runs them in order of time, then of planning."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - a reproducible run is the purpose
        self.now = 0.0
        self.trace: list[str] = []
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._planned, (self.now + delay_s, self._count, action))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def log(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, action = heapq.heappop(self._planned)
        action()
