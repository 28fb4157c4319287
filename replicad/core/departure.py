"""How a replica stops without anybody waiting for it (rules 2 and 5).

A leader hands over to a follower, which drops it from the ISR in the same step. A follower asks the
leader to commit without it, and goes on acking until it has left the ISR. Where `min_in_sync` does
not let it go, waiting would not help.
"""

from __future__ import annotations

from replicad.core.cluster import ClusterState
from replicad.core.context import Context
from replicad.core.effects import Left
from replicad.core.follower import Follower
from replicad.core.leader import Leader


class Departure:
    """The end of one process."""

    def __init__(self, context: Context) -> None:
        """Nobody has asked for it."""
        self._context = context
        self._until = 0.0
        self._asked_at = float("-inf")

    def begin(self) -> None:
        """From now on this replica neither stands for election nor takes writes."""
        self._context.leaving = True
        self._until = self._context.now + self._context.settings.hand_over_s

    def on_deposed(self) -> None:
        """The successor knew that this leader stops, or somebody else leads: it is done."""
        if self._context.leaving:
            self._finish()

    def advance(self, role: Leader | Follower, state: ClusterState | None) -> None:
        """Do what is next, and tell when the process may stop."""
        context = self._context
        if not context.leaving or context.left:
            return
        isr = state.isr if state is not None else ()
        others = len(isr) - 1
        if context.me.disk not in isr or others == 0 or context.now >= self._until:
            self._finish()
        elif isinstance(role, Leader):
            if role.transfer.possible:
                role.transfer.leave()
            else:
                self._finish()
        elif others < context.config.min_in_sync:
            self._finish()
        elif context.now - self._asked_at >= context.settings.hand_over_retry_s:
            self._asked_at = context.now
            role.leave()

    def _finish(self) -> None:
        if not self._context.left:
            self._context.left = True
            self._context.emit(Left())
