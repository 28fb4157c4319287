"""Sidecars `log/<first index>.index`: what a full segment adds to the LogIndex.

With them a restart need not read and hash every line again: of a full segment it reads the sidecar
and two lines, and only the last segment byte by byte. A sidecar is believed when its own checksum
is right, it follows the digest before it, the segment has exactly the size that it names, and the
segment's first and last lines have its digests. Otherwise it counts for nothing and the segment's
bytes are verified as if there were none. So it may be lost, torn or stale, and is never synced.

What it cannot show is damage in the middle of a segment that was whole when the sidecar was
written: that is found by whoever reads the lines next, at the latest by the scrub.

    <header: a line of JSON> <digests, 32 bytes each> <ends, 8 bytes each> <SHA-256 of all that>

Source: docs/log-format.md, "Fast restart".
"""

from __future__ import annotations

import os
import sys
from array import array
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import orjson

from replicad.core.entry import DIGEST_BYTES, decode_head, verify_line
from replicad.core.log import EpochStart, LogIndex, LogPart
from replicad.errors import CorruptLogError, DiskFailedError, MalformedEntryError
from replicad.storage.durable import is_no_room, write_all
from replicad.storage.journal import Journal, Segment

_FORMAT: Final = 1
_CHECK_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Header:
    """What a sidecar says of its segment as a whole.

    Attributes:
        format: 1.
        first, last: Its entries.
        start: The position of its first byte.
        bytes: Its size.
        previous: The digest before its first entry, in hex.
        last_time: The last entry's time.
        commit: The highest commit index that its entries name.
        epochs: Pairs of an epoch that begins in it and the epoch's first entry.
    """

    format: int
    first: int
    last: int
    start: int
    bytes: int
    previous: str
    last_time: str
    commit: int
    epochs: tuple[tuple[int, int], ...]


class Checkpoints:
    """The sidecars of one journal's full segments."""

    def __init__(self, journal: Journal) -> None:
        """Know of no sidecar yet."""
        self._journal = journal
        # By a segment's first entry: the last digest in a sidecar that is known to be good. After
        # a truncation another segment may have the name, but never with this digest.
        self._good: dict[int, bytes] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sidecar")
        self._writing: Future[None] | None = None

    def load(self, at: int, log: LogIndex) -> Header | None:
        """Add the entries of `segments[at]`, which is full, to the log that ends before it.

        Returns:
            None, with the log as it was, if there is no sidecar to be believed.

        Raises:
            DiskFailedError: The segment cannot be read.
        """
        segment = self._journal.segments[at]
        read = _read(self._path(segment))
        if read is None or not self._fits(at, read[0], log):
            return None
        header, part = read
        log.extend(part)
        try:
            read_entries(self._journal, log, header.first, header.first)
            read_entries(self._journal, log, header.last, header.last)
        except CorruptLogError:
            log.truncate(header.first)
            return None
        self._good[header.first] = log.last_point.digest
        return header

    def write_one(self, log: LogIndex) -> bool:
        """Begin to write the first sidecar that is missing, beside everything else.

        What it holds is copied before; to hash it and to write it takes some ten milliseconds.

        Returns:
            Whether there was one to write, or one is being written. A disk that has no room for it
            is no error.

        Raises:
            CorruptLogError: A line of the segment is not the one that was appended.
            DiskFailedError: The one before could not be written, or the segment not be read.
        """
        if self._writing is not None:
            if not self._writing.done():
                return True
            writing, self._writing = self._writing, None
            writing.result()
        full = self._journal.segments[:-1]
        nexts = (segment.first for segment in self._journal.segments[1:])
        for segment, after in zip(full, nexts, strict=True):
            digest = log.digest_at(after - 1)
            if self._good.get(segment.first) != digest:
                header, part = self._describe(segment, after - 1, log)
                self._writing = self._thread.submit(_write, self._path(segment), header, part)
                self._good[segment.first] = digest
                return True
        return False

    def finish(self) -> None:
        """Wait for what is being written; nothing may be begun any more.

        Raises:
            DiskFailedError: It could not be written.
        """
        self._thread.shutdown()
        if self._writing is not None:
            self._writing.result()

    def _fits(self, at: int, header: Header, log: LogIndex) -> bool:
        segment, after = self._journal.segments[at : at + 2]
        return (
            (header.first, header.last) == (segment.first, after.first - 1)
            and (header.start, header.bytes) == (segment.start, after.start - segment.start)
            and header.previous == log.last_point.digest.hex()
        )

    def _describe(self, segment: Segment, last: int, log: LogIndex) -> tuple[Header, LogPart]:
        part = log.part(segment.first, last)
        # A leader's commit index only grows: the highest are named by the last lines of epochs.
        ends = [start.first - 1 for start in part.epochs if start.first > segment.first] + [last]
        heads = [head_of(self._journal, log, index) for index in ends]
        header = Header(
            format=_FORMAT,
            first=segment.first,
            last=last,
            start=segment.start,
            bytes=log.end_of(last) - segment.start,
            previous=log.digest_at(segment.first - 1).hex(),
            last_time=heads[-1][2],
            commit=max(commit for _, _, _, commit in heads),
            epochs=tuple((start.epoch, start.first) for start in part.epochs),
        )
        return header, part

    def _path(self, segment: Segment) -> Path:
        return self._journal.path_of(segment).with_name(segment.checkpoint)


