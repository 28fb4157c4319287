"""The format of a snapshot: the committed records as of one entry, in the order of their keys.

`<index, 20 digits>.ndjson` is a header line, then one line a live record, ordered by collection
and key, byte by byte; then one line a write that is remembered, by index, of the last 24 h of log
time. The lines say nothing that does not follow from the log. So a snapshot is a pure function of
the log up to its last entry: replicas that take one there write the same bytes, and who fetches
one can go on at any of them.

Beside it the manifest, `<index>.manifest.ndjson`: what the file must be, and the digests of its
key ranges. Where a range ends follows from the keys and lengths of the records near its end alone,
so that the ranges of two contents coincide wherever the contents are equal for long enough.

Source: docs/log-format.md, "Snapshots".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import orjson

from replicad.core.entry import DIGEST_BYTES, ENTRY_BYTES_MAX
from replicad.core.messages import Point
from replicad.core.write import DEFINITIONS
from replicad.errors import SnapshotDamagedError

FORMAT: Final = 2
# How long the outcome of a write is remembered, in log time.
REMEMBERED: Final = timedelta(days=1)
# A range ends at a record drawn by the hash of its key, of those beyond the minimum about one in
# 96 KiB, and at the maximum in any case. So ranges have some 128 KiB, whoever chooses the keys.
RANGE_BYTES_MIN: Final = 32 * 1024
RANGE_BYTES_MAX: Final = 512 * 1024
_DRAWN_BYTES: Final = 96 * 1024
# Of a line of the manifest, and of a snapshot's header line.
MANIFEST_LINE_BYTES_MAX: Final = 1024
_BLOCK_BYTES: Final = 1024 * 1024

# Remembered writes are sorted as if they were the records of a collection after all others.
REQUESTS: Final = b"~"
_END: Final = b"\x7f"

_COLLECTION: Final = rb"([A-Za-z0-9][A-Za-z0-9._-]{0,127}|%b)" % DEFINITIONS.encode()
_KEY: Final = rb"([A-Za-z0-9][A-Za-z0-9._-]{0,127})"
_LINE: Final = re.compile(
    rb'\{"index":([1-9][0-9]{0,18}),(?:"position":(?:0|[1-9][0-9]{0,2}),'
    rb'"collection":"%b","key":"%b","value":|"time":"[!-~]{24}","collection":")'
    % (_COLLECTION, _KEY)
)
_VALUE: Final = b',"value":'


@dataclass(frozen=True, slots=True)
class Header:
    """Which log a snapshot stands for, and its last entry.

    Attributes:
        cluster_id: Whose log.
        index: The last entry that is covered.
        epoch, time: Of that entry.
        digest: Its chain digest, 32 raw bytes: what the first entry of the log's rest follows.
    """

    cluster_id: str
    index: int
    epoch: int
    digest: bytes
    time: str

    @property
    def point(self) -> Point:
        """The last entry that is covered."""
        return Point(self.index, self.digest)

    def encode(self) -> bytes:
        """The first line of the snapshot, with its newline."""
        return orjson.dumps(self._members()) + b"\n"

    def _members(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "cluster_id": self.cluster_id,
            "index": self.index,
            "epoch": self.epoch,
            "digest": self.digest.hex(),
            "time": self.time,
        }


class KeyRange(NamedTuple):
    """Lines that follow each other in a snapshot: either records or remembered writes.

    Attributes:
        first: The first line's sort key; the range goes up to the next one's.
        offset, size: Of its bytes in the file.
        lines: How many they are.
        digest: SHA-256 of its bytes, raw.
    """

    first: bytes
    offset: int
    size: int
    lines: int
    digest: bytes

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size

    def encode(self) -> bytes:
        """Its line in the manifest, with its newline."""
        collection, _, key = self.first.decode().partition("\0")
        members = {
            "collection": collection,
            "key": key,
            "offset": self.offset,
            "bytes": self.size,
            "lines": self.lines,
            "sha256": self.digest.hex(),
        }
        return orjson.dumps(members) + b"\n"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot's file must be. Some 3 MiB of memory a GiB of snapshot.

    Attributes:
        header: Its first line.
        lines: How many lines follow the first one.
        size: Bytes of the whole file.
        digest: SHA-256 of the whole file, raw.
        ranges: All of its bytes after the header, in order.
    """

    header: Header
    lines: int
    size: int
    digest: bytes
    ranges: tuple[KeyRange, ...]

    def encode(self) -> Iterator[bytes]:
        """The manifest's lines with their newlines: the head, then one a range."""
        whole = {
            "lines": self.lines,
            "bytes": self.size,
            "sha256": self.digest.hex(),
            "ranges": len(self.ranges),
        }
        head = self.header.encode()
        yield b"%b,%b\n" % (head[:-2], orjson.dumps(whole)[1:])
        for part in self.ranges:
            yield part.encode()


