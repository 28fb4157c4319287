"""Small durable steps on files and directories, with their failures as replicad's errors.

A file is durable only when its own bytes and its name in its directory were both synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from replicad.errors import DiskFailedError, DiskFullError, DiskSuspectError

# EFBIG: beyond the process's file size limit, which is a quota like the others.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_no_room(error: OSError) -> bool:
    """Whether the error says that there was no room, and nothing worse."""
    return error.errno in _NO_ROOM


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn an OSError into one of the disk's errors; `doing` completes "cannot"."""
    try:
        yield
    except OSError as error:
        raise disk_error(doing, error) from error


def disk_error(doing: str, error: OSError) -> DiskFullError | DiskFailedError:
    """One of the disk's errors for an OSError; `doing` completes "cannot"."""
    kind = DiskFullError if is_no_room(error) else failure(error)
    return kind(f"cannot {doing}: {error}")


def failure(error: OSError) -> type[DiskFailedError]:
    """What an OSError says of the disk: that it is broken, or only that something did not work."""
    return DiskSuspectError if error.errno == errno.EIO else DiskFailedError


def sync_data(descriptor: int, name: object) -> None:
    """Make a file's bytes durable.

    Raises:
        DiskSuspectError: Whatever the reason, even no room: after a failed sync the kernel marks
            the pages clean, so that trying again would succeed without writing them.
    """
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise DiskSuspectError(f"cannot sync {name}: {error}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: files created, renamed or deleted before.

    Raises:
        DiskFailedError: It could not be opened.
        DiskSuspectError: It could not be synced.
    """
    with disk_errors(f"open the directory {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise DiskSuspectError(f"cannot sync the directory {path}: {error}") from error
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Create a directory (mode 0700) and its missing parents, durably, unless it is there.

    Raises:
        OSError: It cannot be created.
        DiskFailedError: It could not be synced.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode=0o700)
    sync_directory(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write everything; a short write is followed by another for the rest.

    Raises:
        OSError: From the first write that wrote nothing; earlier parts are in the file.
    """
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def replace_file(path: Path, data: bytes) -> None:
    """Give a file (mode 0600) new content: after a crash it holds the old or the new, whole.

    Two callers must not replace one file at the same time.

    Raises:
        DiskFullError: No room; the file is as it was.
        DiskFailedError: The outcome is unknown.
    """
    temporary = path.with_name(path.name + ".tmp")
    with disk_errors(f"write {path}"):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(descriptor, data)
            sync_data(descriptor, temporary)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    sync_directory(path.parent)
