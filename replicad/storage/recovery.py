"""From log files to a log: lines verified, a torn tail cut, anything worse refused.

Full segments that have a sidecar to be believed are not read again (see `checkpoint.py`).

A power cut may leave the last writes incomplete or garbled, several lines of them, and nobody can
have relied on what was not yet synced. Damage to anything that was known to be synced, or that
is known to be committed, has another cause: this disk cannot be trusted, and cutting would lose
what others rely on. What tells them apart, for damage in the line of entry `i`:

- `i` is at or below `committed_floor`, or the log ends before it: what SQLite had applied;
- it lies before the mark of the sidecar `log/synced`;
- a segment follows, and segments are synced before the next one is created;
- some line, before or after it, names a commit index at or above `i`.

Lines after the damage cannot all be verified, because a digest needs the line before. What looks
like the head of an entry is believed: at worst, bytes that only imitate one make recovery refuse
a log that a peer can repair; they never make it cut one that it must keep.

Source: docs/log-format.md, "Torn tail against corruption".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from replicad.core.entry import decode_head, verify_line
from replicad.core.log import LogIndex
from replicad.core.messages import Point
from replicad.errors import CorruptLogError, DiskFullError, MalformedEntryError, ReplicadError
from replicad.storage.checkpoint import Checkpoints
from replicad.storage.journal import SEGMENT_BYTES, Journal, Segment
from replicad.storage.logbase import Base

_BLOCK_BYTES: Final = 4 * 1024 * 1024
_HEAD: Final = re.compile(
    rb'(?<![:,\[])\{"index":(\d{1,19}),"epoch":\d{1,19},"time":"[^"]{1,40}","commit":(\d{1,19}),"operation":"'
)
_HEAD_BYTES_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log that was verified, all of it synced.

    Attributes:
        index: Of all its entries.
        last_time: The last entry's time; "" for an empty log.
        commit: The highest commit index known from `committed_floor` and from the lines.
        cut_bytes: Length of the torn tail; 0 when there was none.
        kept: The file in lost+found that holds the torn tail, or None.
        journal: Open, ready to append.
        checkpoints: Of its full segments; some may have to be written yet.
        read_bytes: How much of the log was read and verified; the rest was known from sidecars.
    """

    index: LogIndex
    last_time: str
    commit: int
    cut_bytes: int
    kept: Path | None
    journal: Journal
    checkpoints: Checkpoints
    read_bytes: int


class _Damage(NamedTuple):
    segment: Segment
    position: int
    why: str


def recover(
    directory: Path,
    genesis: bytes,
    committed_floor: int,
    *,
    epoch: int = 0,
    segment_bytes: int = SEGMENT_BYTES,
) -> Recovered:
    """Verify the log of a data directory and cut its torn tail, if it has one.

    May be interrupted at any point and begun again.

    Args:
        directory: The data directory, locked by the caller.
        genesis: The digest that entry 1 follows; a log without it says itself what it follows.
        committed_floor: The entries up to here are known to be committed.
        epoch: The persisted one; part of the torn tail's name in lost+found.
        segment_bytes: See Journal.

    Raises:
        CorruptLogError: Damage that is no torn tail. Nothing was changed.
        DiskFullError: No room to keep the torn tail. It was not cut.
        DiskFailedError: The disk cannot be read, written or synced.
    """
    journal = Journal.open(directory, segment_bytes=segment_bytes)
    try:
        scan = _Scan(journal, journal.base or Base(Point(0, genesis)))
        damage = scan.run()
        _refuse_corruption(scan, damage, committed_floor)
        end = scan.index.end
        cut_bytes = journal.end - end
        kept = journal.keep_from(end, scan.index.last + 1, epoch=epoch) if cut_bytes else None
        # Also when there is nothing to cut: a roll may have left an empty segment, and what a
        # killed process had written must be synced before anyone is told that it is here.
        with suppress(DiskFullError):  # Some quotas, and file systems that copy on write.
            journal.write_again(journal.mark.position)
        journal.cut_to(end)
        journal.remove_leftovers()
        journal.mark_synced(scan.index, scan.index.last)
    except ReplicadError:
        journal.abandon()
        raise
    return Recovered(
        scan.index,
        scan.last_time,
        max(committed_floor, scan.commit),
        cut_bytes,
        kept,
        journal,
        scan.checkpoints,
        scan.read_bytes,
    )


