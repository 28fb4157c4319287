"""Who leads, as the coordinator tells it, and for how long it is worth waiting for its answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from replicad.coordination.port import View

ATTEMPT_S: Final = 4.0
"""Time for one attempt at a leader: well above a shrink of the ISR, which a write waits for, and
well below a request's deadline, so that a dead connection leaves time for another attempt."""
LOST_LEADER_S: Final = 1.0
"""The same once the leader's registration is gone. It may live on: ZooKeeper may have lost it."""
_DELAY_MIN_S: Final = 0.005
_DELAY_MAX_S: Final = 0.2
_DOUBLINGS_MAX: Final = 10
# A new leader is tried often, the more so the newer it is: it takes requests any moment now.
_NEW_LEADER_S: Final = 2.0
_NEW_LEADER_DELAY_MAX_S: Final = 0.05

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Leader:
    """One incarnation that leads in one epoch."""

    name: str
    incarnation: str
    url: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Source:
    """A replica that is asked for what it has applied, leading or not.

    Attributes:
        name, url: Of the replica.
        min_index: It is not to answer before it has applied this log index.
    """

    name: str
    url: str
    min_index: int


class ClusterWatch:
    """Keeps the coordinator's last View, also while the coordinator is away.

    Attributes:
        view: The last View; None before the first.
        leader: Whom the state names, living or not; None when it names nobody.
        leader_is_member: Whether the leader's own incarnation is registered.
        urls: Where each replica was last seen.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.view: View | None = None
        self.leader: Leader | None = None
        self.leader_is_member = False
        self.urls: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._leader_since = float("-inf")
        self._attempts: dict[asyncio.Timeout, Leader] = {}

    def on_view(self, view: View) -> None:
        """Take a new View: wake all who wait for one, and abandon attempts at a past leader."""
        self.view = view
        self.urls.update((member.node, member.url) for member in view.members)
        leader = _leader_of(view)
        if leader is not None:
            self.urls[leader.name] = leader.url
        if leader != self.leader:
            _log.info(
                "leader_changed",
                leader=leader.name if leader else None,
                epoch=leader.epoch if leader else None,
            )
            self._leader_since = asyncio.get_running_loop().time()
        self.leader = leader
        self.leader_is_member = leader is not None and any(
            member.incarnation == leader.incarnation for member in view.members
        )
        self._changed.set()
        self._changed = asyncio.Event()
        for limit, target in self._attempts.items():
            self._shorten(limit, target)

    async def attempt(self, leader: Leader, asking: Awaitable[T]) -> T:
        """Bound what is asked of `leader` by what is known of it, also as it becomes known.

        Raises:
            TimeoutError: No success within ATTEMPT_S; or `leader` leads no more; or it is no
                longer registered and LOST_LEADER_S have passed.
        """
        async with asyncio.timeout(ATTEMPT_S) as limit:
            self._attempts[limit] = leader
            self._shorten(limit, leader)
            try:
                return await asking
            finally:
                del self._attempts[limit]

    def _shorten(self, limit: asyncio.Timeout, target: Leader) -> None:
        end = limit.when()
        if end is None or limit.expired():
            return
        now = asyncio.get_running_loop().time()
        if target != self.leader:
            limit.reschedule(now)
        elif not self.leader_is_member:
            limit.reschedule(min(end, now + LOST_LEADER_S))

    async def pause(self, failures: int, tried: Leader | None) -> None:
        """Wait before the next attempt, but not if somebody else leads by now.

        Args:
            failures: How many attempts in a row have failed.
            tried: Whom the last one was made at; None if nobody led.
        """
        if self.leader != tried:
            return
        age = asyncio.get_running_loop().time() - self._leader_since
        most = _DELAY_MAX_S
        if age < _NEW_LEADER_S:
            most = min(_NEW_LEADER_DELAY_MAX_S, max(2 * _DELAY_MIN_S, age))
        longest = min(most, _DELAY_MIN_S * 2 ** min(failures, _DOUBLINGS_MAX))
        # Not a secret: it only keeps gateways from trying in step.
        delay = random.uniform(_DELAY_MIN_S, longest)  # noqa: S311
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._changed.wait()


def _leader_of(view: View) -> Leader | None:
    state = view.state
    if state is None or state.leader is None or state.incarnation is None or state.url is None:
        return None
    return Leader(state.leader, state.incarnation, state.url, state.epoch)