@dataclass(frozen=True, slots=True)
class Record:
    """One live record.

    Attributes:
        index, position: The entry that last wrote it, and which of its changes that was, from 0.
        collection, key: Whose record, and its id there.
        value: The JSON object's bytes as they stand in the log.
    """

    index: int
    position: int
    collection: str
    key: str
    value: bytes

    def encode(self) -> bytes:
        """Its line, with its newline."""
        return b'{"index":%d,"position":%d,"collection":"%b","key":"%b","value":%b}\n' % (
            *(self.index, self.position, self.collection.encode(), self.key.encode(), self.value),
        )


@dataclass(frozen=True, slots=True)
class Remembered:
    """One write whose outcome is remembered, for retries of it.

    Attributes:
        index, time: Its entry, and the time of that.
        collection: Whose records it wrote.
        key: Of the one record; None if there were several.
        done: What it did to each of its records: letters of `entry.DONE`.
        request, fingerprint: As in WriteRequest.
    """

    index: int
    time: str
    collection: str
    key: str | None
    done: str
    request: str
    fingerprint: str

    def encode(self) -> bytes:
        """Its line, with its newline."""
        return orjson.dumps(self) + b"\n"


def decode_line(line: bytes) -> Record | Remembered:
    """The inverse of `encode`, for a line whose beginning `parse_line` has accepted.

    Raises:
        SnapshotDamagedError: The line is none of a snapshot.
    """
    # Strings before the value cannot hold an unescaped quote, so only a record has a match.
    at = line.find(_VALUE)
    try:
        decoded = _decode_remembered(line) if at < 0 else _decode_record(line, at)
        if decoded.encode() != line:
            raise ValueError("not as replicad writes it")
    except (ValueError, TypeError) as error:
        raise SnapshotDamagedError(f"not a line of a snapshot: {line[:60]!r}") from error
    return decoded


def _decode_record(line: bytes, at: int) -> Record:
    value = line[at + len(_VALUE) : -2]
    if not isinstance(orjson.loads(value), dict):
        raise TypeError("the value is no object")
    return Record(value=value, **orjson.loads(line[:at] + b"}"))


def _decode_remembered(line: bytes) -> Remembered:
    members: dict[str, Any] = orjson.loads(line)
    for name in ("key", "done", "request", "fingerprint"):
        if type(members.get(name)) is not str and (name, members.get(name)) != ("key", None):
            raise TypeError(f"{name} has another type")
    return Remembered(**members)


def parse_line(line: bytes) -> tuple[int, bytes]:
    """The index of a line, and its sort key: collection and key; NUL is in neither.

    Raises:
        SnapshotDamagedError: The line does not begin as one of a snapshot does.
    """
    found = _LINE.match(line)
    if found is None:
        raise SnapshotDamagedError(f"not a line of a snapshot: {line[:60]!r}")
    index, collection, key = found.groups()
    if collection is None:
        return int(index), REQUESTS + b"\0" + index.zfill(20)
    return int(index), b"%b\0%b" % (collection, key)


def time_of(line: bytes) -> str:
    """The time in the line of a remembered write, which `parse_line` has accepted."""
    return line.split(b'"', 6)[5].decode()


def forget_before(time: str) -> str:
    """Writes whose entries are older than this are forgotten at an entry of this time.

    Args:
        time: Of the last entry that counts, as `entry.format_time` writes it.
    """
    return _day_before(time[:10]) + time[10:]


@lru_cache(maxsize=2)
def _day_before(day: str) -> str:
    return (date.fromisoformat(day) - REMEMBERED).isoformat()


def cut_ranges(
    keyed: Iterable[tuple[bytes, bytes]], offset: int
) -> Iterator[tuple[KeyRange, bytes]]:
    """Cut the lines of a snapshot into ranges.

    Args:
        keyed: Sort keys and lines, in order.
        offset: Of the first line in its file.

    Yields:
        Each range with its bytes.

    Raises:
        SnapshotDamagedError: They are not in order, or a key occurs twice.
    """
    lines: list[bytes] = []
    first = previous = b""
    size, border = 0, REQUESTS
    for key, line in keyed:
        if key <= previous:
            raise SnapshotDamagedError(f"record {key!r} after {previous!r}")
        previous = key
        if key >= border:
            border = _END
            if lines:
                yield _range_of(first, offset, lines)
                offset += size
                lines, size = [], 0
        if not lines:
            first = key
        lines.append(line)
        size += len(line)
        if size >= RANGE_BYTES_MIN and (size >= RANGE_BYTES_MAX or _is_drawn(key, len(line))):
            yield _range_of(first, offset, lines)
            offset += size
            lines, size = [], 0
    if lines:
        yield _range_of(first, offset, lines)


def _is_drawn(key: bytes, line_bytes: int) -> bool:
    """Whether a range may end after this record: the longer it is, the likelier."""
    return int.from_bytes(sha256(key).digest()[:4]) * _DRAWN_BYTES < line_bytes << 32