def read_entries(
    journal: Journal, log: LogIndex, first: int, last: int, *, from_disk: bool = False
) -> bytes:
    """Read entries back and compare every byte of them with the digests in the log's index.

    It blocks while it reads and hashes: 1 MiB takes some milliseconds (`LogIndex.fit` tells how
    many entries that is).

    Args:
        journal: Holds the entries.
        log: Its index.
        first: The first of them, not before the log's first.
        last: The last of them, not beyond the log's last.
        from_disk: Not from the page cache, as far as the kernel can be told.

    Returns:
        Their lines, with newlines.

    Raises:
        CorruptLogError: It names the file, the byte in it, the entry and what is wrong.
        DiskFailedError: They cannot be read.
    """
    start = log.end_of(first - 1)
    lines = journal.read(start, log.end_of(last), from_disk=from_disk)
    offset = 0
    for index in range(first, last + 1):
        end = log.end_of(index) - start
        try:
            if verify_line(lines[offset : end - 1], log.digest_at(index - 1)) != log.digest_at(
                index
            ):
                raise MalformedEntryError("another digest than when it was written")
            if lines[end - 1 : end] != b"\n":
                raise MalformedEntryError("the line break is damaged")
        except MalformedEntryError as error:
            where = journal.describe(start + offset)
            raise CorruptLogError(f"{where}, entry {index}: {error}") from error
        offset = end
    return lines


def head_of(journal: Journal, log: LogIndex, index: int) -> tuple[int, int, str, int]:
    """Index, epoch, time and commit of an entry, read back and verified.

    Raises:
        CorruptLogError, DiskFailedError: As `read_entries`.
    """
    return decode_head(read_entries(journal, log, index, index)[:-1])


def _read(path: Path) -> tuple[Header, LogPart] | None:
    """Decode a sidecar; None if there is none or if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None  # Whatever the reason: the segment itself will be read instead.
    body, check = memoryview(data)[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if sha256(body).digest() != check:
        return None
    try:
        at = data.index(b"\n") + 1
        fields = orjson.loads(body[:at])
        epochs = tuple(EpochStart(epoch, first) for epoch, first in fields.pop("epochs"))
        header = Header(**fields, epochs=epochs)
        ends_at = at + (header.last - header.first + 1) * DIGEST_BYTES
        part = LogPart(epochs, bytes(body[at:ends_at]), array("Q", bytes(body[ends_at:])))
        _little_endian(part.ends)
    except (ValueError, TypeError, KeyError):
        return None  # Of another version.
    return (header, part) if header.format == _FORMAT else None


def _write(path: Path, header: Header, part: LogPart) -> None:
    """Write a sidecar. Of a segment that is cut meanwhile nobody will believe it."""
    data = b"".join(
        (
            orjson.dumps(asdict(header)),
            b"\n",
            part.digests,
            _little_endian(part.ends).tobytes(),
        )
    )
    _replace_unsynced(path, data, sha256(data).digest())


def _replace_unsynced(path: Path, *parts: bytes) -> None:
    """Write a file that may be lost or torn in a crash; on a full disk, not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for part in parts:
                write_all(descriptor, part)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        if not is_no_room(error):
            raise DiskFailedError(f"cannot write {path}: {error}") from error
        temporary.unlink(missing_ok=True)


def _little_endian(numbers: array[int]) -> array[int]:
    """From this machine's byte order, or to it."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
