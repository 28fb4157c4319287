"""Requests that wait at the leader: for a commit, for a round, or for both (rules 1 and 11)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from replicad.core.attempts import Attempt
from replicad.core.effects import WriteResult


@dataclass(slots=True, eq=False)
class Waiting:
    """One forwarded request.

    Attributes:
        token: Names it in its answer.
        results: What its writes will be told; None for a strong read.
        index: It may be answered once this index is committed ...
        round: ... and every member of the effective ISR has confirmed the epoch in this round;
            0 if no round is needed.
        began_at: When it arrived.
        rejected: Attempts that are to be told that they are.
        timing: Milliseconds since then, by what was awaited.
    """

    token: int
    results: tuple[WriteResult, ...] | None
    index: int
    round: int
    began_at: float
    rejected: tuple[Attempt, ...] = ()
    timing: dict[str, float] = field(default_factory=dict)


class WaitingRoom:
    """All requests of this epoch that are not answered yet, in order of arrival.

    Attributes:
        highest_round: No one who waits needs a newer round; 0 if nobody needs any.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._queue: deque[Waiting] = deque()
        self.highest_round = 0

    def add(self, waiting: Waiting) -> None:
        """Let a request wait."""
        self._queue.append(waiting)
        if waiting.round > self.highest_round:
            self.highest_round = waiting.round

    def note_time(self, name: str, index: int, now: float) -> None:
        """Something that concerns entries up to `index` is done: time it for those it covers."""
        for waiting in self._queue:
            if waiting.index > index or waiting.results is None or name in waiting.timing:
                continue
            waiting.timing[name] = round((now - waiting.began_at) * 1000, 3)

    def release(self, commit: int, confirmed_round: int) -> list[Waiting]:
        """Take out everyone whose conditions are met."""
        done = [w for w in self._queue if w.index <= commit and w.round <= confirmed_round]
        for waiting in done:
            self._queue.remove(waiting)
        if not self._queue:
            self.highest_round = 0
        return done

    def take_all(self) -> list[Waiting]:
        """Empty the room: leadership is lost."""
        everyone, self._queue = list(self._queue), deque()
        return everyone

    def take_before(self, time: float) -> list[Waiting]:
        """Take out the requests that arrived before `time`: nobody waits for so long."""
        gone = []
        while self._queue and self._queue[0].began_at < time:
            gone.append(self._queue.popleft())
        return gone

    def take_from(self, index: int) -> list[Waiting]:
        """Take out the requests that wait for entries from `index` on: they were not appended."""
        gone = [w for w in self._queue if w.index >= index]
        self._queue = deque(w for w in self._queue if w.index < index)
        return gone

    def oldest_unread(self, confirmed_round: int) -> Waiting | None:
        """The first request that still needs a round."""
        return next((w for w in self._queue if w.round > confirmed_round), None)
