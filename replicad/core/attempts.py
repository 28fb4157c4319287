"""Which attempts of a gateway's calls come too late (rule 10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from replicad.core.write import WriteRequest

REMEMBERED_S: Final = 3600.0
"""No connection carries a request for as long."""


class Attempt(NamedTuple):
    """One attempt of a call: as in WriteRequest."""

    call: str
    attempt: int


class RejectedAttempts:
    """The last rejected attempt of each call that was tried more than once in this epoch.

    An earlier attempt of such a call may still be on its way. Its client is told of the rejection,
    so it must not be done after all, whatever has become of the state meanwhile. A first attempt
    has none before it: most rejections leave nothing to remember.
    """

    def __init__(self) -> None:
        """None was rejected."""
        # In the order of their times.
        self._noted: dict[str, tuple[int, float]] = {}

    def note(self, write: WriteRequest, now: float) -> None:
        """This attempt is rejected."""
        if write.attempt > 1:
            self._noted.pop(write.call, None)
            self._noted[write.call] = write.attempt, now

    def is_late(self, write: WriteRequest) -> bool:
        """Whether a later attempt of its call, or this one, was rejected."""
        noted = self._noted.get(write.call)
        return noted is not None and write.attempt <= noted[0]

    def forget(self, attempts: Iterable[Attempt]) -> None:
        """Nobody was told that these are rejected."""
        for call, attempt in attempts:
            noted = self._noted.get(call)
            if noted is not None and noted[0] == attempt:
                del self._noted[call]

    def forget_before(self, time: float) -> None:
        """What was noted before `time` has no attempts on their way any more."""
        while self._noted:
            call, (_, noted_at) = next(iter(self._noted.items()))
            if noted_at >= time:
                return
            del self._noted[call]
