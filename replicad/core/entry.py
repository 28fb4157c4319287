"""Log entries: one JSON object a line, chained by digest.

A line is built here once, by the leader, and copied verbatim by everyone else. Its members stand
in one fixed order, the stored value second to last and the digest last, so that the value's own
bytes can be cut out of the line without decoding and encoding them again.

Source: docs/log-format.md, "Entry".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import orjson

from replicad.errors import MalformedEntryError

ENTRY_BYTES_MAX: Final = 16 * 1024 * 1024
DIGEST_BYTES: Final = 32
# Leaves room for what the leader adds: index, epoch, time, commit and digest.
_WRITE_BYTES_MAX: Final = ENTRY_BYTES_MAX - 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REQUEST: Final = re.compile(r"[!-~]{1,128}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{32}")
INSERT: Final = "insert"
EPOCH: Final = "epoch"

_HEAD: Final = re.compile(
    rb'{"index":(\d{1,20}),"epoch":(\d{1,20}),"time":"([!-~]{24})","commit":(\d{1,20}),'
)
_VALUE: Final = b',"value":'
_DIGEST: Final = b',"digest":"'
# `,"digest":"` + 64 hex digits + `"}`
_TAIL_BYTES: Final = len(_DIGEST) + 2 * DIGEST_BYTES + 2


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One record to insert, as the gateway sends it.

    Attributes:
        request: The idempotency key, unique to this write; retries carry it again.
        fingerprint: Tells whether a retry asks for the same write (see `fingerprint_of`).
        collection: The record's collection.
        key: The record's id in its collection.
        value: The record: one JSON object, UTF-8, no white space between its tokens.
    """

    request: str
    fingerprint: str
    collection: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One decoded log entry.

    Attributes:
        index: Position in the log; counts from 1 without gaps.
        epoch: The epoch of the leader that wrote it; never decreases along the log.
        time: The leader's wall clock, RFC 3339 in UTC; never decreases, and decides nothing.
        commit: The leader's commit index when it wrote the entry.
        operation: INSERT, or EPOCH for the control entry that opens an epoch.
        collection, key, request, fingerprint: As in WriteRequest; None in control entries.
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


def fingerprint_of(collection: str, key: str, value: bytes) -> str:
    """32 hex digits that are equal for two requests that ask for the same insert."""
    identity = f"{INSERT}\n{collection}\n{key}\n".encode()
    return sha256(identity + value).hexdigest()[:32]


def format_time(unix_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC. Text order is time order."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


def encode_insert(
    write: WriteRequest, *, index: int, epoch: int, time: str, commit: int, previous: bytes
) -> tuple[bytes, bytes]:
    """Build the line of one insert.

    Returns:
        The line with its newline, and its raw digest.
    """
    return _seal(
        b'{"index":%d,"epoch":%d,"time":"%b","commit":%d,"operation":"insert","collection":%b,'
        b'"key":%b,"request":%b,"fingerprint":%b,"value":%b'
        % (
            index,
            epoch,
            time.encode(),
            commit,
            orjson.dumps(write.collection),
            orjson.dumps(write.key),
            orjson.dumps(write.request),
            orjson.dumps(write.fingerprint),
            write.value,
        ),
        previous,
    )


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
    return _seal(
        b'{"index":%d,"epoch":%d,"time":"%b","commit":%d,"operation":"epoch","collection":null,'
        b'"key":null,"request":null,"fingerprint":null,"value":%b'
        % (index, epoch, time.encode(), commit, orjson.dumps(opening)),
        previous,
    )


def _seal(body: bytes, previous: bytes) -> tuple[bytes, bytes]:
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
        return Entry(
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


def encode_write(write: WriteRequest) -> bytes:
    """One write as the gateway forwards it: a JSON object, value last, with its newline."""
    head = orjson.dumps(
        {
            "request": write.request,
            "fingerprint": write.fingerprint,
            "collection": write.collection,
            "key": write.key,
        }
    )
    return b'%b,"value":%b}\n' % (head[:-1], write.value)


def decode_write(line: bytes) -> WriteRequest:
    """The inverse of `encode_write`; the newline must be gone.

    The value is taken as it is: that it is canonical (docs/protocol.md, "Gateway and leader") is
    the gateway's to see to.

    Raises:
        MalformedEntryError: The line is not a write.
    """
    at = line.find(_VALUE)
    try:
        value = line[at + len(_VALUE) : -1]
        if len(line) > _WRITE_BYTES_MAX:
            raise ValueError("too long")
        if at < 0 or line[-1:] != b"}" or not isinstance(orjson.loads(value), dict):
            raise ValueError("no object as value")
        head = orjson.loads(line[:at] + b"}")
        write = WriteRequest(value=value, **head)
        if not (
            _NAME.fullmatch(write.collection)
            and _NAME.fullmatch(write.key)
            and _REQUEST.fullmatch(write.request)
            and _FINGERPRINT.fullmatch(write.fingerprint)
        ):
            raise ValueError("a collection, key, request id or fingerprint is not well-formed")
    except (ValueError, TypeError) as error:
        raise MalformedEntryError(f"not a write: {line[:60]!r}") from error
    return write


def split_lines(lines: bytes) -> Iterator[bytes]:
    """The lines of a blob without their newlines. The blob ends with one, or is empty."""
    if lines:
        yield from lines[:-1].split(b"\n")
