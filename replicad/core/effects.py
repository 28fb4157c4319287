"""What a replica wants done.

The driver runs the effects of a step in list order, all of them, before it steps the next event;
the order is part of the protocol's safety.

PersistEpoch, TruncateLog and Apply are complete when the next effect begins. AppendLines has
written, not synced: what it wrote is durable only once LogSynced says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replicad.core.cluster import ClusterState
from replicad.core.messages import Append, Message, Point


@dataclass(frozen=True, slots=True)
class PersistEpoch:
    """Make this epoch durable: nothing of a lower one is accepted ever after."""

    epoch: int


@dataclass(frozen=True, slots=True)
class AppendLines:
    """Write these lines at the log's end; the first has index `first`.

    If there is no room: restore the log's end, skip this step's remaining effects, and step
    AppendFailed before anything else.
    """

    first: int
    lines: bytes


@dataclass(frozen=True, slots=True)
class SyncLog:
    """Sync the log, at once or together with what else is about to be written; then LogSynced."""


@dataclass(frozen=True, slots=True)
class TruncateLog:
    """Move the entries from `first` on to lost+found/ and cut the log there, durably."""

    first: int


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply committed entries up to `index` to the record store, before anybody looks into it.

    It may be put off until then: nothing in this list waits for it.
    """

    index: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to one replica, or (None) the same to every other one."""

    to: str | None
    message: Message


@dataclass(frozen=True, slots=True)
class SendFromLog:
    """Send `append` with the lines of its `count` entries, read from the log."""

    to: str
    append: Append


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the coordinator to replace the state of this version; then ProposalFinished."""

    state: ClusterState
    expected_version: int


NO_TOKEN = 0
"""Of a ReadState whose answer matters only as a view."""


@dataclass(frozen=True, slots=True)
class ReadState:
    """Read the coordinator, beginning now, with a sync; then ReadFinished."""

    token: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Find out whether anybody reads the node's queue; then ProbeFinished with this `asked_at`."""

    node: str
    asked_at: float


@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """Get a snapshot that reaches at least this index from any peer; then SnapshotFetched."""

    at_least: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Put the fetched snapshot in the place of log and record store; then SnapshotInstalled.

    Attributes:
        point: The snapshot's, as SnapshotFetched told it.
        committed: What the log holds above this goes to lost+found.
    """

    point: Point
    committed: int


@dataclass(frozen=True, slots=True)
class HandingOver:
    """This leader is about to follow, so it needs the stream to all; or (False) it leads on."""

    active: bool


@dataclass(frozen=True, slots=True)
class Left:
    """Nobody waits for this replica any more, or there is nobody to take over: it may stop."""


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """This replica leads from now on, or does not any more."""

    leading: bool


class Refusal(Enum):
    """Why a write was not accepted. Nothing was appended; it may be sent again."""

    NOT_LEADER = "not-leader"
    NOT_ENOUGH_REPLICAS = "not-enough-replicas"
    BROKER_DOWN = "broker-down"
    DISK_FULL = "disk-full"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Committed:
    """The entry at this index holds the write; every in-sync replica has it on its disk.

    Of an old entry that the log holds no more, `epoch` is 0 and `digest` is empty: not known.

    Attributes:
        done: What it did to each record, in order: letters of `entry.DONE`.
        again: Whether this is the outcome of an earlier attempt or request.
    """

    index: int
    epoch: int
    digest: bytes
    done: str
    again: bool = False


class Reason(Enum):
    """Why a write cannot be."""

    EXISTS = "exists"
    MISSING = "missing"
    CHANGED = "changed"
    """As in `write.Objection`."""
    MISMATCH = "mismatch"
    """Its request id was used for another write."""
    DEFINITION = "definition"
    """Its values were checked by another version of the collection's definition."""
    NOT_EMPTY = "not-empty"
    """A collection holds records whose definition cannot be deleted or stored while it does."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The write cannot be: confirmed by a round, like a strong read (rule 11).

    Attributes:
        reason: Why.
        position: Of the operation that cannot be, from 0.
        version: What there is instead: of the record, or (DEFINITION) of the definition.
    """

    reason: Reason
    position: int = 0
    version: int = 0


class Unresolved(Enum):
    """This replica cannot say what became of a write that it had appended."""

    UNKNOWN = "unknown"


WriteResult = Committed | Rejected | Refusal | Unresolved


@dataclass(frozen=True, slots=True)
class AnswerWrites:
    """Answer one WritesArrived.

    Attributes:
        results: One for each write, in order.
        acks: Names of the replicas that hold all of them on disk.
        timing: Milliseconds from the append to the leader's own sync ("fsync") and to each
            follower's ack ("ack_<node>").
    """

    token: int
    results: tuple[WriteResult, ...]
    acks: tuple[str, ...]
    timing: dict[str, float]


@dataclass(frozen=True, slots=True)
class AnswerRead:
    """Answer one ReadArrived: the applied state may be read now, or this replica cannot say."""

    token: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class AnswerTransfer:
    """Answer one TransferAsked.

    Attributes:
        leader: Who leads now, in a higher epoch; None if nobody took over.
        reason: Why not; "" on success.
    """

    token: int
    leader: str | None
    reason: str


class Level(Enum):
    """How much an operator should care."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Channel(Enum):
    """Where a Report belongs: the daemon's own log, or sync.log."""

    DAEMON = "daemon"
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the operator. Role, ISR, truncation, refusal: one line each."""

    channel: Channel
    level: Level
    event: str
    fields: dict[str, object]


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop this replica: what happened is excluded by the protocol, or its log is damaged."""

    reason: str


Effect = (
    PersistEpoch
    | AppendLines
    | SyncLog
    | TruncateLog
    | Apply
    | Send
    | SendFromLog
    | Propose
    | ReadState
    | Probe
    | FetchSnapshot
    | InstallSnapshot
    | HandingOver
    | Left
    | RoleChanged
    | AnswerWrites
    | AnswerRead
    | AnswerTransfer
    | Report
    | Halt
)