def _range_of(first: bytes, offset: int, lines: list[bytes]) -> tuple[KeyRange, bytes]:
    data = b"".join(lines)
    return KeyRange(first, offset, len(data), len(lines), sha256(data).digest()), data


def read_records(path: Path, manifest: Manifest) -> Iterator[tuple[bytes, bytes]]:
    """Sort keys and lines of a snapshot. It is verified only when the iterator has ended.

    Raises:
        SnapshotDamagedError: The file is not what the manifest says.
        OSError: It cannot be read.
    """
    header = manifest.header.encode()
    whole = sha256()
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise SnapshotDamagedError(f"{path} has another header than its manifest")
        whole.update(header)
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            whole.update(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > ENTRY_BYTES_MAX:
                raise SnapshotDamagedError(f"{path} holds a line of more than 16 MiB")
            for line in lines:
                index, key = parse_line(line)
                if index > manifest.header.index:
                    raise SnapshotDamagedError(f"{path} holds entry {index}")
                yield key, line + b"\n"
    if rest or whole.digest() != manifest.digest:
        raise SnapshotDamagedError(f"{path} is not what its manifest says")


def check_snapshot(path: Path, manifest: Manifest) -> None:
    """Read all of a snapshot again, from the disk: it must be all that its manifest says.

    Raises:
        SnapshotDamagedError: It is not, or a line is misplaced.
        OSError: It cannot be read.
    """
    _leave_cache(path)
    expected = iter(manifest.ranges)
    offset = len(manifest.header.encode())
    for part, _ in cut_ranges(read_records(path, manifest), offset):
        if part != next(expected, None):
            raise SnapshotDamagedError(f"{path}: the range at byte {part.offset} is another one")
    if next(expected, None) is not None:
        raise SnapshotDamagedError(f"{path} ends before its last range")


def check_bytes(path: Path, manifest: Manifest) -> None:
    """Read all of a snapshot again, from the disk: enough if `manifest` was made here.

    Raises:
        SnapshotDamagedError: It is not.
        OSError: It cannot be read.
    """
    _leave_cache(path)
    with path.open("rb") as file:
        if file_digest(file, sha256).digest() != manifest.digest:
            raise SnapshotDamagedError(f"{path} reads otherwise than it was written")


def _leave_cache(path: Path) -> None:
    """What was synced can be read from the disk again; the cache would only repeat our words."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest. What a peer sent is safe to work with afterwards.

    Raises:
        SnapshotDamagedError: It is none, or contradicts itself.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        try:
            head = orjson.loads(file.readline(MANIFEST_LINE_BYTES_MAX))
            manifest = _manifest_of(head, tuple(_ranges(file, head["ranges"])))
            file.seek(0)
            # Also types, the order of members and white space: one content has one form.
            if not all(file.readline(MANIFEST_LINE_BYTES_MAX) == at for at in manifest.encode()):
                raise ValueError("not as replicad writes it")
            if file.read(1):
                raise ValueError("something follows the last range")
            _check_manifest(manifest)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise SnapshotDamagedError(f"{path} is not a manifest: {error!r}") from error
    return manifest


def _ranges(file: BinaryIO, count: int) -> Iterator[KeyRange]:
    for _ in range(count):
        members = orjson.loads(file.readline(MANIFEST_LINE_BYTES_MAX))
        first = f"{members['collection']}\0{members['key']}".encode()
        digest = bytes.fromhex(members["sha256"])
        yield KeyRange(first, members["offset"], members["bytes"], members["lines"], digest)


def _manifest_of(head: dict[str, Any], ranges: tuple[KeyRange, ...]) -> Manifest:
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}; need {FORMAT}")
    digest = bytes.fromhex(head["digest"])
    header = Header(head["cluster_id"], head["index"], head["epoch"], digest, head["time"])
    return Manifest(header, head["lines"], head["bytes"], bytes.fromhex(head["sha256"]), ranges)


def _check_manifest(manifest: Manifest) -> None:
    header = manifest.header
    if not (type(header.index) is int and 0 < header.index < 1 << 63 and header.epoch >= 0):
        raise ValueError(f"index {header.index}, epoch {header.epoch}")
    datetime.fromisoformat(forget_before(header.time))  # Raises unless it is a time.
    if {len(digest) for digest in (header.digest, manifest.digest)} != {DIGEST_BYTES}:
        raise ValueError("a digest has another length")
    offset, lines, previous = len(header.encode()), 0, b""
    for part in manifest.ranges:
        if not (part.offset == offset and part.first > previous and part.lines > 0):
            raise ValueError(f"the range at byte {part.offset} does not follow")
        if not 0 < part.size <= RANGE_BYTES_MAX + ENTRY_BYTES_MAX:
            raise ValueError(f"the range at byte {part.offset} has {part.size} bytes")
        offset, lines, previous = part.end, lines + part.lines, part.first
    if (offset, lines) != (manifest.size, manifest.lines):
        raise ValueError("the ranges are not the whole snapshot")
