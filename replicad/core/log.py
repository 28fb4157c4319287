"""What the protocol must know of the log: every digest, where entries end, where epochs begin.

The lines themselves stay on disk. 40 bytes an entry are kept in memory, so that comparing two
logs at any index, the work of every ack, costs one slice.

A log need not begin with entry 1: what a snapshot covers may be gone. The entry before its first
one is its base, of which index, digest and epoch are still known; of earlier ones nothing is.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from replicad.core.entry import DIGEST_BYTES
from replicad.core.messages import Point

POINTS_MAX: Final = 64


class EpochStart(NamedTuple):
    """An epoch and the index of its first entry."""

    epoch: int
    first: int


class LogIndex:
    """Digests and positions of all entries of one log after its base.

    Positions count bytes over all segments together. They mean something on one disk only: what
    is dropped at the front leaves the positions of the rest as they are.

    Invariants: base.index + len(ends) == last; len(digests) == 32 * len(ends); epochs[0] is the
    base's epoch, said to begin at the base, and the others begin after it, in growing order.

    Attributes: for others to read. They are asked for many times in every step.
        base: What the first entry follows; nothing is known of what lies before it.
        last: The last entry's index; the base's for an empty log.
        last_digest: Its raw digest.
        start: The position of the first entry's first byte.
        end: The position after the last byte.
    """

    def __init__(self, base: Point, base_epoch: int = 0, *, start: int = 0) -> None:
        """An empty log.

        Args:
            base: What its first entry will follow: (0, genesis digest) for a whole log.
            base_epoch: The epoch of the entry at the base; 0 for a whole log.
            start: The position of its first byte.
        """
        self.base, self.start = base, start
        self.last, self.last_digest, self.end = base.index, base.digest, start
        self._digests = bytearray()
        self._ends = array("Q")
        self._epochs = [EpochStart(base_epoch, base.index)]

    @property
    def base_epoch(self) -> int:
        """The epoch of the entry at the base."""
        return self._epochs[0].epoch

    @property
    def first(self) -> int:
        """The first entry's index, or what it will be in an empty log."""
        return self.base.index + 1

    @property
    def last_epoch(self) -> int:
        """The last entry's epoch; the base's for an empty log."""
        return self._epochs[-1].epoch

    @property
    def last_point(self) -> Point:
        """The last entry's index and digest; the base for an empty log."""
        return Point(self.last, self.last_digest)

    @property
    def epoch_starts(self) -> tuple[EpochStart, ...]:
        """The epochs that begin after the base, oldest first."""
        return tuple(self._epochs[1:])

    def point(self, index: int) -> Point:
        """The index with its digest; base.index <= index <= last."""
        return Point(index, self.digest_at(index))

    def digest_at(self, index: int) -> bytes:
        """The raw digest of the entry at `index`, base.index <= index <= last.

        Raises:
            IndexError: It is beyond the end, or lies before the base and is not known.
        """
        at = index - self.base.index
        if at == 0:
            return self.base.digest
        if not 0 < at <= len(self._ends):
            raise IndexError(index)
        return bytes(self._digests[(at - 1) * DIGEST_BYTES : at * DIGEST_BYTES])

    def epoch_at(self, index: int) -> int:
        """The epoch of the entry at `index`, base.index <= index <= last."""
        newest = self._epochs[-1]
        if index >= newest.first:  # Most often asked for.
            return newest.epoch
        return self._epochs[bisect_right(self._epochs, index, key=lambda s: s.first) - 1].epoch

    def holds(self, point: Point) -> bool:
        """Whether this log is known to equal the point's log up to the point.

        Of a point before the base that is not known, whatever its digest.
        """
        return (
            self.base.index <= point.index <= self.last
            and self.digest_at(point.index) == point.digest
        )

    def end_of(self, index: int) -> int:
        """The position after the entry at `index`, base.index <= index <= last.

        Raises:
            IndexError: It is beyond the end, or lies before the base and is not known.
        """
        at = index - self.base.index
        if at > 0:
            return self._ends[at - 1]
        if at < 0:
            raise IndexError(index)
        return self.start

    def append(self, epoch: int, line_bytes: int, digest: bytes) -> None:
        """Add one entry; `line_bytes` counts the newline."""
        self.last += 1
        self.last_digest = digest
        self.end += line_bytes
        if epoch != self._epochs[-1].epoch:
            self._epochs.append(EpochStart(epoch, self.last))
        self._digests += digest
        self._ends.append(self.end)

    def extend(self, part: LogPart) -> None:
        """Add many entries at once: a part cut out of a log like this one."""
        self._epochs += part.epochs
        self._digests += part.digests
        self._ends += part.ends
        self._find_end()

    def part(self, first: int, last: int) -> LogPart:
        """What is known of the entries from `first` to `last`."""
        low, high = first - self.first, last - self.base.index
        return LogPart(
            tuple(start for start in self._epochs[1:] if first <= start.first <= last),
            bytes(self._digests[low * DIGEST_BYTES : high * DIGEST_BYTES]),
            self._ends[low:high],
        )

    def truncate(self, first_gone: int) -> None:
        """Forget the entries from `first_gone` on, which lies after the base."""
        at = first_gone - self.first
        if at < 0:
            raise IndexError(first_gone)
        del self._digests[at * DIGEST_BYTES :]
        del self._ends[at:]
        while self._epochs[-1].first >= first_gone:
            self._epochs.pop()
        self._find_end()

    def rebase(self, index: int) -> None:
        """Forget the entries before `index`, which becomes the base; their memory is given back."""
        base, start, count = self.point(index), self.end_of(index), index - self.base.index
        epoch = self.epoch_at(index)
        self._epochs = [
            EpochStart(epoch, index),
            *(start for start in self._epochs if start.first > index),
        ]
        # Copies: deleting at the front would keep the memory.
        self._digests = self._digests[count * DIGEST_BYTES :]
        self._ends = self._ends[count:]
        self.base, self.start = base, start

    def reset(self, base: Point, base_epoch: int, *, start: int) -> None:
        """Forget everything and begin anew, as the constructor does: a snapshot took its place."""
        self.base, self.start = base, start
        self._digests, self._ends = bytearray(), array("Q")
        self._epochs = [EpochStart(base_epoch, base.index)]
        self._find_end()

    def fit(self, first: int, last: int, bytes_max: int) -> int:
        """The highest index up to which entries from `first` fit into bytes_max; at least one."""
        room = self.end_of(first - 1) + bytes_max
        return max(first, min(last, self.base.index + bisect_right(self._ends, room)))

    def points(self) -> tuple[Point, ...]:
        """Points from which a peer finds the last common index, highest first.

        Distances from the end double from one point to the next, so that a peer that sends what
        follows the highest common point repeats at most as many entries as the tails that differ.
        The starts of epochs, where logs part, are among them while there is room. The last one is
        the base.
        """
        wanted = {self.base.index, self.last}
        step = 1
        while step < self.last - self.base.index:
            wanted.add(self.last - step)
            step *= 2
        for start in reversed(self._epochs[1:]):
            if len(wanted) >= POINTS_MAX:
                break
            wanted.add(start.first - 1)
        return tuple(self.point(index) for index in sorted(wanted, reverse=True))

    def _find_end(self) -> None:
        self.last = self.base.index + len(self._ends)
        self.last_digest = self.digest_at(self.last)
        self.end = self.end_of(self.last)


class LogPart(NamedTuple):
    """What a LogIndex knows of some consecutive entries.

    Attributes:
        epochs: The epochs that begin among them.
        digests: Their raw digests, one after the other.
        ends: The position after each.
    """

    epochs: tuple[EpochStart, ...]
    digests: bytes
    ends: array[int]
