"""How much of the log a replica keeps: which old segments may go, decided without any I/O.

A segment goes only if the operator's limits want it gone, and if nobody can still need it: a
durable, verified snapshot covers it, so that the record store can be made anew and a new follower
be served; and every in-sync replica is past it, so that none of them has to fetch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from replicad.core.entry import format_time


@dataclass(frozen=True, slots=True)
class Retention:
    """An operator's limits; None means no limit. What exceeds one of them is to go.

    Attributes:
        bytes_max: Of the whole log.
        age_max_s: Of a segment's last entry, by the leaders' wall clocks.
    """

    bytes_max: int | None = None
    age_max_s: float | None = None


KEEP_ALL: Final = Retention()


class SegmentFacts(NamedTuple):
    """One segment as retention sees it.

    Attributes:
        first: Its first entry.
        size: In bytes.
        last_time: Of its last entry, as it stands in the log.
    """

    first: int
    size: int
    last_time: str


def may_drop(
    retention: Retention,
    segments: Sequence[SegmentFacts],
    *,
    unix_ms: int,
    snapshot: int,
    in_sync: int,
) -> int:
    """Up to which index whole segments may and should be dropped; 0 if none.

    The last segment is never dropped: it may not be full yet.

    Args:
        retention: The limits.
        segments: All of the log, oldest first.
        unix_ms: The wall clock.
        snapshot: The last entry of the newest snapshot that is durable and verified; 0 if none.
        in_sync: Every in-sync replica has the entries up to here. The commit index says as much.
    """
    covered = min(snapshot, in_sync)
    excess = sum(segment.size for segment in segments) - (retention.bytes_max or 0)
    oldest = ""
    if retention.age_max_s is not None:
        oldest = format_time(unix_ms - round(retention.age_max_s * 1000))
    dropped = 0
    for segment, following in pairwise(segments):
        is_excess = retention.bytes_max is not None and excess > 0
        if following.first - 1 > covered or not (is_excess or segment.last_time < oldest):
            break
        dropped = following.first - 1
        excess -= segment.size
    return dropped
