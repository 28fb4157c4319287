"""Builds logs line by line, as a leader would."""

from __future__ import annotations

from replicad.core.entry import (
    Opening,
    WriteRequest,
    encode_epoch,
    encode_insert,
    fingerprint_of,
    format_time,
    genesis_digest,
)
from replicad.core.log import LogIndex
from replicad.core.messages import Point


def write_of(key: str, value: bytes = b"{}", *, collection: str = "forms") -> WriteRequest:
    """A write with the request id `r-<collection>-<key>`."""
    fingerprint = fingerprint_of(collection, key, value)
    return WriteRequest(f"r-{collection}-{key}", fingerprint, collection, key, value)


def opening_of(leader: str) -> Opening:
    """How a first epoch opens."""
    return Opening(leader, "run", "first election", None, 0, (leader,), (leader,), None)


class LogBuilder:
    """Makes the lines of a log and keeps its LogIndex. Entry times are a second apart."""

    def __init__(self, cluster_id: str = "test") -> None:
        self.genesis = genesis_digest(cluster_id)
        self.index = LogIndex(Point(0, self.genesis))

    def open_epoch(self, epoch: int, *, commit: int = 0) -> bytes:
        """The next entry opens an epoch. Returns its line, with the newline."""
        line, digest = encode_epoch(
            opening_of("n1"),
            index=self.index.last + 1,
            epoch=epoch,
            time=format_time(1000 * self.index.last),
            commit=commit,
            previous=self.index.last_point.digest,
        )
        self.index.append(epoch, len(line), digest)
        return line

    def insert(self, write: WriteRequest, *, commit: int = 0, time_ms: int | None = None) -> bytes:
        """The next entry inserts a record. Returns its line, with the newline."""
        line, digest = encode_insert(
            write,
            index=self.index.last + 1,
            epoch=max(1, self.index.last_epoch),
            time=format_time(1000 * self.index.last if time_ms is None else time_ms),
            commit=commit,
            previous=self.index.last_point.digest,
        )
        self.index.append(max(1, self.index.last_epoch), len(line), digest)
        return line

    def inserts(self, count: int, *, commit: int = 0, padding: int = 0) -> bytes:
        """Insert `count` records whose keys are their indexes."""
        value = b'{"x":"%b"}' % (b"x" * padding)
        return b"".join(
            self.insert(write_of(str(self.index.last + 1), value), commit=commit)
            for _ in range(count)
        )
