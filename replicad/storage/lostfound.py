"""What was cut off a log: the files in DATA_DIR/lost+found.

    <number, 6 digits>-<index of the first entry, 20 digits>-epoch-<epoch>.jsonl

The epoch is the highest that the replica had persisted when it cut: a leader of that epoch had
other entries there, or, at a start, the cut was a torn tail. Files from before epochs were noted
have no epoch in their names. Nothing deletes these files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from replicad.core.entry import INSERT, Entry, decode_entry
from replicad.core.write import DEFINITIONS, fingerprint_of
from replicad.errors import ConfigurationError, DiskFailedError, MalformedEntryError

LOST_AND_FOUND: Final = "lost+found"
_NAME: Final = re.compile(r"(\d{6})-(\d{20})(?:-epoch-(\d{1,19}))?\.jsonl")


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of entries that were cut off.

    Attributes:
        path: The file.
        first: Index of the first entry that was cut.
        epoch: In whose reign it was cut; None if the file's name does not say.
        entries: How many of its lines are entries.
        garbled: How many are not, or not any more: of a torn tail, or of a damaged segment.
        requests: The request ids of what can be sent again, in their order (`can_be_sent_again`).
        others: How many other writes there are.
    """

    path: Path
    first: int
    epoch: int | None
    entries: int
    garbled: int
    requests: tuple[str, ...]
    others: int


def can_be_sent_again(entry: Entry) -> bool:
    """Whether an entry is an insert: of anything else nobody knows what it would change by now.

    Updates, deletes and batches rest on the records that stood there before; what is inserted into
    the definitions decides about others' values.
    """
    return entry.operation == INSERT and entry.collection != DEFINITIONS


def kept_name(folder: Path, first: int, epoch: int) -> Path:
    """The path of the next file in `folder`: its number is above every other's."""
    numbers = [int(match[1]) for path, match in _named(folder)]
    return folder / f"{max(numbers, default=0) + 1:06d}-{first:020d}-epoch-{epoch}.jsonl"


def list_kept(data_dir: Path) -> list[Kept]:
    """What a data directory keeps, oldest first; the replica may be running.

    Raises:
        DiskFailedError: A file cannot be read.
    """
    return [describe_kept(path) for path, _ in _named(data_dir / LOST_AND_FOUND)]


def describe_kept(path: Path) -> Kept:
    """What a kept file, or a segment from a quarantine, holds.

    Raises:
        ConfigurationError: There is no such file.
        DiskFailedError: It cannot be read.
    """
    match = _NAME.fullmatch(path.name)
    first = int(match[2]) if match else 0
    epoch = int(match[3]) if match and match[3] else None
    entries, garbled, others, requests = 0, 0, 0, []
    for entry in _decoded(path):
        if entry is None:
            garbled += 1
            continue
        entries += 1
        first = first or entry.index
        if entry.request is None:
            continue  # A leader's own: no client has sent it.
        if can_be_sent_again(entry):
            requests.append(entry.request)
        else:
            others += 1
    return Kept(path, first, epoch, entries, garbled, tuple(requests), others)


def kept_entries(path: Path) -> Iterator[Entry]:
    """The entries of a kept file, or of a segment, in their order; garbled lines are left out.

    Their digests are not checked: they may follow entries that are in no log any more. That an
    insert is what its client sent is shown by its fingerprint.

    Raises:
        ConfigurationError: There is no such file.
        DiskFailedError: It cannot be read.
    """
    return (entry for entry in _decoded(path) if entry is not None)


def _decoded(path: Path) -> Iterator[Entry | None]:
    """Each line's entry, or None for a line that is none."""
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = decode_entry(line.removesuffix(b"\n"))
                except MalformedEntryError:
                    yield None
                else:
                    yield entry if _is_as_sent(entry) else None
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no file {path}") from error
    except OSError as error:
        raise DiskFailedError(f"cannot read {path}: {error}") from error


def _named(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    named = ((path, _NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.jsonl")))
    return [(path, match) for path, match in named if match]


def _is_as_sent(entry: Entry) -> bool:
    if entry.operation != INSERT:
        return True
    if entry.collection is None or entry.key is None:
        return False
    return entry.fingerprint == fingerprint_of(entry.collection, [(entry.key, entry.value)])
