"""What clients ask for: writes, as the gateway forwards them to the leader.

A write changes one record, or several of one collection, all or nothing. It says what is wished
and on which condition; what it did is a fact, which the leader finds out and logs (`entry.py`).

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson

from replicad.core.entry import ENTRY_BYTES_MAX, cut_values
from replicad.errors import MalformedEntryError

DEFINITIONS: Final = "_collections"
"""The collection whose records define the others. No client can name it."""
OPERATIONS_MAX: Final = 1000
WRITE_BYTES_MAX: Final = ENTRY_BYTES_MAX - 16 * 1024
"""Of an encoded write without its newline.

Leaves room for what its entry has more: index, epoch, time, commit and digest, and for each
operation a few letters, since what was done may be longer to say than the condition was.
"""
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
# A collection, a request, a fingerprint, a call, and keys, a line each.
_NAMES: Final = re.compile(
    rf"(?:{DEFINITIONS}|{_NAME})\n[!-~]{{1,128}}\n[0-9a-f]{{32}}\n[0-9a-f]{{1,32}}(?:\n{_NAME})++"
)
_VALUE: Final = b',"value":'


class Wanted(Enum):
    """What must hold of a record before it is written, other than its version."""

    ANYTHING = "anything"
    ABSENT = "absent"
    PRESENT = "present"


_WANTED: Final = {each.value: each for each in Wanted}

Condition = Wanted | tuple[int, ...]
"""Wanted, or the versions of which the record must have one."""


class Objection(Enum):
    """Why the state does not allow what a write wishes."""

    EXISTS = "exists"
    """The record must be absent, and is there."""
    MISSING = "missing"
    """The record must be there, and is absent."""
    CHANGED = "changed"
    """The record has another version than was asked for."""


class Operation(NamedTuple):
    """The wish to store or delete one record.

    Attributes:
        key: The record's id in its collection.
        value: The record: one JSON object, UTF-8, no white space between its tokens; None to
            delete what there is.
        condition: What must hold of the record before.
    """

    key: str
    value: bytes | None
    condition: Condition = Wanted.ANYTHING

    def objection(self, version: int) -> Objection | None:
        """Why this cannot be done to a record of this version; 0 stands for no record."""
        _, value, condition = self
        if version == 0:
            is_free = condition is Wanted.ABSENT or condition is Wanted.ANYTHING
            return None if is_free and value is not None else Objection.MISSING
        if condition is Wanted.ABSENT:
            return Objection.EXISTS
        if isinstance(condition, tuple) and version not in condition:
            return Objection.CHANGED
        return None


class WriteRequest(NamedTuple):
    """Operations on one collection that happen together or not at all.

    Attributes:
        request: The idempotency key, unique to this write; retries carry it again.
        fingerprint: Tells whether a retry asks for the same write: 32 hex digits that the gateway
            derives from what the client sent (see `fingerprint_of`).
        collection: Whose records.
        definition: The version of the collection's definition by which the values were checked;
            0 if it has none.
        operations: At least one, each of another key.
        call: Names the client's request whose attempts this belongs to, in hex: not logged.
        attempt: Counts the attempts of this call from 1; an earlier one may arrive after a later.
        if_empty: Of definitions: whether they may be stored only while their collections hold no
            records. To be deleted they never may otherwise.
    """

    request: str
    fingerprint: str
    collection: str
    definition: int
    operations: tuple[Operation, ...]
    call: str
    attempt: int = 1
    if_empty: bool = False

    @property
    def must_be_empty(self) -> list[str]:
        """The collections that may hold no records when this is done to their definitions."""
        if self.collection != DEFINITIONS:
            return []
        return [each.key for each in self.operations if self.if_empty or each.value is None]


def fingerprint_of(collection: str, contents: Sequence[tuple[str, bytes | None]]) -> str:
    """32 hex digits that are equal for two writes that ask for the same.

    Args:
        collection: Whose records.
        contents: Each record's key, and its new value or None to delete it. What they had to be
            before is left out, so that the entry of a write shows whether it is as it was sent.
    """
    if len(contents) == 1:
        ((key, value),) = contents
        verb = "delete" if value is None else "insert"  # Whether it was there is the log's word.
        return _hash(f"{verb}\n{collection}\n{key}\n", value or b"")
    listed = [[key, value and len(value)] for key, value in contents]
    values = b"".join(value or b"" for _, value in contents)
    return _hash(f"batch\n{collection}\n{orjson.dumps(listed).decode()}\n", values)


def patch_fingerprint_of(collection: str, key: str, patch: bytes) -> str:
    """The same for a merge patch (RFC 7396), whatever it is applied to."""
    return _hash(f"patch\n{collection}\n{key}\n", patch)


def _hash(head: str, data: bytes) -> str:
    return sha256(head.encode() + data).hexdigest()[:32]


def encode_write(write: WriteRequest) -> bytes:
    """One write as the gateway forwards it: a JSON object, values last, with its newline."""
    values = [b"null" if value is None else value for _, value, _ in write.operations]
    head = orjson.dumps(
        {
            "request": write.request,
            "fingerprint": write.fingerprint,
            "collection": write.collection,
            "definition": write.definition,
            "call": write.call,
            "attempt": write.attempt,
            "if_empty": write.if_empty,
            "operations": [
                (key, condition, len(value))  # orjson writes an Enum as its value.
                for (key, _, condition), value in zip(write.operations, values, strict=True)
            ],
        }
    )
    return b'%b,"value":[%b]}\n' % (head[:-1], b",".join(values))


def decode_write(line: bytes) -> WriteRequest:
    """The inverse of `encode_write`; the newline must be gone.

    Values are taken as they are: that they are canonical (docs/protocol.md, "Gateway and leader")
    is the gateway's to see to.

    Raises:
        MalformedEntryError: The line is not a write.
    """
    at = line.find(_VALUE)
    try:
        if len(line) > WRITE_BYTES_MAX:
            raise ValueError("too long")
        head = orjson.loads(line[:at] + b"}")
        if at < 0 or line[-1:] != b"}":
            raise ValueError("no values")
        head["operations"] = _decode_operations(head["operations"], line[at + len(_VALUE) : -1])
        write = WriteRequest(**head)
        _check(write)
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedEntryError(f"not a write: {line[:60]!r}") from error
    return write


def _decode_operations(told: Sequence[Any], values: bytes) -> tuple[Operation, ...]:
    operations = []
    cut = cut_values(values, [size for _, _, size in told])
    value: bytes | None
    for (key, condition, _), value in zip(told, cut, strict=True):
        # Each by itself: wrong sizes could cut one value in two and join it to the next.
        document = orjson.loads(value)
        if document is None:
            value = None
        elif type(document) is not dict:
            raise ValueError("a value is neither an object nor null")
        wanted = _WANTED[condition] if type(condition) is str else _decode_versions(condition)
        operations.append(Operation(key, value, wanted))
    return tuple(operations)


def _check(write: WriteRequest) -> None:
    keys = {key for key, _, _ in write.operations}
    if not 1 <= len(keys) == len(write.operations) <= OPERATIONS_MAX:
        raise ValueError("no operation, too many, or two for one key")
    names = "\n".join((write.collection, write.request, write.fingerprint, write.call, *keys))
    if not (
        _NAMES.fullmatch(names)
        and names.count("\n") == 3 + len(keys)
        # Not isinstance: True is an int too.
        and type(write.definition) is type(write.attempt) is int
        and write.definition >= 0
        and write.attempt >= 1
        and type(write.if_empty) is bool
    ):
        raise ValueError("a member is not well-formed")


def _decode_versions(told: object) -> tuple[int, ...]:
    if not isinstance(told, list) or any(type(each) is not int or each < 0 for each in told):
        raise ValueError("versions are indexes of entries")
    return tuple(told)
