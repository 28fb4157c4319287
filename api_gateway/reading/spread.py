"""Which replica is asked for a read that any of them may serve."""

from __future__ import annotations

import asyncio
from typing import Final

from api_gateway.cluster.watch import ClusterWatch, Source

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

    def sources(self, min_index: int) -> list[Source]:
        """All replicas that were ever seen, in the order in which to ask them."""
        view, leader = self._watch.view, self._watch.leader
        registered = {member.node for member in view.members} if view else set()
        in_sync = {disk.node for disk in view.state.isr} if view and view.state else set()
        leading = leader.name if leader else None
        now = asyncio.get_running_loop().time()

        def rank(name: str) -> tuple[bool, ...]:
            avoided = self._avoided_until.get(name, now) > now
            return avoided, name not in registered, name not in in_sync, name == leading

        names = sorted(self._watch.urls)
        self._turn += 1
        first = self._turn % len(names) if names else 0
        turned = names[first:] + names[:first]
        return [Source(n, self._watch.urls[n], min_index) for n in sorted(turned, key=rank)]

    def avoid(self, source: Source) -> None:
        """It did not answer: ask the others first for a while."""
        self._avoided_until[source.name] = asyncio.get_running_loop().time() + _AVOIDED_S
