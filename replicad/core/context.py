"""What every role of one replica shares: its identity, its log, and what it knows to be durable."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from replicad.core.cluster import ClusterConfig, Disk
from replicad.core.effects import Apply, Channel, Effect, Halt, Level, PersistEpoch, Report
from replicad.core.entry import format_time
from replicad.core.log import LogIndex
from replicad.core.messages import Point
from replicad.errors import require


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process this is. `incarnation` is random for each run."""

    disk: Disk
    incarnation: str
    url: str

    @property
    def node(self) -> str:
        """The replica's name."""
        return self.disk.node


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, sizes in bytes. The same for every replica of a cluster.

    Attributes:
        heartbeat_s: A leader is never silent for longer.
        lag_max_s: A follower that has not acked for so long what it was sent leaves the ISR.
        stall_s: If the leader's own echo is gone for so long, the broker is at fault, not a
            follower (rule 12).
        join_max_s: A follower that delays commits for so long without getting level leaves again.
        silence_s: After how long without a message a replica's queue is probed; above the time
            between two heartbeats.
        candidate_delay_max_s: Candidates wait a random time up to this, so that one usually wins.
        fetch_retry_s: When a follower asks again for entries that did not come.
        proposal_retry_s: Pause after a proposal that was refused or whose outcome is unknown.
        resign_after_s: A leader that commits nothing for so long makes way; well above lag_max_s,
            so that it removes a dead follower before it gives up ...
        hold_back_s: ... and does not stand again for so long.
        hand_over_s: For how long a leader that hands over takes no writes, at most; and how long
            a replica that stops waits until nobody waits for it.
        hand_over_retry_s: When it asks again, or asks another follower.
        give_up_s: Nobody waits for a read for longer: it is answered that it is not confirmed.
        read_fallback_s: When a strong read that no round confirms asks ZooKeeper instead.
        chunk_bytes_max: Of one catch-up message.
        pending_bytes_max: Of entries appended and not yet committed; beyond it, writes wait.
        report_interval_s: At most one line of its kind about a peer in sync.log in this time.
    """

    heartbeat_s: float = 0.1
    lag_max_s: float = 1.0
    stall_s: float = 0.5
    join_max_s: float = 1.0
    silence_s: float = 0.15
    candidate_delay_max_s: float = 0.04
    fetch_retry_s: float = 0.3
    proposal_retry_s: float = 0.2
    resign_after_s: float = 4.0
    hold_back_s: float = 5.0
    hand_over_s: float = 1.0
    hand_over_retry_s: float = 0.1
    give_up_s: float = 10.0
    read_fallback_s: float = 0.3
    chunk_bytes_max: int = 1024 * 1024
    pending_bytes_max: int = 64 * 1024 * 1024
    report_interval_s: float = 1.0


class Context:
    """Shared by the roles of one replica; lives as long as the process.

    Of the step that is taken, `now` is the time in monotonic seconds, and `unix_ms` the wall clock.

    Invariants: applied <= commit; applied <= synced <= log.last; epoch never decreases.
    """

    def __init__(
        self,
        identity: Identity,
        config: ClusterConfig,
        log: LogIndex,
        *,
        epoch: int,
        commit: int,
        applied: int,
        last_time: str,
        settings: Settings,
        rng: Random,
    ) -> None:
        """State as recovered from disk; all of `log` must be synced."""
        self.me = identity
        self.config = config
        self.log = log
        self.synced = log.last
        self.commit = commit
        self.applied = applied
        self.epoch = epoch
        self.settings = settings
        self.rng = rng
        self.now = 0.0
        self.unix_ms = 0
        self.broker_up = False
        self.broker_up_since = 0.0
        self.disk_writable = True
        self.halted = False
        self.leaving = False
        self.left = False
        self.fetching_snapshot = False
        self._level_at = float("-inf")
        self._tokens = 0
        self._last_time = last_time
        self._second = -1
        self._second_text = ""
        self._effects: list[Effect] = []
        self._reported_at: dict[tuple[str, str], float] = {}

    def note_level(self, at: float) -> None:
        """What was committed before `at` is applied here."""
        self._level_at = max(self._level_at, at)

    def stale_s(self, now: float) -> float | None:
        """For how long that has not been certain; None if it never was."""
        return None if self._level_at == float("-inf") else now - self._level_at

    def finish(self) -> list[Effect]:
        """End a step: what it wants done, in order."""
        effects, self._effects = self._effects, []
        return effects

    def emit(self, effect: Effect) -> None:
        """Add an effect to this step."""
        self._effects.append(effect)

    def nonce(self) -> str:
        """16 random hex digits that tell a proposal from every other."""
        return f"{self.rng.getrandbits(64):016x}"

    def new_token(self) -> int:
        """Names a ReadState; never used twice by this process, and never NO_TOKEN."""
        self._tokens += 1
        return self._tokens

    def wall_time(self) -> str:
        """The time for new entries; never less than any entry's before."""
        second, ms = divmod(self.unix_ms, 1000)
        if second != self._second:  # What every batch asks for is formatted once a second.
            self._second = second
            self._second_text = format_time(1000 * second).removesuffix("000Z")
        self._last_time = max(self._last_time, f"{self._second_text}{ms:03d}Z")
        return self._last_time

    def note_time(self, time: str) -> None:
        """Entries with this time were appended from another leader."""
        self._last_time = max(self._last_time, time)

    def persist_epoch(self, epoch: int) -> None:
        """Remember the epoch durably before anything else of this step happens."""
        require(epoch > self.epoch, "epochs only grow")
        self.epoch = epoch
        self.emit(PersistEpoch(epoch))

    def advance_commit(self, index: int) -> None:
        """Entries up to `index` are committed; apply those that are also synced here.

        An unsynced entry is not applied even if it is committed by others: the record store may
        never be ahead of what a power cut leaves of the log.
        """
        if index > self.commit:
            self.commit = index
        ready = min(self.commit, self.synced)
        if ready > self.applied:
            self.applied = ready
            self.emit(Apply(ready))

    def note_synced(self, index: int) -> None:
        """The log is on the disk up to `index`."""
        self.synced = max(self.synced, min(index, self.log.last))
        self.advance_commit(self.commit)

    def cut(self, first_gone: int) -> None:
        """Forget the log's entries from `first_gone` on."""
        require(first_gone > self.commit, "a committed entry is never cut")
        self.log.truncate(first_gone)
        self.synced = min(self.synced, self.log.last)

    def note_installed(self, base: Point, time: str) -> None:
        """The log begins anew after a snapshot: all up to its base is committed and applied."""
        self.synced = self.commit = self.applied = base.index
        self.note_time(time)

    def halt(self, reason: str) -> None:
        """Never act again in this process."""
        self.halted = True
        self.report(Level.ERROR, "replica halted", reason=reason)
        self.emit(Halt(reason))

    def report(self, level: Level, event: str, **fields: object) -> None:
        """One line for the daemon's log."""
        self.emit(Report(Channel.DAEMON, level, event, {"epoch": self.epoch, **fields}))

    def report_sync(self, level: Level, event: str, **fields: object) -> None:
        """One line for sync.log."""
        self.emit(Report(Channel.SYNC, level, event, {"epoch": self.epoch, **fields}))

    def report_peer(self, event: str, node: str, **fields: object) -> None:
        """One line for sync.log about something wrong that a peer may send again and again."""
        last_at = self._reported_at.get((event, node), float("-inf"))
        if self.now - last_at >= self.settings.report_interval_s:
            self._reported_at[event, node] = self.now
            self.report_sync(Level.ERROR, event, node=node, **fields)
