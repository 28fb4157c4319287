"""What the protocol must know of the log: every digest, where entries end, where epochs begin.

The lines themselves stay on disk. 40 bytes an entry are kept in memory, so that comparing two
logs at any index, the work of every ack, costs one slice.
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
    """Digests and positions of all entries of one log.

    Invariant: len(digests) == 32 * last, len(ends) == last; positions count bytes from the first
    byte of entry 1, over all segments together.
    """

    def __init__(self, genesis: bytes) -> None:
        """An empty log whose first entry will follow `genesis` (32 raw bytes)."""
        self._genesis = genesis
        self._digests = bytearray()
        self._ends = array("Q")
        self._epochs: list[EpochStart] = []

    @property
    def last(self) -> int:
        """The last entry's index; 0 for an empty log."""
        return len(self._ends)

    @property
    def last_epoch(self) -> int:
        """The last entry's epoch; 0 for an empty log."""
        return self._epochs[-1].epoch if self._epochs else 0

    @property
    def last_point(self) -> Point:
        """The last entry's index and digest."""
        return self.point(self.last)

    @property
    def end(self) -> int:
        """The log's length in bytes."""
        return self.end_of(self.last)

    def point(self, index: int) -> Point:
        """The index with its digest; index 0 stands for the genesis digest."""
        return Point(index, self.digest_at(index))

    def digest_at(self, index: int) -> bytes:
        """The raw digest of the entry at `index`, 0 <= index <= last."""
        if index == 0:
            return self._genesis
        if not 0 < index <= self.last:
            raise IndexError(index)
        return bytes(self._digests[(index - 1) * DIGEST_BYTES : index * DIGEST_BYTES])

    def epoch_at(self, index: int) -> int:
        """The epoch of the entry at `index`, 0 < index <= last."""
        return self._epochs[bisect_right(self._epochs, index, key=lambda s: s.first) - 1].epoch

    def holds(self, point: Point) -> bool:
        """Whether this log equals the point's log up to the point."""
        return point.index <= self.last and self.digest_at(point.index) == point.digest

    def end_of(self, index: int) -> int:
        """Where the entry at `index` ends, in bytes; 0 for index 0."""
        return self._ends[index - 1] if index else 0

    def append(self, epoch: int, line_bytes: int, digest: bytes) -> None:
        """Add one entry; `line_bytes` counts the newline."""
        if epoch != self.last_epoch:
            self._epochs.append(EpochStart(epoch, self.last + 1))
        end = self.end + line_bytes
        self._digests += digest
        self._ends.append(end)

    def truncate(self, first_gone: int) -> None:
        """Forget the entries from `first_gone` on."""
        del self._digests[(first_gone - 1) * DIGEST_BYTES :]
        del self._ends[first_gone - 1 :]
        while self._epochs and self._epochs[-1].first >= first_gone:
            self._epochs.pop()

    def fit(self, first: int, last: int, bytes_max: int) -> int:
        """The highest index up to which entries from `first` fit into bytes_max; at least one."""
        room = self.end_of(first - 1) + bytes_max
        return max(first, min(last, bisect_right(self._ends, room)))

    def points(self) -> tuple[Point, ...]:
        """Points from which a peer finds the last common index, highest first.

        Distances from the end double from one point to the next, so that a peer that sends what
        follows the highest common point repeats at most as many entries as the tails that differ.
        The starts of epochs, where logs part, are among them while there is room.
        """
        wanted = {0, self.last}
        step = 1
        while step < self.last:
            wanted.add(self.last - step)
            step *= 2
        for start in reversed(self._epochs):
            if len(wanted) >= POINTS_MAX:
                break
            wanted.add(start.first - 1)
        return tuple(self.point(index) for index in sorted(wanted, reverse=True))
