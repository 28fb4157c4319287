"""The sidecar `log/base`: what the log's first entry follows, when it does not begin with entry 1.

It is written, durably, before what it makes superfluous is deleted: so it decides, in one step,
where the log begins. Segments that begin at or before it are left over from a deletion that was
interrupted. One line:

    {"index":...,"epoch":...,"time":"...","digest":"<64 hex digits>","position":...} <its SHA-256>

Source: docs/log-format.md, "Where the log begins".
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import orjson

from replicad.core.messages import Point
from replicad.errors import CorruptLogError
from replicad.storage.durable import disk_errors, replace_file
from replicad.storage.sealed import seal, unseal

_NAME: Final = "base"


class Base(NamedTuple):
    """Where a log begins.

    Attributes:
        point: The entry that the first one follows; (0, genesis digest) for a whole log.
        epoch: That entry's epoch; 0 for a whole log.
        time: That entry's time, below which no later one's may be; "" for a whole log.
        position: Of the first entry's first byte; see LogIndex.
    """

    point: Point
    epoch: int = 0
    time: str = ""
    position: int = 0


def read_base(log: Path) -> Base | None:
    """Read the sidecar in the log's directory; None means that the log begins with entry 1.

    Raises:
        CorruptLogError: It is damaged; it was synced, so no power cut did it.
        DiskFailedError: It cannot be read.
    """
    path = log / _NAME
    with disk_errors(f"read {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    text = unseal(data)
    if text is None:
        raise CorruptLogError(f"{path} is damaged")
    fields = orjson.loads(text)
    return Base(
        Point(fields["index"], bytes.fromhex(fields["digest"])),
        fields["epoch"],
        fields["time"],
        fields["position"],
    )


def write_base(log: Path, base: Base) -> None:
    """Make `base` what the log's first entry follows; durable on return.

    Raises:
        DiskFullError: No room; the log begins where it did.
        DiskFailedError: The outcome is unknown.
    """
    fields = {
        "index": base.point.index,
        "epoch": base.epoch,
        "time": base.time,
        "digest": base.point.digest.hex(),
        "position": base.position,
    }
    text = orjson.dumps(fields)
    replace_file(log / _NAME, seal(text))
