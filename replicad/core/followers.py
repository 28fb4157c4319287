"""What a leader knows of each follower's disk: how far it matches, and how fresh that is.

Freshness follows Kafka's lastCaughtUpTime: a follower is as fresh as the newest message of the
leader that it has answered with everything published by then. It is measured against the newest
proof that the broker carries messages, the leader's own echo, not against the clock: while the
broker stalls nobody's lag grows (rule 12).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from replicad.core.cluster import Disk
from replicad.core.context import Settings
from replicad.core.messages import Ack


@dataclass(slots=True)
class Progress:
    """One follower's disk.

    Attributes:
        matched: Its log, synced, equals the leader's up to here.
        round: The newest round in which it confirmed the epoch.
        heard_at: When its last message came.
        fresh_at: When the newest message was sent that it has answered in full, or since when it
            gets the benefit of the doubt.
        confirmed_at: When the newest message was sent with which it has confirmed the epoch.
        gone: The broker has proved that it is not connected, and it was not heard since.
        leaves_until: It is about to stop, and not to be waited for until then.
        reported_at, reported: When sync.log last said that it matched, and at which index.
    """

    matched: int
    round: int
    heard_at: float
    fresh_at: float
    confirmed_at: float = float("-inf")
    gone: bool = False
    leaves_until: float = float("-inf")
    reported_at: float = float("-inf")
    reported: int = 0


class _Sent(NamedTuple):
    round: int
    at: float
    last: int


class Followers:
    """Progress of every follower that was in the ISR at the start or has acked since.

    So of every other member of the effective ISR: who joins has acked before.
    """

    def __init__(self, settings: Settings, isr: tuple[Disk, ...], now: float) -> None:
        """Members of the ISR get the benefit of the doubt for a while."""
        self._settings = settings
        self._sent: deque[_Sent] = deque()
        self._proof_at = now
        self.progress = {disk: Progress(0, 0, now, now) for disk in isr}

    def note_sent(self, round_: int, last: int, now: float) -> None:
        """A message to all goes out: the log is published up to `last`."""
        if self._sent and now - self._sent[-1].at < self._settings.heartbeat_s / 5:
            return  # Often enough to tell how fresh a follower is.
        self._sent.append(_Sent(round_, now, last))
        horizon = now - 4 * self._settings.lag_max_s
        while self._sent[0].at < horizon:
            self._sent.popleft()

    def note_ack(self, ack: Ack, now: float) -> Progress:
        """Count an ack whose digest was found equal."""
        disk = Disk(ack.node, ack.disk_id)
        progress = self.progress.get(disk)
        if progress is None:
            progress = self.progress[disk] = Progress(0, 0, now, float("-inf"))
        progress.heard_at = now
        progress.gone = False
        if ack.matched.index > progress.matched:
            progress.matched = ack.matched.index
        if ack.round > progress.round:
            progress.round = ack.round
        for sent in reversed(self._sent):
            if sent.round <= progress.round:
                progress.confirmed_at = max(progress.confirmed_at, sent.at)
                if sent.last <= progress.matched:
                    progress.fresh_at = max(progress.fresh_at, sent.at)
                    break
        return progress

    def note_heard(self, disk: Disk, now: float) -> None:
        """A follower asked for entries: it lives, but nothing is known to match."""
        progress = self.progress.setdefault(disk, Progress(0, 0, now, float("-inf")))
        progress.heard_at = now
        progress.gone = False

    def note_gone(self, disk: Disk) -> None:
        """The broker has proved that the follower is not connected."""
        self.progress[disk].gone = True

    def note_leaving(self, disk: Disk, now: float) -> None:
        """The follower is about to stop."""
        if disk in self.progress:
            self.progress[disk].leaves_until = now + self._settings.hand_over_s

    def note_echo(self, sent_at: float, now: float) -> None:
        """The broker carried a message that was sent at `sent_at`."""
        if sent_at - self._proof_at > self._settings.stall_s:
            self.grant_grace(now)
        self._proof_at = max(self._proof_at, sent_at)

    def grant_grace(self, now: float) -> None:
        """After a stall of the broker nobody is to blame: lag counts anew for who kept up."""
        for disk, progress in self.progress.items():
            if not self.lags(disk):
                progress.fresh_at = now

    def lags(self, disk: Disk) -> bool:
        """Whether the follower has been behind for too long, or is not to be waited for."""
        progress = self.progress.get(disk)
        if progress is None or progress.gone or self._proof_at < progress.leaves_until:
            return True
        return self._proof_at - progress.fresh_at > self._settings.lag_max_s

    def heard_at(self, disk: Disk) -> float:
        """When the disk's last message came."""
        progress = self.progress.get(disk)
        return progress.heard_at if progress else float("-inf")

    def highest_match(self, node: str) -> int:
        """Up to where any disk of the node is known to match; 0 if nothing is known."""
        return max((p.matched for disk, p in self.progress.items() if disk.node == node), default=0)

    def acked(self) -> dict[str, int]:
        """The newest round that each follower has acked, by name."""
        rounds: dict[str, int] = {}
        for disk, progress in self.progress.items():
            if progress.round >= rounds.get(disk.node, 0):
                rounds[disk.node] = progress.round
        return rounds

    def matched(self, disk: Disk) -> int:
        """Up to where the disk is known to match; 0 if nothing is known."""
        progress = self.progress.get(disk)
        return progress.matched if progress else 0

    def holders(self, index: int) -> set[str]:
        """Names of the followers whose disks hold the entry at `index`."""
        return {disk.node for disk, p in self.progress.items() if p.matched >= index}
