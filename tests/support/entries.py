"""Builds logs line by line, as a leader would."""

from __future__ import annotations

from replicad.core.entry import (
    DELETE,
    INSERT,
    UPDATE,
    Change,
    Opening,
    encode_changes,
    encode_epoch,
    format_time,
    genesis_digest,
)
from replicad.core.log import LogIndex
from replicad.core.messages import Point
from replicad.core.write import Condition, Operation, Wanted, WriteRequest, fingerprint_of

CALL = "c0"


def write_of(
    key: str,
    value: bytes | None = b"{}",
    *,
    collection: str = "forms",
    request: str | None = None,
    condition: Condition = Wanted.ABSENT,
    definition: int = 0,
) -> WriteRequest:
    """A write of one record, by default an insert with the request id `r-<collection>-<key>`."""
    operation = Operation(key, value, condition)
    request = request or f"r-{collection}-{key}"
    return batch_of(operation, collection=collection, request=request, definition=definition)


def put_of(
    key: str,
    value: bytes = b"{}",
    *,
    request: str,
    condition: Condition = Wanted.ANYTHING,
    collection: str = "forms",
) -> WriteRequest:
    """A write that stores the record whether it is there or not."""
    return write_of(key, value, collection=collection, request=request, condition=condition)


def delete_of(
    key: str,
    *,
    request: str,
    condition: Condition = Wanted.ANYTHING,
    collection: str = "forms",
) -> WriteRequest:
    """A write that deletes the record."""
    return write_of(key, None, collection=collection, request=request, condition=condition)


def batch_of(
    *operations: Operation, request: str, collection: str = "forms", definition: int = 0
) -> WriteRequest:
    """A write of several records."""
    contents = [(operation.key, operation.value) for operation in operations]
    fingerprint = fingerprint_of(collection, contents)
    return WriteRequest(request, fingerprint, collection, definition, operations, CALL)


def opening_of(leader: str) -> Opening:
    """How a first epoch opens."""
    return Opening(leader, "run", "first election", None, 0, (leader,), (leader,), None)


class LogBuilder:
    """Makes the lines of a log and keeps its LogIndex. Entry times are a second apart."""

    def __init__(self, cluster_id: str = "test") -> None:
        self.genesis = genesis_digest(cluster_id)
        self.index = LogIndex(Point(0, self.genesis))
        self._present: set[tuple[str, str]] = set()

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

    def write(self, write: WriteRequest, *, commit: int = 0, time_ms: int | None = None) -> bytes:
        """The next entry does what `write` wishes, to what the entries before have left.

        Conditions are not looked at. Returns its line, with the newline.
        """
        epoch = max(1, self.index.last_epoch)
        line, digest = encode_changes(
            [self._change(write.collection, operation) for operation in write.operations],
            collection=write.collection,
            request=write.request,
            fingerprint=write.fingerprint,
            index=self.index.last + 1,
            epoch=epoch,
            time=format_time(1000 * self.index.last if time_ms is None else time_ms),
            commit=commit,
            previous=self.index.last_point.digest,
        )
        self.index.append(epoch, len(line), digest)
        return line

    insert = write
    """Where the record is new."""

    def inserts(self, count: int, *, commit: int = 0, padding: int = 0) -> bytes:
        """Insert `count` records whose keys are their indexes."""
        value = b'{"x":"%b"}' % (b"x" * padding)
        return b"".join(
            self.insert(write_of(str(self.index.last + 1), value), commit=commit)
            for _ in range(count)
        )

    def _change(self, collection: str, operation: Operation) -> Change:
        name = collection, operation.key
        if operation.value is None:
            self._present.discard(name)
            return Change(DELETE, operation.key, None)
        done = UPDATE if name in self._present else INSERT
        self._present.add(name)
        return Change(done, operation.key, operation.value)
