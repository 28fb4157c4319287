"""The log's bytes: append-only segments `log/<first index, 20 digits>.jsonl`.

Positions count bytes over all segments, as `LogIndex` does.

Where segments begin follows from the entries alone: an entry opens a new one when the current
segment, which is never empty, would exceed SEGMENT_BYTES with it. So the files of replicas are
byte-identical however the entries were batched, and whatever was cut and written again.

The log's front is dropped by whole segments, and a snapshot that takes its place ends where a
segment ends. So the rule above gives the same files, whether entry 1 is still there or not. A
segment's end is known for good once the entry that opens the next one is committed: until then it
may be replaced by a smaller one that still fits.

A segment is synced before the next one is created. So only the last one can have a torn tail.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path
from typing import Final, NamedTuple, Self

from replicad.core.log import LogIndex
from replicad.errors import CorruptLogError, DiskFailedError, ProtocolViolationError, require
from replicad.storage.datadir import LOG_DIRECTORY
from replicad.storage.durable import (
    disk_error,
    disk_errors,
    failure,
    is_no_room,
    make_directory,
    sync_data,
    sync_directory,
    write_all,
)
from replicad.storage.logbase import Base, read_base, write_base
from replicad.storage.lostfound import LOST_AND_FOUND, kept_name
from replicad.storage.syncmark import Mark, SyncMark

SEGMENT_BYTES: Final = 64 * 1024 * 1024
_COPY_BYTES: Final = 4 * 1024 * 1024
_READERS_MAX: Final = 64


class Segment(NamedTuple):
    """One log file: the index of its first entry, and the position of its first byte."""

    first: int
    start: int

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.first:020d}.jsonl"

    @property
    def checkpoint(self) -> str:
        """The name of its sidecar, which need not be there; see `checkpoint.py`."""
        return f"{self.first:020d}.index"


class Journal:
    """The segments of one log. Knows bytes; what they mean is LogIndex's and recovery's matter.

    Not thread-safe. After DiskFailedError the process must end: what the files hold is unknown.
    """

    def __init__(
        self,
        directory: Path,
        base: Base | None,
        segments: list[Segment],
        end: int,
        segment_bytes: int,
    ) -> None:
        """Use `open`, or rather `recovery.recover`."""
        self._directory = directory
        self._log = directory / LOG_DIRECTORY
        self._base = base
        self._segments = segments
        self._end = end
        self._segment_bytes = segment_bytes
        self._writer: int | None = None
        self._readers: dict[int, int] = {}
        self._synced = SyncMark(self._log)

    @classmethod
    def open(cls, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """List the segments of a data directory, which may have none, without reading them.

        Raises:
            CorruptLogError: A log file is not named as a segment, or `log/base` is damaged.
            DiskFullError, DiskFailedError: The log's directory cannot be made or read.
        """
        log = directory / LOG_DIRECTORY
        with disk_errors(f"open {log}"):
            make_directory(log)
            base = read_base(log)
            segments: list[Segment] = []
            end = base.position if base else 0
            for path in sorted(log.glob("*.jsonl")):
                if not (path.stem.isdecimal() and len(path.stem) == 20):
                    raise CorruptLogError(f"{path} is not named as a segment of the log")
                if base and int(path.stem) <= base.point.index:
                    continue  # Left over: see `remove_leftovers`.
                segments.append(Segment(int(path.stem), end))
                end += path.stat().st_size
        return cls(directory, base, segments, end, segment_bytes)

    @property
    def base(self) -> Base | None:
        """What the first entry follows; None for a log that begins with entry 1."""
        return self._base

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, oldest first."""
        return tuple(self._segments)

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self._end

    @property
    def mark(self) -> Mark:
        """Up to where the log is known to be synced; lags behind."""
        return self._synced.mark

    def path_of(self, segment: Segment) -> Path:
        """The segment's file."""
        return self._log / segment.name

    def end_of_segment(self, at: int) -> int:
        """The position after the last byte of `segments[at]`."""
        return self._segments[at + 1].start if at + 1 < len(self._segments) else self._end

    def describe(self, position: int) -> str:
        """Where a byte is, for people: the file's path and the offset in it."""
        at = bisect_right(self._segments, position, key=lambda segment: segment.start) - 1
        segment = self._segments[at]
        return f"{self.path_of(segment)}, byte {position - segment.start}"

    def append(self, lines: bytes, index: LogIndex, first: int) -> None:
        """Write the lines of the entries from `first` on, without syncing them.

        Args:
            lines: Whole lines with their newlines.
            index: Holds where these entries end, already.
            first: The first line's index; the one before it is the last in the files.

        Raises:
            DiskFullError: Nothing of `lines` was kept; later appends may succeed. The caller
                takes the entries off the LogIndex again.
            DiskFailedError: Something of `lines` may have been kept: end the process.
        """
        start, goal = self._end, self._end + len(lines)
        if index.end_of(first - 1) != start or index.end < goal:
            raise ProtocolViolationError(f"entry {first} does not follow the log's byte {start}")
        try:
            self._write(lines, index, first)
        except OSError as error:
            if is_no_room(error):
                self.cut_to(start)
            raise disk_error(f"append to {self._log}", error) from error

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises:
            DiskFailedError: It may be lost although a second sync would succeed.
        """
        if self._segments:
            sync_data(self._open_writer(), self._log)

    def mark_synced(self, index: LogIndex, last: int) -> None:
        """Note, lazily, that all entries up to `last` are synced.

        Raises:
            DiskFailedError: The note cannot be written.
        """
        self._synced.raise_to(Mark(index.end_of(last), index.point(last)))

    def read(self, start: int, end: int, *, from_disk: bool = False) -> bytes:
        """The bytes between two positions of the log.

        Args:
            start: The first byte's position.
            end: The position after the last byte.
            from_disk: Let the kernel forget first what it has of them in memory, as far as it is
                on the disk already.

        Raises:
            DiskFailedError: They cannot be read.
        """
        parts = []
        at = bisect_right(self._segments, start, key=lambda segment: segment.start) - 1
        require(at >= 0 or start == end, f"the log does not begin before byte {start}")
        with disk_errors(f"read {self._log}"):
            while start < end:
                segment = self._segments[at]
                stop = min(end, self.end_of_segment(at))
                reader, offset = self._reader_of(segment), start - segment.start
                if from_disk:
                    os.posix_fadvise(reader, offset, stop - start, os.POSIX_FADV_DONTNEED)
                parts.append(self._read_all(segment, reader, offset, stop - start))
                start = stop
                at += 1
        return b"".join(parts)

    def truncate(self, index: LogIndex, first_gone: int, *, epoch: int) -> Path:
        """Move the entries from `first_gone` on to lost+found and cut the log there, durably.

        Of `index` only what precedes `first_gone` is used, so it may be truncated before or after.
        `epoch` is the persisted one: in whose reign the entries are cut.

        Returns:
            The file that keeps the bytes.

        Raises:
            DiskFullError: No room to keep them; the log is as it was.
            DiskFailedError: The outcome is unknown.
        """
        position = index.end_of(first_gone - 1)
        kept = self.keep_from(position, first_gone, epoch=epoch)
        # A mark beyond the end would call the shorter log corrupt.
        self._synced.lower_to(Mark(position, index.point(first_gone - 1)))
        self.cut_to(position)
        return kept

    def keep_from(self, position: int, first_gone: int, *, epoch: int) -> Path:
        """Copy the bytes from `position` on into lost+found, durably, and return the new file.

        Raises:
            DiskFullError, DiskFailedError: The copy is not complete.
        """
        folder = self._directory / LOST_AND_FOUND
        with disk_errors(f"write to {folder}"):
            make_directory(folder)
            path = kept_name(folder, first_gone, epoch)
            copy = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                for start in range(position, self._end, _COPY_BYTES):
                    write_all(copy, self.read(start, min(self._end, start + _COPY_BYTES)))
                sync_data(copy, path)
            except OSError:
                path.unlink()  # Room that a full disk needs; the log still holds it all.
                raise
            finally:
                os.close(copy)
        sync_directory(folder)
        return path

    def write_again(self, position: int) -> None:
        """Write the bytes from `position` on, as they are, once more; the next sync covers them.

        A process that was killed after a failed sync could not tell. The kernel takes the pages
        of that sync for written, so that a sync alone would succeed without writing them.

        Raises:
            DiskFullError: No room, as on a file system that copies on write; nothing was changed.
            DiskFailedError: The outcome is unknown.
        """
        if not self._segments:
            return
        segment = self._segments[-1]  # Every other was synced before the one after it was made.
        path = self.path_of(segment)
        with disk_errors(f"write {path} again"):
            descriptor = os.open(path, os.O_WRONLY)
            try:
                begin = max(position, segment.start)
                os.lseek(descriptor, begin - segment.start, os.SEEK_SET)
                for start in range(begin, self._end, _COPY_BYTES):
                    write_all(descriptor, self.read(start, min(self._end, start + _COPY_BYTES)))
            finally:
                os.close(descriptor)

    def cut_to(self, position: int) -> None:
        """Delete the bytes from `position` on, and segments that are then empty; sync the rest.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        self._close_descriptors()
        try:
            # Last to first, each made durable: after a crash no gap can be in the middle.
            while self._segments and self._segments[-1].start >= position:
                self._unlink(self._segments.pop())
                sync_directory(self._log)
            if self._segments:
                os.ftruncate(self._open_writer(), position - self._segments[-1].start)
                os.fsync(self._open_writer())
            # Also without a deletion: a process killed in a roll left a name that was not synced.
            sync_directory(self._log)
        except OSError as error:
            raise failure(error)(f"cannot cut {self._log}: {error}") from error
        self._end = position

    def boundary_at(self, index: int) -> int | None:
        """Where the log may begin: the last entry, up to `index`, that another segment follows.

        None if there is none.
        """
        at = bisect_right(self._segments, index + 1, key=lambda segment: segment.first) - 1
        return self._segments[at].first - 1 if at > 0 else None

    def drop_before(self, base: Base) -> None:
        """Delete the segments up to `base`, where one of them ends, durably.

        Raises:
            DiskFullError: No room for the new base; nothing was deleted.
            DiskFailedError: The outcome is unknown.
        """
        positions = [segment.start for segment in self._segments]
        self._begin_after(base, gone=positions.index(base.position))

    def reset_to(self, log: LogIndex, base: Base, committed: int, *, epoch: int) -> Path | None:
        """Give up the whole log and begin anew after `base`, durably.

        A durable snapshot holds all that is committed up to `base`. Entries above `committed` need
        not be among that: they are kept in lost+found. After a crash at any point the log is the
        old one, or a front part of it that ends before entries that differ from the committed
        ones, or the new one. Of `log` nothing is changed: the caller resets it, to begin at `end`.

        Args:
            log: The index of what is there now.
            base: The snapshot's last entry, beyond `committed`, and not held by this log. Its
                position is set here.
            committed: This log's entries up to here are known to be committed.
            epoch: See `truncate`.

        Returns:
            The file that keeps the entries above `committed`, or None if there are none.

        Raises:
            DiskFullError: No room; the log is as it was.
            DiskFailedError: The outcome is unknown.
        """
        point = base.point
        require(committed < point.index, "a snapshot must reach beyond what is committed here")
        require(not log.holds(point), "a log that holds the snapshot's end is not given up")
        kept = None
        if committed < log.last:
            kept = self.keep_from(log.end_of(committed), committed + 1, epoch=epoch)
        if log.last >= point.index:
            # The entry there differs from the committed one, and so do all that follow. They must
            # go first: beyond the new base they would pass for its continuation.
            position = log.end_of(point.index - 1)
            self._synced.lower_to(Mark(position, log.point(point.index - 1)))
            self.cut_to(position)
        self._begin_after(base._replace(position=self._end), gone=len(self._segments))
        return kept

    def remove_leftovers(self) -> None:
        """Delete what an interrupted `drop_before` or `reset_to` left, and sidecars of nothing.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        names = {segment.first for segment in self._segments}
        with disk_errors(f"clean up {self._log}"):
            leftovers = [
                path
                for pattern in ("*.jsonl", "*.index", "*.tmp")
                for path in self._log.glob(pattern)
                if not (path.stem.isdecimal() and int(path.stem) in names)
            ]
            for path in leftovers:
                path.unlink()
        if leftovers:
            sync_directory(self._log)

    def close(self) -> None:
        """Make the mark durable and close everything. The log itself must have been synced.

        Raises:
            DiskFailedError: The mark could not be synced.
        """
        try:
            self._synced.sync()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the descriptors as a killed process would: nothing is synced or marked."""
        self._close_descriptors()
        self._synced.close()

    def _begin_after(self, base: Base, gone: int) -> None:
        """Make `base` durable, then delete the first `gone` segments, which it replaces."""
        write_base(self._log, base)
        self._base = base
        self._close_descriptors()
        leftovers, self._segments = self._segments[:gone], self._segments[gone:]
        with disk_errors(f"shorten {self._log}"):
            for segment in leftovers:
                self._unlink(segment)
        sync_directory(self._log)

    def _unlink(self, segment: Segment) -> None:
        (self._log / segment.checkpoint).unlink(missing_ok=True)
        self.path_of(segment).unlink()

    def _write(self, lines: bytes, index: LogIndex, first: int) -> None:
        rest = memoryview(lines)
        while rest and not self._fits(len(rest)):
            last = self._last_that_fits(index)
            if last < first:
                self._roll(first)
                last = self._last_that_fits(index)
            size = min(len(rest), index.end_of(last) - self._end)
            self._write_here(rest[:size])
            rest = rest[size:]
            first = last + 1
        if rest:
            self._write_here(rest)

    def _fits(self, size: int) -> bool:
        """Whether so much more belongs into the current segment."""
        segments = self._segments
        return bool(segments) and self._end + size <= segments[-1].start + self._segment_bytes

    def _write_here(self, lines: memoryview) -> None:
        write_all(self._open_writer(), lines)
        self._end += len(lines)

    def _last_that_fits(self, index: LogIndex) -> int:
        """The last entry that belongs into the current segment; 0 if there is none yet."""
        if not self._segments:
            return 0
        return index.fit(self._segments[-1].first, index.last, self._segment_bytes)

    def _roll(self, first: int) -> None:
        self.sync()
        segment = Segment(first, self._end)
        self._close_writer()
        self._writer = os.open(
            self.path_of(segment), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600
        )
        self._segments.append(segment)
        sync_directory(self._log)

    def _open_writer(self) -> int:
        if self._writer is None:
            path = self.path_of(self._segments[-1])
            with disk_errors(f"open {path}"):
                self._writer = os.open(path, os.O_WRONLY | os.O_APPEND)
        return self._writer

    def _reader_of(self, segment: Segment) -> int:
        reader = self._readers.get(segment.first)
        if reader is None:
            if len(self._readers) == _READERS_MAX:
                os.close(self._readers.pop(next(iter(self._readers))))
            reader = self._readers[segment.first] = os.open(self.path_of(segment), os.O_RDONLY)
        return reader

    def _read_all(self, segment: Segment, reader: int, offset: int, size: int) -> bytes:
        data = os.pread(reader, size, offset)
        while len(data) < size:
            more = os.pread(reader, size - len(data), offset + len(data))
            if not more:
                raise DiskFailedError(f"{self.path_of(segment)} is shorter than it was")
            data += more
        return data

    def _close_writer(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def _close_descriptors(self) -> None:
        self._close_writer()
        while self._readers:
            os.close(self._readers.popitem()[1])
