"""The sidecar `log/synced`: up to where the log is known to be on the disk.

It turns "damaged" into "damaged after it was synced", which no power cut explains. It is written
lazily, so after a crash it says less than was true, never more. One line, overwritten in place:

    <position, 20 digits> <index, 20 digits> <digest, 64 hex digits> <SHA-256 of that, 64 digits>

Source: docs/log-format.md, "Torn tail against corruption".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from replicad.core.messages import Point
from replicad.storage.durable import disk_errors, failure, is_no_room, sync_data, sync_directory
from replicad.storage.sealed import seal, unseal

_BYTES: Final = 20 + 1 + 20 + 1 + 64 + 1 + 64 + 1


class Mark(NamedTuple):
    """All bytes before `position` are synced; the last entry among them is at `point`."""

    position: int
    point: Point


NOTHING: Final = Mark(0, Point(0, b""))


def read_mark(log: Path) -> Mark:
    """What the sidecar in the log's directory says; NOTHING if it is not there.

    Raises:
        DiskFailedError: It cannot be read.
    """
    with disk_errors("read log/synced"):
        try:
            return _decode((log / "synced").read_bytes())
        except FileNotFoundError:
            return NOTHING


class SyncMark:
    """The open sidecar. `mark` is what it says, or may say."""

    def __init__(self, log: Path) -> None:
        """Open the sidecar in the log's directory; create an empty one if there is none.

        Raises:
            DiskFullError, DiskFailedError: It cannot be created or read.
        """
        path = log / "synced"
        is_new = not path.exists()
        with disk_errors(f"open {path}"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self.mark = _decode(os.pread(self._descriptor, _BYTES, 0))
        if is_new:
            sync_directory(log)

    def raise_to(self, mark: Mark) -> None:
        """Write without syncing. A full disk is no error here: the mark only knows less then.

        Raises:
            DiskFailedError: It cannot be written.
        """
        try:
            os.pwrite(self._descriptor, _encode(mark), 0)
        except OSError as error:
            if not is_no_room(error):
                raise failure(error)(f"cannot write log/synced: {error}") from error
        self.mark = mark

    def lower_to(self, mark: Mark) -> None:
        """Write and sync: what comes next makes a higher mark untrue.

        Raises:
            DiskFullError, DiskFailedError: The old mark may still stand; cut nothing.
        """
        if mark.position < self.mark.position:
            with disk_errors("lower log/synced"):
                os.pwrite(self._descriptor, _encode(mark), 0)
            self.sync()
            self.mark = mark

    def sync(self) -> None:
        """Make the mark durable.

        Raises:
            DiskFailedError: It could not be synced.
        """
        sync_data(self._descriptor, "log/synced")

    def close(self) -> None:
        """Close the descriptor, nothing more."""
        os.close(self._descriptor)


def _encode(mark: Mark) -> bytes:
    text = b"%020d %020d %b" % (mark.position, mark.point.index, mark.point.digest.hex().encode())
    return seal(text)


def _decode(data: bytes) -> Mark:
    text = unseal(data)
    if text is None:
        return NOTHING  # Never written, or torn by a power cut.
    position, index, digest = text.split(b" ")
    return Mark(int(position), Point(int(index), bytes.fromhex(digest.decode())))
