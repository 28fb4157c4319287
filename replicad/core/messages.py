"""Messages between replicas. How they look on RabbitMQ is in `replicad/broker/codec.py`.

| message  | from, to         | rules | meaning                                                    |
|----------|------------------|-------|------------------------------------------------------------|
| Append   | leader, all/one  | 1, 9  | entries that follow `previous`; none in a heartbeat        |
| Ack      | follower, leader | 1, 11 | our logs are equal to here, synced; I confirm your epoch   |
| Fetch    | follower, leader | 7     | my log has these points: send what follows the last common |
| Reject   | any, old leader  | 4     | I have persisted a higher epoch                            |
| Echo     | leader, itself   | 12    | proof that the broker carries messages                     |
| Offer    | leader, one      | 7     | what you need is in no log of mine: get a snapshot         |
| HandOver | leader, one      | 5     | you hold all of my log: stand for election now             |
| Leave    | follower, leader | 2     | I am about to stop: commit without me as soon as you may   |
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A place in a log: equal digests mean equal logs up to there. Digests are 32 raw bytes."""

    index: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Append:
    """Entries of the leader's log, or none: a heartbeat.

    Attributes:
        epoch, leader, incarnation: Who sends, in which epoch.
        previous: The point of the leader's log that the entries follow.
        count: How many entries.
        lines: Their lines, each with its newline, byte for byte as in the log.
        commit: The leader's commit point, never beyond the last entry of this message.
        last: Where the leader's published log ends; entries beyond this message can be fetched.
        round: Counts the leader's messages; an Ack confirms the epoch as of that round.
        acked: The newest round that each follower, by name, had acked when this was sent: what a
            follower needs to tell how old this message is, by its own clock alone.
    """

    epoch: int
    leader: str
    incarnation: str
    previous: Point
    count: int
    lines: bytes
    commit: Point
    last: int
    round: int
    acked: dict[str, int]


@dataclass(frozen=True, slots=True)
class Ack:
    """The follower's log, on this disk and synced, equals the leader's up to `matched`."""

    epoch: int
    node: str
    disk_id: str
    matched: Point
    round: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """The follower cannot use what it got. `points` of its own log, highest first."""

    epoch: int
    node: str
    disk_id: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """The sender has persisted `epoch`, higher than that of the message it answers."""

    epoch: int
    node: str


@dataclass(frozen=True, slots=True)
class Echo:
    """Sent by a leader to its own reply queue; comes back only if the broker works.

    Attributes:
        epoch, incarnation: Of the leader.
        sent_at: By the leader's own monotonic clock, in seconds; means nothing to anyone else.
    """

    epoch: int
    incarnation: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class HandOver:
    """The leader takes no more writes; the receiver may take the lead at once.

    Attributes:
        epoch, leader: Who hands over, in which epoch.
        last: The end of the leader's log, all of it committed; the receiver must hold it.
        leaving: Whether the leader stops for good, so that its successor need not wait for it.
    """

    epoch: int
    leader: str
    last: Point
    leaving: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """The leader's log begins after `base`, beyond what the follower has: a snapshot is needed."""

    epoch: int
    leader: str
    base: Point


@dataclass(frozen=True, slots=True)
class Leave:
    """The follower is about to stop. It goes on acking until it has left the ISR."""

    epoch: int
    node: str
    disk_id: str


Message = Append | Ack | Fetch | Reject | Echo | HandOver | Leave | Offer
