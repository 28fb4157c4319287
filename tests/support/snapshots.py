"""Logs in small segments, and the snapshots that they should become, made in the plainest way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from replicad.storage.snapshot import Header, KeyRange, Manifest, cut_ranges, parse_line
from replicad.storage.snapshot_build import Plan, build_snapshot
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.entries import LogBuilder, write_of
from tests.support.logs import Fields, changes_of

CLUSTER = "test"


class Segments:
    """The segment files of one log in a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = LogBuilder(CLUSTER)
        self.firsts: list[int] = []
        self.lines: list[bytes] = []
        (data_dir / "log").mkdir(parents=True)
        self.files = SnapshotFiles.open(data_dir)

    def add(self, lines: bytes) -> None:
        """The next segment: these lines of `log`."""
        self.firsts.append(len(self.lines) + 1)
        self.lines += lines.splitlines(keepends=True)
        self.path_of(self.firsts[-1]).write_bytes(lines)

    def add_records(self, keys: Sequence[str], value_bytes: int = 0) -> None:
        """The next segment: an insert a key, with values that long."""
        values = (f'{{"id":"{key}","x":"{"x" * value_bytes}"}}'.encode() for key in keys)
        writes = (write_of(key, value) for key, value in zip(keys, values, strict=True))
        self.add(b"".join(self.log.insert(write) for write in writes))

    def path_of(self, first: int) -> Path:
        return self.data_dir / "log" / f"{first:020d}.jsonl"

    def plan(self, base: int = 0, segments: int | None = None) -> Plan:
        """Build on `base` with so many of the segments that follow it, or all."""
        firsts = [first for first in self.firsts if first > base][:segments]
        rest = [first for first in self.firsts if first > firsts[-1]]
        return Plan(CLUSTER, base, tuple(firsts), rest[0] - 1 if rest else len(self.lines))

    def build(self, base: int = 0, segments: int | None = None) -> Manifest:
        """Build that, and check that it is what the log's decoded lines say."""
        plan = self.plan(base, segments)
        point = build_snapshot(self.data_dir, plan)
        assert point == self.log.index.point(plan.index)
        assert self.content(plan.index) == self.expected(plan.index)
        return self.files.load(plan.index)

    def content(self, index: int) -> bytes:
        """The bytes of the snapshot up to this entry."""
        return self.files.file_of(index).read_bytes()

    def expected(self, index: int) -> bytes:
        """What they must be."""
        last = json.loads(self.lines[index - 1])
        header = {"format": 2, "cluster_id": CLUSTER}
        header |= {name: last[name] for name in ("index", "epoch", "digest", "time")}
        records: dict[tuple[str, str], Fields] = {}
        requests: list[Fields] = []
        for entry in map(json.loads, self.lines[:index]):
            changes = changes_of(entry)
            for position, (operation, key, value) in enumerate(changes):
                name = entry["collection"], key
                records.pop(name, None)
                if operation != "delete":
                    where = {"index": entry["index"], "position": position}
                    records[name] = where | dict(zip(("collection", "key"), name, strict=True))
                    records[name]["value"] = value
            if changes and moment(last) - moment(entry) <= timedelta(hours=24):
                write = {name: entry[name] for name in ("index", "time", "collection", "key")}
                write["done"] = "".join(operation[0] for operation, *_ in changes)
                requests.append(write | {name: entry[name] for name in ("request", "fingerprint")})
        listed = [header, *(records[name] for name in sorted(records)), *requests]
        lines = [json.dumps(each, separators=(",", ":"), ensure_ascii=False) for each in listed]
        return "".join(line + "\n" for line in lines).encode()


def moment(entry: Fields) -> datetime:
    """When a decoded entry was written."""
    return datetime.fromisoformat(entry["time"])


def manifest_of(header: Header, lines: Sequence[bytes]) -> Manifest:
    """The manifest of a snapshot of these lines."""
    offset = len(header.encode())
    keyed = [(parse_line(line)[1], line) for line in lines]
    return with_ranges(header, lines, [part for part, _ in cut_ranges(keyed, offset)])


def with_ranges(header: Header, lines: Sequence[bytes], ranges: Sequence[KeyRange]) -> Manifest:
    """A manifest that contradicts itself nowhere, whatever the lines are."""
    data = header.encode() + b"".join(lines)
    return Manifest(header, len(lines), len(data), sha256(data).digest(), tuple(ranges))
