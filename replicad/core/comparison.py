"""Who of the replicas differs from the others, and where: the judgement of `replicad verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from replicad.core.entry import format_time

# Of log time: by so much replicas may be apart, or go on, while they are compared.
_SLACK_MS: Final = 3_600_000

T = TypeVar("T")


class Split(NamedTuple):
    """How the replicas divide over one value.

    Attributes:
        majority: Names of those that have what more than half of them have; empty if nobody has.
        minority: The others. All of them, if there is no majority.
    """

    majority: tuple[str, ...]
    minority: tuple[str, ...]


class RangeDigest(NamedTuple):
    """The lines of a snapshot from one key on, up to the next range's.

    Attributes:
        collection, key: Of the first one: a record, or a write that is remembered.
        lines: How many there are.
        digest: Of them all, in hex.
    """

    collection: str
    key: str
    lines: int
    digest: str

    @property
    def first(self) -> tuple[str, str]:
        """Where it begins."""
        return self.collection, self.key


class RecordDigest(NamedTuple):
    """One such line: `at` which entry it stands, and the digest of all that is stored of it."""

    collection: str
    key: str
    at: int
    digest: str


def remembered_by_all(forgotten: Iterable[str]) -> str:
    """From which time on all replicas remember writes, and will while they are compared.

    Args:
        forgotten: For each replica, before which time it may have forgotten them; "" if it has
            forgotten none.
    """
    latest = max(forgotten, default="")
    if not latest:
        return ""
    return format_time(round(datetime.fromisoformat(latest).timestamp() * 1000) + _SLACK_MS)


def split(values: Mapping[str, T]) -> Split:
    """Divide the replicas by what they have."""
    (value, count), *_ = Counter(values.values()).most_common(1)
    if 2 * count <= len(values):
        return Split((), tuple(values))
    majority = tuple(name for name, theirs in values.items() if theirs == value)
    return Split(majority, tuple(name for name in values if name not in majority))


def first_difference(
    ours: Sequence[RangeDigest], theirs: Sequence[RangeDigest]
) -> tuple[tuple[str, str], tuple[str, str] | None] | None:
    """The first stretch of keys in which two replicas differ.

    Ranges are cut by their content, so behind a difference the two have equal ranges again.

    Returns:
        The key at which it begins, and the first one after it that begins a range of both, or
        None for the end; None if all is equal.
    """
    pairs = enumerate(zip(ours, theirs, strict=False))
    shorter = min(len(ours), len(theirs))
    at = next((at for at, (one, other) in pairs if one != other), shorter)
    if at == len(ours) == len(theirs):
        return None
    begins = min(each[at].first for each in (ours, theirs) if at < len(each))
    starts = {each.first for each in theirs[at + 1 :]}
    return begins, next((each.first for each in ours[at + 1 :] if each.first in starts), None)


def first_differing_record(
    ours: Sequence[RecordDigest], theirs: Sequence[RecordDigest]
) -> tuple[str, str] | None:
    """Collection and key of the first record that only one has, or that both have differently."""
    differing = set(ours) ^ set(theirs)
    return min(((each.collection, each.key) for each in differing), default=None)


async def first_differing_entry(
    low: int, high: int, is_equal: Callable[[int], Awaitable[bool]]
) -> int:
    """Find by bisection where two logs part.

    Chain digests that are equal at an index are equal at all before.

    Args:
        low: They are equal here.
        high: They differ here.
        is_equal: Tells whether they are equal at an index.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if await is_equal(middle):
            low = middle
        else:
            high = middle
    return high
