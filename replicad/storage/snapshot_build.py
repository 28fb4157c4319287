"""Making a snapshot: the newest one there is, merged with the segments that follow it.

Memory is bounded by one segment: each is sorted by itself and waits in a file, and the sorted
streams are merged. Nothing is believed: the log's lines are verified by their chain, the older
snapshot by its digest, and the new one is read again before it counts.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from replicad.core.entry import EPOCH, INSERT, decode_head, genesis_digest, verify_line
from replicad.core.messages import Point
from replicad.errors import (
    CorruptLogError,
    MalformedEntryError,
    ProtocolViolationError,
    SnapshotDamagedError,
)
from replicad.storage.datadir import LOG_DIRECTORY
from replicad.storage.durable import disk_errors, sync_data, write_all
from replicad.storage.snapshot import (
    Header,
    KeyRange,
    Manifest,
    check_snapshot,
    cut_ranges,
    parse_line,
    read_records,
)
from replicad.storage.snapshot_files import SnapshotFiles

# How many segments are merged at once: bounds open files and the room for work in hand.
SEGMENTS_MAX: Final = 32
# Small portions, because a large sync could hold up those of the log.
_SYNC_BYTES: Final = 8 * 1024 * 1024
_OPERATION: Final = b',"operation":"'
_DIGEST: Final = b',"digest":"'

Keyed = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """One snapshot to be built.

    Attributes:
        cluster_id: Whose log.
        base: The snapshot to build on, by its last entry; 0 to begin with entry 1.
        segments: The indexes of the first entries of the full segments that follow, in order.
        index: The last entry of the last segment.
    """

    cluster_id: str
    base: int
    segments: tuple[int, ...]
    index: int


def plan_build(
    cluster_id: str, base: int, firsts: Sequence[int], committed: int, *, segments_min: int = 1
) -> Plan | None:
    """What to build next, or None while too few further full segments are committed.

    A segment is full, and ends for good where it ends, once the first entry of the next one is
    committed.

    Args:
        cluster_id: Whose log.
        base: The last entry of the newest snapshot; 0 if there is none.
        firsts: The first entries of all segments of the log, in order.
        committed: The entries up to here are committed.
        segments_min: How many segments are worth the rewriting of the base.

    Raises:
        SnapshotDamagedError: The entries after the base are in no segment any more.
    """
    full = [
        (first, following - 1)
        for first, following in pairwise(firsts)
        if base < first and following <= committed
    ][:SEGMENTS_MAX]
    if len(full) < min(segments_min, SEGMENTS_MAX):
        return None
    if full[0][0] != base + 1:
        raise SnapshotDamagedError(f"entry {base + 1} is in no segment and in no snapshot")
    return Plan(cluster_id, base, tuple(first for first, _ in full), full[-1][1])


def build_snapshot(data_dir: Path, plan: Plan) -> Point:
    """Build a snapshot. It is durable and verified on return; after an error nothing of it is left.

    Returns:
        Its last entry, whose digest the caller compares with the log's.

    Raises:
        CorruptLogError: A line of the segments does not follow from the one before.
        SnapshotDamagedError: The older snapshot is damaged, or the new one when read again.
        ProtocolViolationError: The log holds what cannot be in one.
        DiskFullError, DiskFailedError: The disk does not allow it.
    """
    files = SnapshotFiles(data_dir)
    file = files.temporary("snapshot")
    with ExitStack() as clean_up, disk_errors("build a snapshot"):
        clean_up.callback(file.unlink, missing_ok=True)
        base = files.load(plan.base) if plan.base else None
        streams: list[Iterator[Keyed]] = []
        digest = base.header.digest if base else genesis_digest(plan.cluster_id)
        if base:
            streams.append(read_records(files.file_of(plan.base), base))
        for first in plan.segments:
            segment = _Segment(data_dir / LOG_DIRECTORY / f"{first:020d}.jsonl", digest)
            run = files.temporary(f"segment-{first}")
            clean_up.callback(run.unlink, missing_ok=True)
            with run.open("wb") as sorted_file:
                sorted_file.writelines(line for _, line in sorted(segment))
            streams.append(_read_run(run))
            digest = segment.digest
        if segment.last != plan.index:
            raise CorruptLogError(f"{segment.path} ends with entry {segment.last}")
        header = Header(plan.cluster_id, plan.index, segment.epoch, digest, segment.time)
        manifest = _write(file, header, heapq.merge(*streams))
        check_snapshot(file, manifest)
        files.publish(file, manifest)
    return header.point


class _Segment:
    """Verifies the lines of one segment; iterating gives the records among them.

    Attributes:
        path: Its file.
        digest, last, epoch, time: Of the last entry that was seen.
    """

    def __init__(self, path: Path, previous: bytes) -> None:
        self.path = path
        self.digest = previous
        self.last = self.epoch = 0
        self.time = ""

    def __iter__(self) -> Iterator[Keyed]:
        head = b""
        with self.path.open("rb") as file:
            for line in file:
                head = line[:-1]
                try:
                    self.digest = verify_line(head, self.digest)
                except MalformedEntryError as error:
                    raise CorruptLogError(f"{self.path}: {error}") from error
                record = record_of(head)
                if record is not None:
                    yield parse_line(record)[1], record
        self.last, self.epoch, self.time, _ = decode_head(head)


def record_of(line: bytes) -> bytes | None:
    """The record that a verified line of the log (without newline) inserts, or None.

    Returns:
        The record's line in a snapshot, with its newline.

    Raises:
        ProtocolViolationError: The operation is none that this version knows.
    """
    # Strings before the value cannot hold an unescaped quote, so the first match is the member.
    operation, _, rest = line[line.find(_OPERATION) + len(_OPERATION) :].partition(b'",')
    if operation == EPOCH.encode():
        return None
    if operation != INSERT.encode():
        raise ProtocolViolationError(f"operation {operation[:60]!r} in the log")
    return b"%b,%b}\n" % (line[: line.find(b",")], rest[: rest.rfind(_DIGEST)])


def _read_run(path: Path) -> Iterator[Keyed]:
    with path.open("rb") as file:
        for line in file:
            yield parse_line(line)[1], line


def _write(path: Path, header: Header, records: Iterator[Keyed]) -> Manifest:
    """Write a snapshot, synced, and say what its file must be."""
    first = header.encode()
    whole = sha256(first)
    ranges: list[KeyRange] = []
    size = synced = len(first)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, first)
        for part, data in cut_ranges(records, size):
            write_all(descriptor, data)
            whole.update(data)
            ranges.append(part)
            size = part.end
            if size - synced >= _SYNC_BYTES:
                sync_data(descriptor, path)
                synced = size
        sync_data(descriptor, path)
    finally:
        os.close(descriptor)
    count = sum(part.records for part in ranges)
    return Manifest(header, count, size, whole.digest(), tuple(ranges))
