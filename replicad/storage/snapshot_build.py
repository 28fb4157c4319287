"""Making a snapshot: the newest one there is, merged with the segments that follow it.

Memory is bounded by one segment: what each leaves of its records is sorted and waits in a file,
and the sorted streams are merged; of each record the newest line counts. Nothing is believed: the
log's lines are verified by their chain, the older snapshot by its digest, and the new one is read
again before it counts.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, dropwhile, pairwise
from pathlib import Path
from typing import BinaryIO, Final

from replicad.core.entry import (
    DIGEST_BYTES,
    DONE,
    changes_of,
    decode_head,
    genesis_digest,
    split_value,
    verify_line,
)
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
    REQUESTS,
    Header,
    KeyRange,
    Manifest,
    Record,
    Remembered,
    check_bytes,
    cut_ranges,
    forget_before,
    parse_line,
    read_records,
    time_of,
)
from replicad.storage.snapshot_files import SnapshotFiles

# How many segments are merged at once: bounds open files and the room for work in hand.
SEGMENTS_MAX: Final = 32
# Small portions, because a large sync could hold up those of the log.
_SYNC_BYTES: Final = 8 * 1024 * 1024
# A line that changes one record, up to its value.
_SINGLE: Final = re.compile(
    rb'\{"index":([0-9]+),"epoch":[0-9]+,"time":"([!-~]{24})","commit":[0-9]+,'
    rb'"operation":"([iud])(?:nsert|pdate|elete)","collection":"([^"\\]+)","key":"([^"\\]+)",'
    rb'("request":"(?:[^"\\]|\\.)*","fingerprint":"[0-9a-f]{32}"),"value":'
)
# `,"digest":"` + 64 hex digits + `"}`
_TAIL_BYTES: Final = 13 + 2 * DIGEST_BYTES
# How the line of a deleted record ends in a run, and no line of a live one.
_GONE: Final = b',"value":null}\n'
_LETTERS: Final = {operation: letter for letter, operation in DONE.items()}

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
        requests = files.temporary("requests")
        clean_up.callback(requests.unlink, missing_ok=True)
        with requests.open("wb") as writes:
            for first in plan.segments:
                segment = _Segment(data_dir / LOG_DIRECTORY / f"{first:020d}.jsonl", digest)
                run = files.temporary(f"segment-{first}")
                clean_up.callback(run.unlink, missing_ok=True)
                with run.open("wb") as sorted_file:
                    changed = segment.read(writes)
                    sorted_file.writelines(changed[key] for key in sorted(changed))
                streams.append(_read_run(run))
                digest = segment.digest
        streams.append(_read_run(requests))
        if segment.last != plan.index:
            raise CorruptLogError(f"{segment.path} ends with entry {segment.last}")
        header = Header(plan.cluster_id, plan.index, segment.epoch, digest, segment.time)
        lines = _newest(heapq.merge(*streams), forget_before(segment.time))
        manifest = _write(file, header, lines)
        check_bytes(file, manifest)
        files.publish(file, manifest)
    return header.point


class _Segment:
    """Verifies the lines of one segment, and gives what they leave.

    Attributes:
        path: Its file.
        digest, last, epoch, time: Of the last entry that was seen.
    """

    def __init__(self, path: Path, previous: bytes) -> None:
        self.path = path
        self.digest = previous
        self.last = self.epoch = 0
        self.time = ""

    def read(self, writes: BinaryIO) -> dict[bytes, bytes]:
        """The last line of each record that it changes, by sort key; see `changes_in`.

        Args:
            writes: Where the lines of the remembered writes go, in order.
        """
        changed: dict[bytes, bytes] = {}
        head = b""
        with self.path.open("rb") as file:
            for line in file:
                head = line[:-1]
                try:
                    self.digest = verify_line(head, self.digest)
                except MalformedEntryError as error:
                    raise CorruptLogError(f"{self.path}: {error}") from error
                records, write = changes_in(head)
                changed.update(records)
                writes.write(write)
        self.last, self.epoch, self.time, _ = decode_head(head)
        return changed


def changes_in(line: bytes) -> tuple[Sequence[Keyed], bytes]:
    """What a verified line of the log (without newline) means for a snapshot.

    Returns:
        Sort key and line of each record that it changes, the value null if it is deleted; and the
        line by which the write is remembered, empty for control entries.

    Raises:
        ProtocolViolationError: The operation is none that this version knows.
    """
    if (found := _SINGLE.match(line)) is None:
        return _decoded_changes_in(line)
    index, time, done, collection, key, identity = found.groups()
    value = line[found.end() : -_TAIL_BYTES]
    record = b'{"index":%b,"position":0,"collection":"%b","key":"%b","value":%b}\n' % (
        *(index, collection, key, value),
    )
    write = b'{"index":%b,"time":"%b","collection":"%b","key":"%b","done":"%b",%b}\n' % (
        *(index, time, collection, key, done, identity),
    )
    return ((b"%b\0%b" % (collection, key), record),), write


def _decoded_changes_in(line: bytes) -> tuple[Sequence[Keyed], bytes]:
    """The same for any line, several times slower."""
    try:
        members, value = split_value(line)
        changes = changes_of(members, value)
        done = "".join(_LETTERS[operation] for operation, _, _ in changes)
    except (MalformedEntryError, KeyError) as error:
        raise ProtocolViolationError(f"in the log: {error}") from error
    if not changes:
        return (), b""
    index, collection = members["index"], members["collection"]
    records = [
        Record(index, position, collection, key, changed or b"null")
        for position, (_, key, changed) in enumerate(changes)
    ]
    identity = members["request"], members["fingerprint"]
    write = Remembered(index, members["time"], collection, members["key"], done, *identity)
    keyed = [(f"{collection}\0{record.key}".encode(), record.encode()) for record in records]
    return keyed, write.encode()


def _read_run(path: Path) -> Iterator[Keyed]:
    with path.open("rb") as file:
        for line in file:
            yield parse_line(line)[1], line


def _newest(merged: Iterator[Keyed], since: str) -> Iterator[Keyed]:
    """What remains of sorted lines.

    Of the lines of one record that of the highest index, or none if the record is gone; then the
    remembered writes that are no older than `since`.
    """
    key, newest = b"", _GONE
    for each, line in merged:
        if each == key:
            newest = max(newest, line, key=lambda one: parse_line(one)[0])
            continue
        if not newest.endswith(_GONE):
            yield key, newest
        key, newest = each, line
        if key >= REQUESTS:
            break
    if key >= REQUESTS:
        # Times never decrease along the log: behind the first one that counts all do.
        writes = chain([(key, newest)], merged)
        yield from dropwhile(lambda keyed: time_of(keyed[1]) < since, writes)
    elif not newest.endswith(_GONE):
        yield key, newest


def _write(path: Path, header: Header, lines: Iterator[Keyed]) -> Manifest:
    """Write a snapshot, synced, and say what its file must be."""
    first = header.encode()
    whole = sha256(first)
    ranges: list[KeyRange] = []
    size = synced = len(first)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, first)
        for part, data in cut_ranges(lines, size):
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
    count = sum(part.lines for part in ranges)
    return Manifest(header, count, size, whole.digest(), tuple(ranges))
