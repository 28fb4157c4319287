"""Whether a replica that has gone silent is still connected to the broker (rule 5).

A killed process loses its connection at once, and its queues with it; a paused one keeps both. So
a message that the broker returns as unroutable proves a death within milliseconds, where silence
alone proves nothing, and a lost session comes seconds later.
"""

from __future__ import annotations

from replicad.core.context import Context
from replicad.core.effects import Probe
from replicad.core.events import ProbeFinished


class Probes:
    """Asks the broker about silent replicas, and judges its answers."""

    def __init__(self, context: Context) -> None:
        """Nobody was asked about."""
        self._context = context
        self._asked_at: dict[str, float] = {}

    def tend(self, node: str, heard_at: float) -> None:
        """Ask about a replica that was last heard at `heard_at`, if that is due."""
        context = self._context
        since = max(heard_at, self._asked_at.get(node, heard_at))
        if context.broker_up and context.now - since >= context.settings.silence_s:
            self._asked_at[node] = context.now
            context.emit(Probe(node, context.now))

    def proves_death(self, finished: ProbeFinished, heard_at: float) -> bool:
        """Whether the answer proves that the replica has lost its connection since `heard_at`.

        This replica's own connection must have been up all the time since: a broker that restarts
        takes everybody's queues away.
        """
        context = self._context
        watched = context.broker_up and context.broker_up_since <= heard_at
        return finished.gone and watched and heard_at < finished.asked_at
