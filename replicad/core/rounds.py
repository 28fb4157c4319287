"""Rounds that make reads strong (rule 11).

Every message to all followers begins a round. A read that arrives in round r waits for round
r + 1: only a round that began after the read arrived proves that nobody else led at that moment.

Every member of the *current* effective ISR must confirm. A member that left since the round began
need not: it left by a transaction of this epoch, so until then nobody had been elected in
ZooKeeper, and since then it cannot be elected.
"""

from __future__ import annotations

from collections.abc import Iterable

from replicad.core.context import Context
from replicad.core.effects import NO_TOKEN, ReadState
from replicad.core.waiting import WaitingRoom


class Rounds:
    """Counts rounds; a read of ZooKeeper may stand for one."""

    def __init__(self, context: Context) -> None:
        """No round has begun."""
        self._context = context
        self.current = 0
        self._asked_token = NO_TOKEN
        self._asked_round = 0
        self._answered = 0

    def begin(self) -> None:
        """A message goes out to all."""
        self.current += 1

    def confirmed(self, followers: Iterable[int]) -> int:
        """The newest confirmed round, given the newest one that each other member confirmed.

        Without other members nobody else can be elected, so the current round is confirmed.
        """
        return max(self._answered, min(followers, default=self.current))

    def ask_coordinator(self, waiting: WaitingRoom) -> None:
        """If a read has waited too long, read ZooKeeper in place of a round.

        This lets a dead member of an ISR that cannot shrink block writes only. If ZooKeeper, asked
        after the read arrived, still names this leader, then nobody else can have committed
        anything before: that would have taken an epoch of its own.
        """
        settings = self._context.settings
        if self._asked_token != NO_TOKEN:
            return
        oldest = waiting.oldest_unread(self._answered)
        if oldest and self._context.now - oldest.began_at >= settings.read_fallback_s:
            self.begin()
            self._asked_round = self.current
            self._asked_token = self._context.new_token()
            self._context.emit(ReadState(self._asked_token))

    def on_coordinator_read(self, token: int, *, named: bool) -> None:
        """ZooKeeper was read; `named` tells whether it names this leader in this epoch."""
        if token == NO_TOKEN or token != self._asked_token:
            return
        self._asked_token = NO_TOKEN
        if named:
            self._answered = self._asked_round
