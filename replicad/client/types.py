"""What the client gives back. See docs/api.md for the meaning of each member."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from replicad.client.errors import NotJsonError

Json = Mapping[str, Any]
"""A record: a JSON object."""


def encode_json(value: object) -> bytes:
    """A value as JSON, or not at all: what JSON does not have is not made into null.

    Raises:
        NotJsonError: It holds such a thing.
    """
    try:
        data = orjson.dumps(value)
        if b"null" in data:  # Perhaps it was NaN.
            json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise NotJsonError(f"not JSON: {error}: {str(value)[:60]}") from error
    return data


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is stored.

    Attributes:
        id: Its id in its collection.
        raw: The stored bytes: one JSON object.
        etag: Names this version; for conditions.
        index: The log index up to which the answer shows everything.
    """

    id: str
    raw: bytes
    etag: str
    index: int

    @property
    def value(self) -> dict[str, Any]:
        """The record, decoded anew each time."""
        value: dict[str, Any] = orjson.loads(self.raw)
        return value


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof of a write.

    Attributes:
        collection, id: Which record.
        operation: `insert`, `update` or `delete`.
        index: Of its log entry.
        epoch, digest: Of that entry; None when the log no longer has it.
        replicas: Names of those that hold it on their disks.
        etag: Of the version written; None for a deletion.
        replayed: Whether this is the outcome of an earlier request with the same key.
    """

    collection: str
    id: str
    operation: str
    index: int
    epoch: int | None
    digest: str | None
    replicas: tuple[str, ...]
    etag: str | None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """The proof of a batch: one entry, and what it did to each record.

    Attributes:
        results: `{"id", "operation", "etag"}` each, in the order of the operations.
        collection, index, epoch, digest, replicas, replayed: As in Receipt.
    """

    collection: str
    index: int
    epoch: int | None
    digest: str | None
    replicas: tuple[str, ...]
    results: tuple[Json, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a collection.

    Attributes:
        cursor: Where to go on after it.
        index, position: Its entry, and its place in there.
        time: The leader's clock, RFC 3339.
        operation: `insert`, `update` or `delete`.
        id: Of the record.
        value: The new record; None for a deletion.
        digest: Of its entry.
    """

    cursor: str
    index: int
    position: int
    time: str
    operation: str
    id: str
    value: dict[str, Any] | None
    digest: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a record.

    Attributes:
        index, time, digest: Of its entry; time and digest are None when the log no longer has it.
        operation: `insert`, `update` or `delete`.
        value: The record then; None for a deletion.
    """

    index: int
    time: str | None
    operation: str
    digest: str | None
    value: dict[str, Any] | None


class ImportStatus(StrEnum):
    """What became of one record of an import."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of one record of an import.

    Attributes:
        line: Its number, from 1.
        id: Its id; None if it has none.
        status: What became of it.
        reason: Why it is invalid or unknown; "" otherwise.
    """

    line: int
    id: str | None
    status: ImportStatus
    reason: str = ""
