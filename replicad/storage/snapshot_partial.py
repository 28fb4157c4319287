"""A snapshot of which a manifest and some ranges are here.

It needs no journal of what has arrived: the manifest's digests tell which bytes are right.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Final

from replicad.errors import DiskFullError, RecordsDamagedError, SnapshotDamagedError
from replicad.storage.durable import disk_errors, sync_data
from replicad.storage.snapshot import KeyRange, Manifest, parse_line

_LINES_AT_ONCE: Final = 256


class PartialSnapshot:
    """The file of an incomplete snapshot, open for writing.

    Attributes:
        missing: The ranges to be got, in order; all of them before `reuse` has run.
        resumed: Bytes that the file held already.
        copied: Bytes that local records had.
        transferred: Bytes that were stored.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Open the file, or make it.

        Raises:
            DiskFullError: There is no room for all of it.
            DiskFailedError: It cannot be written.
        """
        self._path = path
        self._manifest = manifest
        self.missing = deque(manifest.ranges)
        self.resumed = self.copied = self.transferred = 0
        with disk_errors(f"write {path}"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._before = self._make_room()
                os.pwrite(self._descriptor, manifest.header.encode(), 0)
            except BaseException:
                os.close(self._descriptor)
                raise

    def _make_room(self) -> int:
        """Give the file its length; returns the one it had."""
        status, room = os.fstat(self._descriptor), os.fstatvfs(self._descriptor)
        if self._manifest.size > room.f_bavail * room.f_frsize + 512 * status.st_blocks:
            raise DiskFullError(f"no room for a snapshot of {self._manifest.size} bytes")
        os.ftruncate(self._descriptor, self._manifest.size)
        return status.st_size

    def reuse(self, local: Iterator[bytes]) -> Iterator[None]:
        """Take each range that is in the file already, or that the local lines are, off `missing`.

        Args:
            local: Lines of a snapshot, in its order.

        Yields:
            Between slices of a few milliseconds.

        Raises:
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        missing: deque[KeyRange] = deque()
        lines = _Lines(local)
        ranges = self._manifest.ranges
        for part, following in zip_longest(ranges, ranges[1:]):
            found = yield from lines.between(part, following and following.first)
            if self._is_here(part):
                self.resumed += part.size
            elif sha256(found).digest() == part.digest:
                self._write(part, found)
                self.copied += part.size
            else:
                missing.append(part)
            yield
        self.missing = missing

    def store(self, part: KeyRange, data: bytes) -> None:
        """Store a range that was got, the first of `missing`.

        Raises:
            SnapshotDamagedError: The bytes are others than the manifest says.
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        if sha256(data).digest() != part.digest:
            raise SnapshotDamagedError(f"the range at byte {part.offset} is another one")
        self._write(part, data)
        self.missing.popleft()
        self.transferred += part.size

    def sync(self) -> None:
        """Make everything stored so far durable.

        Raises:
            DiskFailedError: It may be lost.
        """
        sync_data(self._descriptor, self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _is_here(self, part: KeyRange) -> bool:
        if part.end > self._before:
            return False
        with disk_errors(f"read {self._path}"):
            data = os.pread(self._descriptor, part.size, part.offset)
        return sha256(data).digest() == part.digest

    def _write(self, part: KeyRange, data: bytes) -> None:
        rest, offset = memoryview(data), part.offset
        with disk_errors(f"write {self._path}"):
            while rest:
                count = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[count:], offset + count


class _Lines:
    """Local lines, read once, in step with the ranges of a manifest."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._advance()

    def _advance(self) -> None:
        self._line = self._key = b""
        # Local content only saves transfers: where it is damaged it ends.
        with suppress(RecordsDamagedError, SnapshotDamagedError):
            if line := next(self._lines, b""):
                self._line, self._key = line, parse_line(line)[1]

    def between(self, part: KeyRange, end: bytes | None) -> Generator[None, None, bytes]:
        """The lines with keys from the range's first up to `end`, if they are no longer than it."""
        found: list[bytes] = []
        size = count = 0
        while self._line and (end is None or self._key < end):
            if self._key >= part.first:
                size += len(self._line)
                if size <= part.size:
                    found.append(self._line)
            self._advance()
            count += 1
            if count % _LINES_AT_ONCE == 0:
                yield
        return b"".join(found)
