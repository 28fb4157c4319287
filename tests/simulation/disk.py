"""What one machine keeps through crashes: synced bytes for sure, unsynced ones by luck."""

from __future__ import annotations

from random import Random

from replicad.core.entry import (
    Entry,
    decode_entry,
    decode_head,
    genesis_digest,
    split_lines,
    verify_line,
)
from replicad.core.log import LogIndex
from replicad.core.messages import Point

CLUSTER_ID = "simulated"


class Disk:
    """A log, the persisted epoch, and the record store derived from the log."""

    def __init__(self, node: str, disk_id: str) -> None:
        self.node = node
        self.disk_id = disk_id
        self.epoch = 0
        self.lines: list[bytes] = []
        self.synced = 0
        self.records: dict[tuple[str, str], int] = {}
        self.requests: dict[str, tuple[int, str]] = {}
        self.applied = 0
        self.full = False

    def append(self, blob: bytes) -> None:
        self.lines.extend(split_lines(blob))

    def sync(self) -> int:
        self.synced = len(self.lines)
        return self.synced

    def truncate(self, first_gone: int) -> None:
        del self.lines[first_gone - 1 :]
        self.synced = min(self.synced, first_gone - 1)

    def read(self, first: int, count: int) -> bytes:
        return b"".join(line + b"\n" for line in self.lines[first - 1 : first - 1 + count])

    def entry(self, index: int) -> Entry:
        return decode_entry(self.lines[index - 1])

    def apply(self, index: int) -> None:
        for at in range(self.applied + 1, index + 1):
            entry = self.entry(at)
            if entry.collection is not None and entry.key is not None:
                assert (entry.collection, entry.key) not in self.records, "applied twice"
                assert entry.request is not None
                assert entry.fingerprint is not None
                assert entry.request not in self.requests, "request id applied twice"
                self.records[entry.collection, entry.key] = at
                self.requests[entry.request] = (at, entry.fingerprint)
        self.applied = index

    def lose_power(self, rng: Random) -> None:
        """Some unsynced lines are gone; the record store falls back to any earlier state."""
        keep = rng.randint(self.synced, len(self.lines))
        del self.lines[keep:]
        target = rng.randint(0, self.applied)
        self.applied = 0
        self.records.clear()
        self.requests.clear()
        self.apply(target)

    def recover(self) -> tuple[LogIndex, int, str]:
        """As a restarting process does: the log's index, the commit index known, the last time."""
        self.sync()
        index = LogIndex(Point(0, genesis_digest(CLUSTER_ID)))
        commit, last_time = self.applied, ""
        for line in self.lines:
            digest = verify_line(line, index.last_point.digest)
            _, epoch, last_time, named = decode_head(line)
            index.append(epoch, len(line) + 1, digest)
            commit = max(commit, named)
        self.apply(commit)
        return index, commit, last_time