class _Scan:
    """Reads a log up to its end or to the first damage, changing nothing."""

    def __init__(self, journal: Journal, base: Base) -> None:
        self.journal = journal
        self.checkpoints = Checkpoints(journal)
        self.index = LogIndex(base.point, base.epoch, start=base.position)
        self.last_time = base.time
        self.commit = base.point.index
        self.read_bytes = 0
        self._previous = base.point.digest

    def run(self) -> _Damage | None:
        """Verify segment after segment; tell where the first damage is."""
        for at, segment in enumerate(self.journal.segments):
            if segment.first != self.index.last + 1:
                raise CorruptLogError(
                    f"{self.journal.path_of(segment)}: expected entry {self.index.last + 1} to "
                    "begin this segment; one is missing or has another's name"
                )
            is_full = at + 1 < len(self.journal.segments)
            if is_full and self._load(at):
                continue
            end = self.journal.end_of_segment(at)
            self.read_bytes += end - segment.start
            why = self._verify_segment(segment, end)
            if why:
                return _Damage(segment, self.index.end, why)
        return None

    def _load(self, at: int) -> bool:
        header = self.checkpoints.load(at, self.index)
        if header is None:
            return False
        self._previous = self.index.last_point.digest
        self.last_time = header.last_time
        self.commit = max(self.commit, header.commit)
        return True

    def _verify_segment(self, segment: Segment, end: int) -> str | None:
        for lines in _complete_lines(self.journal, segment.start, end):
            for line in lines:
                try:
                    digest = verify_line(line, self._previous)
                except MalformedEntryError as error:
                    return str(error)
                self._take(line, digest, segment)
        return "the last line is incomplete" if self.index.end < end else None

    def _take(self, line: bytes, digest: bytes, segment: Segment) -> None:
        """Add a line with a good digest. What is wrong with it now, no power cut has done."""
        try:
            number, epoch, time, commit = decode_head(line)
            if number != self.index.last + 1:
                raise MalformedEntryError(f"index {number} instead of {self.index.last + 1}")
            if epoch < self.index.last_epoch:
                raise MalformedEntryError(f"epoch {epoch} after {self.index.last_epoch}")
            if time < self.last_time:
                raise MalformedEntryError(f"time {time} after {self.last_time}")
        except MalformedEntryError as error:
            damage = _Damage(segment, self.index.end, str(error))
            raise self.corrupt(damage, "and the line was sealed like that") from error
        self.index.append(epoch, len(line) + 1, digest)
        self._previous = digest
        self.last_time = time
        if commit > self.commit:
            self.commit = commit

    def corrupt(self, damage: _Damage, reason: str) -> CorruptLogError:
        """The error that names the place, what is wrong, and why it is no torn tail."""
        return CorruptLogError(
            f"{self.journal.path_of(damage.segment)}, byte {damage.position - damage.segment.start}"
            f", entry {self.index.last + 1}: {damage.why}; {reason}"
        )


def _refuse_corruption(scan: _Scan, damage: _Damage | None, committed_floor: int) -> None:
    journal, last, mark = scan.journal, scan.index.last, scan.journal.mark
    if damage is None:
        segments = journal.segments
        damage = _Damage(segments[-1] if segments else Segment(1, 0), journal.end, "the log ends")
    elif damage.segment != journal.segments[-1]:
        raise scan.corrupt(damage, "a later segment shows that it was synced")
    if last < committed_floor:
        raise scan.corrupt(damage, f"entries up to {committed_floor} were applied as committed")
    if damage.position < mark.position:
        raise scan.corrupt(damage, f"the log was synced up to entry {mark.point.index}")
    if mark.position > scan.index.start and not scan.index.holds(mark.point):
        raise scan.corrupt(damage, f"entry {mark.point.index} is not the one that was synced")
    named = max(scan.commit, _later_commit(journal, damage.position))
    if last < named:
        raise scan.corrupt(damage, f"another entry says that entries up to {named} are committed")


def _complete_lines(journal: Journal, start: int, end: int) -> Iterator[list[bytes]]:
    """Blocks of lines without their newlines; what follows the last newline is left out."""
    rest = b""
    for block in _blocks(journal, start, end):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield lines


def _later_commit(journal: Journal, start: int) -> int:
    """The highest commit index that anything like an entry's head names after `start`.

    An entry names only earlier ones as committed: so the damaged one is no evidence about itself.
    A client's value may imitate a head, but inside of an entry an object always follows a colon,
    a comma or a bracket. A real one may follow anything: the line break before it may be damaged.
    """
    highest = 0
    rest = b""
    for block in _blocks(journal, start, journal.end):
        data = rest + block
        for head in _HEAD.finditer(data):
            index, commit = int(head[1]), int(head[2])
            if commit < index:
                highest = max(highest, commit)
        rest = data[-_HEAD_BYTES_MAX:]
    return highest


def _blocks(journal: Journal, start: int, end: int) -> Iterator[bytes]:
    for position in range(start, end, _BLOCK_BYTES):
        yield journal.read(position, min(end, position + _BLOCK_BYTES))
