"""What can happen to a replica. Each event is stepped with the time at which it happened."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from replicad.core.cluster import View
from replicad.core.messages import Message, Point
from replicad.core.write import WriteRequest


class Earlier(NamedTuple):
    """The entry that carries a request id.

    Attributes:
        at: Its index.
        fingerprint: Its own.
        done: What it did to each of its records: letters of `entry.DONE`.
    """

    at: int
    fingerprint: str
    done: str


class Found(NamedTuple):
    """What the applied state knows about one write.

    A version is the index of the entry that last wrote a record; 0 stands for no record.

    Attributes:
        versions: Of the record of each operation.
        earlier: The entry that carries its request id, or None.
        definition: The version of its collection's definition.
        records: How many records the collections hold that must be empty for it.
    """

    versions: tuple[int, ...]
    earlier: Earlier | None
    definition: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Comes every few tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message from another replica, or an Echo of our own."""

    message: Message


@dataclass(frozen=True, slots=True)
class BrokerChanged:
    """The broker connection can carry messages now, or cannot any more."""

    up: bool


@dataclass(frozen=True, slots=True)
class ViewSeen:
    """The coordinator holds this. May be old: only higher versions of the state count."""

    view: View


@dataclass(frozen=True, slots=True)
class ReadFinished:
    """Answer to ReadState: a read that began after the effect, or None when it failed."""

    token: int
    view: View | None


class Outcome(Enum):
    """What became of a proposal."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The versions differed: this proposal did not happen and never will."""
    UNKNOWN = "unknown"
    """No answer: it may have happened, may happen later, or never."""


@dataclass(frozen=True, slots=True)
class ProposalFinished:
    """Answer to Propose. `version` is the new one if accepted, else meaningless."""

    nonce: str
    outcome: Outcome
    version: int


@dataclass(frozen=True, slots=True)
class LogSynced:
    """All entries up to `index` that were appended before are on the disk."""

    index: int


@dataclass(frozen=True, slots=True)
class AppendFailed:
    """The disk had no room: nothing of the entries from `first` on was kept.

    The effects that followed the AppendLines in its step were not run.
    """

    first: int


@dataclass(frozen=True, slots=True)
class DiskChanged:
    """The disk has room for entries now, or has not."""

    writable: bool


@dataclass(frozen=True, slots=True)
class WritesArrived:
    """Writes of one forwarded request.

    Attributes:
        token: Names the request in its Answer.
        epoch: The epoch in which the sender believes this replica to lead.
        writes: In the order in which they are answered.
        found: What the state at `applied` knows about each write.
        applied: The applied index at which `found` was looked up.
    """

    token: int
    epoch: int
    writes: tuple[WriteRequest, ...]
    found: tuple[Found, ...]
    applied: int


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """Answer to Probe.

    Attributes:
        node: Who was looked for.
        asked_at: When, as Probe says.
        gone: The broker has proved that nobody reads the node's queue. False proves nothing.
    """

    node: str
    asked_at: float
    gone: bool


@dataclass(frozen=True, slots=True)
class SnapshotFetched:
    """Answer to FetchSnapshot: a durable, verified snapshot up to `point`, or None.

    `epoch` is that of the entry at `point`.
    """

    point: Point | None
    epoch: int


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The log begins after `base` now, and is empty; the record store holds all before it.

    Comes before any other event that follows an InstallSnapshot. `time` is the base's.
    """

    base: Point
    time: str


@dataclass(frozen=True, slots=True)
class TransferAsked:
    """An operator wants another leader: `to`, or (None) whoever is best; then AnswerTransfer."""

    token: int
    to: str | None


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The process is about to stop, politely; Left says when it may."""


@dataclass(frozen=True, slots=True)
class ReadArrived:
    """A strong read that the sender believes this replica must answer in `epoch`."""

    token: int
    epoch: int


Event = (
    Tick
    | MessageReceived
    | BrokerChanged
    | ViewSeen
    | ReadFinished
    | ProposalFinished
    | LogSynced
    | AppendFailed
    | DiskChanged
    | WritesArrived
    | ReadArrived
    | ProbeFinished
    | SnapshotFetched
    | SnapshotInstalled
    | TransferAsked
    | StopAsked
)
