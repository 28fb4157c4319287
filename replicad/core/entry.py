"""Log entries: one JSON object a line, chained by digest.

A line is built here once, by the leader, and copied verbatim by everyone else. Its members stand
in one fixed order, the stored value second to last and the digest last, so that the value's own
bytes can be cut out of the line without decoding and encoding them again.

Source: docs/log-format.md, "Entry".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import starmap
from typing import Any, Final, NamedTuple

import orjson

from replicad.errors import MalformedEntryError

ENTRY_BYTES_MAX: Final = 16 * 1024 * 1024
DIGEST_BYTES: Final = 32
INSERT: Final = "insert"
UPDATE: Final = "update"
DELETE: Final = "delete"
BATCH: Final = "batch"
EPOCH: Final = "epoch"
DONE: Final = {"i": INSERT, "u": UPDATE, "d": DELETE}
"""What a write did to each of its records, a letter each: how it is remembered."""

_CHANGING: Final = {operation: operation for operation in DONE.values()}

_HEAD: Final = re.compile(
    rb'{"index":(\d{1,20}),"epoch":(\d{1,20}),"time":"([!-~]{24})","commit":(\d{1,20}),'
)
_OPERATION: Final = b'"operation":'
_KEY: Final = b',"key":'
_VALUE: Final = b',"value":'
_DIGEST: Final = b',"digest":"'
# `,"digest":"` + 64 hex digits + `"}`
_TAIL_BYTES: Final = len(_DIGEST) + 2 * DIGEST_BYTES + 2


class Change(NamedTuple):
    """What an entry did to one record.

    Attributes:
        operation: INSERT, UPDATE or DELETE.
        key: The record's id in its collection.
        value: The JSON object's bytes exactly as they stand in the line; None for DELETE.
    """

    operation: str
    key: str
    value: bytes | None


BareChange = tuple[str, str, bytes | None]
"""A Change without names, which is made in a fifth of the time: an import makes millions."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decoded log entry.

    Attributes:
        index: Position in the log; counts from 1 without gaps.
        epoch: The epoch of the leader that wrote it; never decreases along the log.
        time: The leader's wall clock, RFC 3339 in UTC; never decreases, and decides nothing.
        commit: The leader's commit index when it wrote the entry.
        operation: INSERT, UPDATE or DELETE of one record, BATCH of several, or EPOCH for the
            control entry that opens an epoch.
        collection, request, fingerprint: As in WriteRequest; None in control entries.
        key: Of the one record; None for a batch and in control entries.
        changes: What it did to records, in order; empty in control entries.
        value: The JSON value's bytes exactly as they stand in the line.
        digest: SHA-256 of (previous digest in hex, the line's bytes before `,"digest"`).
    """

    index: int
    epoch: int
    time: str
    commit: int
    operation: str
    collection: str | None
    key: str | None
    request: str | None
    fingerprint: str | None
    changes: tuple[Change, ...]
    value: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """The value of the control entry that opens an epoch: who leads, and how that came about.

    Attributes:
        leader, incarnation: Who leads from here on.
        reason: Why somebody else was needed, in a few words.
        previous_leader: Who led before; None if nobody did.
        previous_epoch: The epoch before this one in `state`.
        isr_before, isr_after: Names of the in-sync replicas before and after the election.
        leaderless_ms: From the last sign of life of the old leader until this entry was written,
            by the new leader's clock; None if it never heard the old one.
    """

    leader: str
    incarnation: str
    reason: str
    previous_leader: str | None
    previous_epoch: int
    isr_before: tuple[str, ...]
    isr_after: tuple[str, ...]
    leaderless_ms: int | None


def genesis_digest(cluster_id: str) -> bytes:
    """The digest that stands before entry 1: two clusters' logs can never match."""
    return sha256(b"replicad-log-v1:" + cluster_id.encode()).digest()


def format_time(unix_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC. Text order is time order."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


def encode_changes(
    changes: Sequence[BareChange],
    *,
    collection: str,
    request: str,
    fingerprint: str,
    index: int,
    epoch: int,
    time: str,
    commit: int,
    previous: bytes,
) -> tuple[bytes, bytes]:
    """Build the line of what one write did.

    Args:
        changes: At least one. The entry of a single one is named after it; several are a BATCH,
            whose keys and sizes stand before the values.
        collection: The write's.
        request: The write's.
        fingerprint: The write's.
        index: As in Entry.
        epoch: As in Entry.
        time: As in Entry.
        commit: As in Entry.
        previous: The raw digest of the entry before.

    Returns:
        The line with its newline, and its raw digest.
    """
    members: dict[str, object] = {
        "index": index,
        "epoch": epoch,
        "time": time,
        "commit": commit,
        "operation": changes[0][0],
        "collection": collection,
        "key": changes[0][1],
        "request": request,
        "fingerprint": fingerprint,
    }
    values = [b"null" if value is None else value for _, _, value in changes]
    if len(changes) == 1:
        return _seal(members, values[0], previous)
    members["operation"], members["key"] = BATCH, None
    members["changes"] = [
        (done, key, len(value)) for (done, key, _), value in zip(changes, values, strict=True)
    ]
    return _seal(members, b"[%b]" % b",".join(values), previous)


def encode_epoch(
    opening: Opening,
    *,
    index: int,
    epoch: int,
    time: str,
    commit: int,
    previous: bytes,
) -> tuple[bytes, bytes]:
    """Build the control entry that opens an epoch. Returns the line and its raw digest."""
    members = {
        "index": index,
        "epoch": epoch,
        "time": time,
        "commit": commit,
        "operation": EPOCH,
        "collection": None,
        "key": None,
        "request": None,
        "fingerprint": None,
    }
    return _seal(members, orjson.dumps(opening), previous)


def _seal(members: Mapping[str, object], value: bytes, previous: bytes) -> tuple[bytes, bytes]:
    """A line, and its raw digest: its members up to the value in their order, and the value."""
    body = b'%b,"value":%b' % (orjson.dumps(members)[:-1], value)
    digest = chain(previous, body)
    return b'%b,"digest":"%b"}\n' % (body, digest.hex().encode()), digest


def chain(previous: bytes, body: bytes) -> bytes:
    """The digest of a line whose bytes before `,"digest"` are `body`."""
    return sha256(previous.hex().encode() + body).digest()


def verify_line(line: bytes, previous: bytes) -> bytes:
    """Check that one line (without its newline) follows `previous`, and return its raw digest.

    Raises:
        MalformedEntryError: The digest member is missing or is not the chain's.
    """
    body = line[:-_TAIL_BYTES]
    digest = chain(previous, body)
    if line[-_TAIL_BYTES:] != b',"digest":"%b"}' % digest.hex().encode():
        raise MalformedEntryError(f"digest does not follow from the line's bytes: {line[:60]!r}")
    return digest


def decode_head(line: bytes) -> tuple[int, int, str, int]:
    """The index, epoch, time and commit of a line that was verified before.

    They come first in every line, so no JSON decoder is needed on the hot path.

    Raises:
        MalformedEntryError: The line does not begin as an entry does.
    """
    head = _HEAD.match(line)
    if head is None:
        raise MalformedEntryError(f"not a log entry: {line[:60]!r}")
    index, epoch, time, commit = head.groups()
    return int(index), int(epoch), time.decode(), int(commit)


def decode_entry(line: bytes) -> Entry:
    """Decode one line (without its newline) whose digest was verified before.

    Raises:
        MalformedEntryError: The line is not a log entry.
    """
    members, value = split_value(line)
    try:
        changes = tuple(starmap(Change, changes_of(members, value)))
        members.pop("changes", None)
        return Entry(
            changes=changes,
            value=value,
            digest=bytes.fromhex(line[-2 * DIGEST_BYTES - 2 : -2].decode()),
            **members,
        )
    except (ValueError, TypeError) as error:
        raise MalformedEntryError(f"not a log entry: {line[:60]!r}") from error


def split_value(line: bytes) -> tuple[dict[str, Any], bytes]:
    """The members before the value, and the value's bytes, of a line that was verified before.

    A third of the work of `decode_entry`, for whoever decodes every line of a log.

    Raises:
        MalformedEntryError: The line is not a log entry.
    """
    # Strings before the value cannot hold an unescaped quote, so the first match is the member.
    at = line.find(_VALUE)
    try:
        members: dict[str, Any] = orjson.loads(line[:at] + b"}")
    except ValueError as error:
        raise MalformedEntryError(f"not a log entry: {line[:60]!r}") from error
    return members, line[at + len(_VALUE) : -_TAIL_BYTES]


def kind_in(line: bytes) -> bytes:
    """The members `operation` and `collection` of a line as they stand in it: see `kind_of`."""
    # As with the value: nothing before them can hold an unescaped quote.
    at = line.find(_OPERATION)
    return line[at : line.find(_KEY, at)]


def kind_of(collection: str, operation: str) -> bytes:
    """What `kind_in` finds in an entry that does this to one record of this collection."""
    return orjson.dumps({"operation": operation, "collection": collection})[1:-1]


def changes_of(members: Mapping[str, Any], value: bytes) -> tuple[BareChange, ...]:
    """What an entry did to records, from what `split_value` gives.

    Raises:
        MalformedEntryError: The operation is none that this version knows, or the entry is not
            made as such an entry is.
    """
    try:
        match members["operation"]:
            case "epoch":
                return ()
            case "insert" | "update" as operation:
                return ((operation, members["key"], value),)
            case "delete" as operation:
                return ((operation, members["key"], None),)
            case "batch":
                listed = members["changes"]
                values = cut_values(value, [size for _, _, size in listed])
                return tuple(
                    [
                        (_CHANGING[operation], key, None if operation == DELETE else each)
                        for (operation, key, _), each in zip(listed, values, strict=True)
                    ]
                )
            case operation:
                raise ValueError(f"operation {operation!r}")
    except (KeyError, ValueError, TypeError) as error:
        raise MalformedEntryError(f"entry {members.get('index')}: {error}") from error


def cut_values(array: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The elements of a JSON array without white space, whose sizes in bytes are known.

    Raises:
        ValueError: They are other sizes.
    """
    at = 0
    values = [array[at + 1 : (at := at + 1 + size)] for size in sizes]
    if b"[%b]" % b",".join(values) != array:
        raise ValueError("the values have other sizes")
    return values


def split_lines(lines: bytes) -> list[bytes]:
    """The lines of a blob without their newlines. The blob ends with one, or is empty."""
    return lines[:-1].split(b"\n") if lines else []
