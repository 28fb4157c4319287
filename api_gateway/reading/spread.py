"""Which replica is asked for a read that any of them may serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from api_gateway.cluster.watch import ClusterWatch, Source
from replicad.coordination.port import View

# A replica that did not answer is asked last for so long: whoever hangs costs a read its time.
_AVOIDED_S: Final = 2.0


class Spread:
    """Takes turns among the replicas that are likely to answer.

    The leader, which is busy with writes, comes after the others that are in sync.
    """

    def __init__(self, watch: ClusterWatch) -> None:
        """Choose among the replicas that `watch` knows."""
        self._watch = watch
        self._turn = 0
        self._avoided_until: dict[str, float] = {}
        self._best: list[Source] = []
        self._best_of: View | None = None
        self._best_until = -math.inf

    def first(self) -> Source | None:
        """Whom to ask first, whatever it has applied; None while no replica is known.

        The likeliest take turns. They are the same until the view changes, or one of them does
        not answer, or one that did not may be asked again.
        """
        now = asyncio.get_running_loop().time()
        if self._best_of is not self._watch.view or now >= self._best_until:
            self._find_best(now)
        self._turn += 1
        return self._best[self._turn % len(self._best)] if self._best else None

    def _find_best(self, now: float) -> None:
        rank, urls = self._ranks(now), self._watch.urls
        best = min(map(rank, urls), default=())
        self._best = [Source(name, urls[name], 0) for name in sorted(urls) if rank(name) == best]
        self._best_of = self._watch.view
        ends = (until for until in self._avoided_until.values() if until > now)
        self._best_until = min(ends, default=math.inf)

    def sources(self, min_index: int) -> list[Source]:
        """All replicas that were ever seen, in the order in which to ask them."""
        rank = self._ranks(asyncio.get_running_loop().time())
        names = sorted(self._watch.urls)
        self._turn += 1
        first = self._turn % len(names) if names else 0
        turned = names[first:] + names[:first]
        return [Source(n, self._watch.urls[n], min_index) for n in sorted(turned, key=rank)]

    def _ranks(self, now: float) -> Callable[[str], tuple[bool, ...]]:
        """Tells how likely each of them is to answer; the less the better."""
        view, leader = self._watch.view, self._watch.leader
        registered = {member.node for member in view.members} if view else set()
        in_sync = {disk.node for disk in view.state.isr} if view and view.state else set()
        leading = leader.name if leader else None

        def rank(name: str) -> tuple[bool, ...]:
            avoided = self._avoided_until.get(name, now) > now
            return avoided, name not in registered, name not in in_sync, name == leading

        return rank

    def avoid(self, source: Source) -> None:
        """It did not answer: ask the others first for a while."""
        self._avoided_until[source.name] = asyncio.get_running_loop().time() + _AVOIDED_S
        self._best_until = -math.inf
