"""Repair of a suspect log: what is verified stays, what is damaged is set aside and replaced.

Works on the files alone, before anything else opens the log. Every line of every segment is
verified again, from the first: a disk that was wrong once is not believed anywhere. Damaged files
move to DATA_DIR/quarantine/<time>-<old disk id>/ and are never deleted.

May be interrupted at any point and begun again: what was filled is found to be whole, and what was
cut is gone already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replicad.core.entry import decode_head, genesis_digest, verify_line
from replicad.core.messages import Point
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskSuspectError,
    MalformedEntryError,
    ProtocolViolationError,
    ReplicadError,
    SnapshotDamagedError,
)
from replicad.storage.datadir import LOG_DIRECTORY, QUARANTINE
from replicad.storage.durable import (
    disk_errors,
    failure,
    make_directory,
    sync_data,
    sync_directory,
    write_all,
)
from replicad.storage.journal import SEGMENT_BYTES
from replicad.storage.logbase import Base, read_base
from replicad.storage.snapshot import check_snapshot
from replicad.storage.snapshot_files import SnapshotFiles
from replicad.storage.syncmark import Mark, SyncMark, read_mark

_RECORDS: Final = ("records.sqlite", "records.sqlite-wal", "records.sqlite-shm")
_COPY_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """A place where a log is not what it must be.

    Attributes:
        previous: The last good entry before it, or the log's base.
        last: The last entry before a segment that may be good again; None if none follows.
        why: What was found, for people.
    """

    previous: Point
    last: int | None
    why: str

    @property
    def first(self) -> int:
        """The first entry that is missing."""
        return self.previous.index + 1


class LogRepair:
    """One walk through a suspect log, from its first entry to its last.

    `next_damage`, then `fill` or `cut`, and so on until there is no damage; then `finish`. Until
    the first `fill` or `cut` nothing is changed.

    Attributes:
        set_aside: The files that were moved to the quarantine.
    """

    def __init__(
        self,
        directory: Path,
        genesis: bytes,
        quarantine: Path,
        *,
        only_synced: bool,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Begin before the first entry.

        Args:
            directory: The data directory, locked by the caller.
            genesis: The digest that entry 1 follows.
            quarantine: Where damaged files go; made when first needed.
            only_synced: A sync has failed: nothing after the sync mark is believed.
            segment_bytes: See Journal.

        Raises:
            DiskFullError, DiskFailedError: The log's directory cannot be made or read.
        """
        self._directory = directory
        self._log = directory / LOG_DIRECTORY
        self._quarantine = quarantine
        self._segment_bytes = segment_bytes
        self._genesis = genesis
        with disk_errors(f"open {self._log}"):
            make_directory(self._log)
        self._base, self._base_damage = _base_of(self._log, genesis)
        self._files = SnapshotFiles(directory)
        # The digest that the log turns out to have where each snapshot ends; b"" as long as that
        # is not known.
        self._snapshots = dict.fromkeys(self._files.indexes(), b"")
        if self._base.point.index in self._snapshots:
            self._snapshots[self._base.point.index] = self._base.point.digest
        self._end = self._base.point
        self._last_epoch, self._last_time = self._base.epoch, self._base.time
        self._limit = read_mark(self._log).point.index if only_synced else None
        self._segments, self._strays = _segments_after(self._log, self._base)
        self._at = 0
        self._good_bytes = 0
        self._damage: Damage | None = None
        self.set_aside: list[str] = []

    @property
    def end(self) -> Point:
        """The last entry that is known to be good, or the log's base."""
        return self._end

    @property
    def last_epoch(self) -> int:
        """That entry's epoch."""
        return self._last_epoch

    def next_damage(self) -> Damage | None:
        """Verify on; None when everything to the end is good.

        Raises:
            DiskFailedError: A segment cannot be opened, or what is good cannot be synced.
        """
        self._damage = self._find_damage()
        return self._damage

    def fill(self, lines: Iterable[bytes]) -> None:
        """Put the missing entries in, durably, and go on behind them.

        Args:
            lines: Whole lines with their newlines, from the damage's first entry to its last.

        Raises:
            MalformedEntryError: They are not these entries. Nothing was changed.
            DiskFullError: No room. Nothing was changed.
            DiskFailedError: The outcome is unknown.
        """
        damage = self._damage
        if damage is None or damage.last is None:
            raise ProtocolViolationError("there is nothing to fill")
        before = (self._end, self._last_epoch, self._last_time)
        source = self._damaged_segment()
        rebuilt = _Rebuilt(self._log, self._segment_bytes)
        try:
            with disk_errors(f"write to {self._log}"):
                rebuilt.begin(source, self._good_bytes, damage.first)
                for line in lines:
                    self._take(line)
                    rebuilt.add(line, self._end.index)
                if self._end.index != damage.last:
                    raise MalformedEntryError(
                        f"the entries end at {self._end.index} instead of {damage.last}"
                    )
                rebuilt.sync()
        except ReplicadError:
            self._end, self._last_epoch, self._last_time = before
            rebuilt.discard()
            raise
        if source is not None:
            self._keep_copy(source)
        made = rebuilt.install()
        self._segments[self._at : self._at + (source is not None)] = made
        self._at += len(made)

    def cut(self) -> None:
        """Let the log end before the damage; what follows is set aside, durably.

        Raises:
            DiskFullError: No room. To be begun again.
            DiskFailedError: The outcome is unknown.
        """
        if self._damage is None:
            raise ProtocolViolationError("there is nothing to cut")
        source = self._damaged_segment() if self._good_bytes else None
        # Last to first: after a crash no gap can be in the middle.
        for path in reversed(self._segments[self._at + (source is not None) :]):
            self._move(path)
        if self._base_damage:
            self._move(self._log / "base")
            self._base_damage = None
        if source is not None:
            self._keep_copy(source)
            rebuilt = _Rebuilt(self._log, self._segment_bytes)
            with disk_errors(f"write to {self._log}"):
                rebuilt.begin(source, self._good_bytes, int(source.stem))
                rebuilt.sync()
            rebuilt.install()
            self._at += 1
        del self._segments[self._at :]

    def finish(self) -> None:
        """Note that all that is left is synced, and let the record store be made anew.

        Raises:
            DiskFullError, DiskFailedError: To be begun again.
        """
        for path in self._strays:
            self._move(path)
        with disk_errors(f"measure {self._log}"):
            size = sum(path.stat().st_size for path in self._segments)
        mark = SyncMark(self._log)
        try:
            mark.raise_to(Mark(self._base.position + size, self._end))
            mark.sync()
        finally:
            mark.close()
        with disk_errors(f"delete the record store in {self._directory}"):
            for name in _RECORDS:
                (self._directory / name).unlink(missing_ok=True)
        sync_directory(self._directory)

    def _find_damage(self) -> Damage | None:
        if self._base_damage:
            return Damage(self._end, None, self._base_damage)
        while self._at < len(self._segments):
            path, following = self._segments[self._at], self._segments[self._at + 1 :]
            self._good_bytes = 0
            first = int(path.stem)
            if first != self._end.index + 1:
                last = first - 1 if first > self._end.index else None
                return Damage(self._end, last, f"{path.name} is not the segment that follows")
            next_first = int(following[0].stem) if following else None
            why = self._verify(path)
            if why is None and next_first is not None and next_first > self._end.index + 1:
                why = "the segment ends too early"
            if why is not None:
                beyond = self._limit is not None and self._end.index >= self._limit
                last = None if beyond or next_first is None else next_first - 1
                return Damage(self._end, last, f"{path.name}, entry {self._end.index + 1}: {why}")
            self._at += 1
        if self._base.point.index and not self._has_snapshot():
            self._base_damage = "no snapshot holds what was before the log's first entry"
            self._begin_empty()
            return Damage(self._end, None, self._base_damage)
        return None

    def _has_snapshot(self) -> bool:
        """Whether there is a good snapshot that what is left of the log can go on from."""
        for index, digest in self._snapshots.items():
            try:
                manifest = self._files.load(index)
                if manifest.header.digest == digest:
                    check_snapshot(self._files.file_of(index), manifest)
                    return True
            except SnapshotDamagedError:
                continue
        return False

    def _begin_empty(self) -> None:
        """Go on as if nothing of this log were good: others have what it stood for."""
        self._base = Base(Point(0, self._genesis))
        self._end, self._last_epoch, self._last_time = self._base.point, 0, ""
        self._at = self._good_bytes = 0

    def _verify(self, path: Path) -> str | None:
        """Take a segment's entries; tell what is wrong with the first that is not good."""
        try:
            with path.open("rb") as file:
                # What the kernel remembers is no proof of what the disk holds.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                for line in file:
                    if self._limit is not None and self._end.index >= self._limit:
                        return "it is not known to be synced"
                    try:
                        self._take(line)
                    except MalformedEntryError as error:
                        return str(error)
                    self._good_bytes += len(line)
                sync_data(file.fileno(), path)
        except OSError as error:
            if failure(error) is DiskSuspectError:
                return f"it cannot be read: {error}"
            raise DiskFailedError(f"cannot read {path}: {error}") from error
        return None

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise MalformedEntryError("the line is incomplete")
        digest = verify_line(line[:-1], self._end.digest)
        index, epoch, time, _ = decode_head(line)
        if index != self._end.index + 1 or epoch < self._last_epoch or time < self._last_time:
            raise MalformedEntryError(f"entry {index} cannot follow entry {self._end.index}")
        self._end, self._last_epoch, self._last_time = Point(index, digest), epoch, time
        if index in self._snapshots:
            self._snapshots[index] = digest

    def _damaged_segment(self) -> Path | None:
        """The segment that the missing entries belong to; None if it is missing altogether."""
        if self._at == len(self._segments):
            return None
        path = self._segments[self._at]
        return path if int(path.stem) <= self._end.index + 1 else None

    def _move(self, path: Path) -> None:
        with disk_errors(f"move {path} to {self._quarantine}"):
            path.rename(self._place_for(path))
            path.with_suffix(".index").unlink(missing_ok=True)
        sync_directory(self._quarantine)
        sync_directory(self._log)

    def _keep_copy(self, path: Path) -> None:
        """Give the damaged file a second name in the quarantine; a new one takes its place."""
        with disk_errors(f"keep {path} in {self._quarantine}"):
            place = self._place_for(path)
            if not place.exists():
                place.hardlink_to(path)
            path.with_suffix(".index").unlink(missing_ok=True)
        sync_directory(self._quarantine)

    def _place_for(self, path: Path) -> Path:
        make_directory(self._quarantine)
        place, number = self._quarantine / path.name, 1
        # An interrupted repair may have kept this very file already, or an earlier state of it.
        while place.exists() and not place.samefile(path):
            number += 1
            place = self._quarantine / f"{path.name}.{number}"
        self.set_aside.append(place.name)
        return place


