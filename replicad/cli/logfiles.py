"""Reads a log's files without the replica, which may be running.

Source: docs/log-format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from replicad.core.entry import DIGEST_BYTES, decode_head, genesis_digest, verify_line
from replicad.errors import ConfigurationError, CorruptLogError, MalformedEntryError
from replicad.storage.durable import disk_errors
from replicad.storage.logbase import read_base

_SEGMENTS: Final = "[0-9]" * 20 + ".jsonl"


class Line(NamedTuple):
    """One whole line of a log without its newline, `at` which index, in which file."""

    at: int
    text: bytes
    file: Path


def lines(path: Path, first: int = 1) -> Iterator[Line]:
    """The lines from entry `first` on of a data directory, a log directory or one segment.

    A last line that is only begun is left out.

    Raises:
        ConfigurationError: There is no log.
        CorruptLogError: Something in there is no entry.
        DiskFailedError: It cannot be read.
    """
    files = _segments(path)
    for number, file in enumerate(files):
        following = files[number + 1] if number + 1 < len(files) else None
        if following is not None and int(following.stem) <= first:
            continue
        with disk_errors(f"read {file}"), file.open("rb") as segment:
            for text in segment:
                if not text.endswith(b"\n"):
                    return
                try:
                    index = decode_head(text)[0]
                except MalformedEntryError as error:
                    raise CorruptLogError(f"{file}: {error}") from error
                if index >= first:
                    yield Line(index, text[:-1], file)


def digest_before(path: Path) -> bytes | None:
    """The raw digest that the first line follows; None if only a single segment is known.

    Raises:
        ConfigurationError, CorruptLogError, DiskFailedError: It cannot be told.
    """
    identity = path / "replica.json"
    if not identity.exists():
        return None
    base = read_base(path / "log")
    if base is not None:
        return base.point.digest
    try:
        with disk_errors(f"read {identity}"):
            return genesis_digest(orjson.loads(identity.read_bytes())["cluster_id"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{identity} names no cluster") from error


def verified(path: Path) -> Iterator[Line]:
    """All lines, each after it was found to follow from the one before.

    Of a single segment that does not begin with entry 1 the first line cannot be checked.

    Raises:
        CorruptLogError: A line does not follow; it is named.
        ConfigurationError, DiskFailedError: As `lines`.
    """
    digest = digest_before(path)
    for line in lines(path):
        try:
            digest = claimed(line.text) if digest is None else verify_line(line.text, digest)
        except MalformedEntryError as error:
            raise CorruptLogError(f"{line.file}, entry {line.at}: {error}") from error
        yield line


def claimed(text: bytes) -> bytes:
    """The raw digest that a line says it has.

    Raises:
        MalformedEntryError: It says none.
    """
    try:
        return bytes.fromhex(text[-2 * DIGEST_BYTES - 2 : -2].decode())
    except ValueError as error:
        raise MalformedEntryError(f"no digest at the end of {text[:60]!r}") from error


def _segments(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for folder in (path / "log", path):
        files = sorted(folder.glob(_SEGMENTS))
        if files:
            return files
    raise ConfigurationError(f"there is no log in {path}")