class _Rebuilt:
    """New segments, written beside the old ones under names that nothing else reads."""

    def __init__(self, log: Path, segment_bytes: int) -> None:
        self._log = log
        self._segment_bytes = segment_bytes
        self._made: list[Path] = []
        self._file = -1
        self._size = 0

    def begin(self, source: Path | None, good_bytes: int, first: int) -> None:
        """Take over what is good of a damaged segment; `first` names the new one otherwise."""
        self._open(int(source.stem) if source else first)
        if source is not None:
            with source.open("rb") as file:
                while self._size < good_bytes:
                    block = file.read(min(_COPY_BYTES, good_bytes - self._size))
                    write_all(self._file, block)
                    self._size += len(block)

    def add(self, line: bytes, index: int) -> None:
        """Append an entry, where need be to a new segment, as Journal does."""
        if self._size and self._size + len(line) > self._segment_bytes:
            self.sync()
            self._open(index)
        write_all(self._file, line)
        self._size += len(line)

    def sync(self) -> None:
        """Make the current segment durable and close it."""
        sync_data(self._file, self._made[-1])
        os.close(self._file)
        self._file = -1

    def install(self) -> list[Path]:
        """Give the segments their names; returns them."""
        paths = [path.with_suffix("") for path in self._made]
        with disk_errors(f"rename segments in {self._log}"):
            for made, path in zip(self._made, paths, strict=True):
                made.replace(path)
        sync_directory(self._log)
        return paths

    def discard(self) -> None:
        """Forget it all."""
        if self._file >= 0:
            os.close(self._file)
        for path in self._made:
            path.unlink(missing_ok=True)

    def _open(self, first: int) -> None:
        self._made.append(self._log / f"{first:020d}.jsonl.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._file = os.open(self._made[-1], flags, 0o600)
        self._size = 0


def is_whole(directory: Path, cluster_id: str) -> bool:
    """Whether every line of a data directory's log is good, read from the first to the last.

    Raises:
        DiskFullError, DiskFailedError: As for LogRepair.
    """
    nowhere = directory / QUARANTINE
    repair = LogRepair(directory, genesis_digest(cluster_id), nowhere, only_synced=False)
    return repair.next_damage() is None


def begins_after(directory: Path, genesis: bytes) -> bool:
    """Whether the log of a data directory begins as that of the digest's cluster, or is empty.

    Raises:
        DiskFailedError: It cannot be read.
    """
    log = directory / LOG_DIRECTORY
    base, damage = _base_of(log, genesis)
    paths, _ = _segments_after(log, base)
    if damage or (base.point.index and not _is_of_cluster(SnapshotFiles(directory), genesis)):
        return False
    if not paths:
        return True
    with disk_errors(f"read {log}"), paths[0].open("rb") as file:
        line = file.readline()
    try:
        verify_line(line.removesuffix(b"\n"), base.point.digest)
    except MalformedEntryError:
        return False
    return True


def _is_of_cluster(files: SnapshotFiles, genesis: bytes) -> bool:
    """Whether the newest snapshot stands for a log that begins with this digest."""
    try:
        return any(
            genesis_digest(files.load(index).header.cluster_id) == genesis
            for index in files.indexes()[:1]
        )
    except SnapshotDamagedError:
        return False


def _base_of(log: Path, genesis: bytes) -> tuple[Base, str | None]:
    """What the log's first entry follows, and what is wrong with that."""
    whole = Base(Point(0, genesis))
    try:
        return read_base(log) or whole, None
    except CorruptLogError as error:
        return whole, str(error)  # Nothing of this log can be verified any more.


def _segments_after(log: Path, base: Base) -> tuple[list[Path], list[Path]]:
    """The log's segments, and files that pass for some but are not named as one."""
    paths = sorted(log.glob("*.jsonl"))
    segments = [path for path in paths if path.stem.isdecimal() and len(path.stem) == 20]
    strays = [path for path in paths if path not in segments]
    return [path for path in segments if int(path.stem) > base.point.index], strays
