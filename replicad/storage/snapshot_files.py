"""The snapshots of a data directory: which there are, how one comes and goes.

    DATA_DIR/snapshots/<index, 20 digits>.ndjson            a snapshot
    DATA_DIR/snapshots/<index, 20 digits>.manifest.ndjson   its manifest
    DATA_DIR/snapshots/incoming/                            one that is being fetched
    DATA_DIR/snapshots/*.tmp                                work in hand

A snapshot counts from the moment its manifest has its name: that comes last, when the file is
durable and was read again, and goes first. Whatever else a crash leaves is removed on opening.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Final

from replicad.errors import SnapshotDamagedError
from replicad.storage.durable import disk_errors, make_directory, replace_file, sync_directory
from replicad.storage.snapshot import Manifest, read_manifest

SNAPSHOT_DIRECTORY: Final = "snapshots"
_MANIFEST_NAME: Final = re.compile(r"([0-9]{20})\.manifest\.ndjson")


class SnapshotFiles:
    """The durable snapshots of one data directory, which belongs to this process."""

    def __init__(self, data_dir: Path) -> None:
        """Use `open`, except in another process that works for the directory's owner."""
        self._path = data_dir / SNAPSHOT_DIRECTORY

    @classmethod
    def open(cls, data_dir: Path) -> SnapshotFiles:
        """Make the directory if there is none; remove what a crash has left.

        Raises:
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        files = cls(data_dir)
        with disk_errors(f"open {files._path}"):
            make_directory(files._path)
            known = {path.name for index in files.indexes() for path in files._paths(index)}
            for path in files._path.iterdir():
                if path.is_file() and path.name not in known:
                    path.unlink()
            sync_directory(files._path)
        return files

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def incoming(self) -> Path:
        """Where a fetched snapshot grows."""
        return self._path / "incoming"

    def indexes(self) -> list[int]:
        """The last entries of all snapshots, newest first."""
        found = map(_MANIFEST_NAME.fullmatch, os.listdir(self._path) if self._path.is_dir() else ())
        return sorted((int(name[1]) for name in found if name), reverse=True)

    def file_of(self, index: int) -> Path:
        """Where the snapshot up to this entry is."""
        return self._path / f"{index:020d}.ndjson"

    def manifest_of(self, index: int) -> Path:
        """Where its manifest is."""
        return self._path / f"{index:020d}.manifest.ndjson"

    def temporary(self, name: str) -> Path:
        """A path for work in hand, of this process alone."""
        return self._path / f"{name}.{os.getpid()}.tmp"

    def load(self, index: int) -> Manifest:
        """The manifest of a snapshot; its file has the right length at least.

        Raises:
            SnapshotDamagedError: One of the two is missing or damaged.
        """
        try:
            manifest = read_manifest(self.manifest_of(index))
            size = self.file_of(index).stat().st_size
        except OSError as error:
            raise SnapshotDamagedError(f"snapshot {index} cannot be read: {error}") from error
        if (manifest.header.index, manifest.size) != (index, size):
            raise SnapshotDamagedError(f"snapshot {index} has another length or another's manifest")
        return manifest

    def publish(self, file: Path, manifest: Manifest) -> None:
        """Give a file that is synced and verified its name and its manifest, durably.

        Raises:
            DiskFullError: No room for the manifest.
            DiskFailedError: The outcome is unknown.
        """
        index = manifest.header.index
        with disk_errors(f"rename {file}"):
            file.replace(self.file_of(index))
        sync_directory(self._path)
        replace_file(self.manifest_of(index), b"".join(manifest.encode()))

    def delete(self, index: int) -> None:
        """Remove a snapshot. Who reads it at the moment may go on.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        with disk_errors(f"delete snapshot {index}"):
            for path in reversed(self._paths(index)):
                path.unlink(missing_ok=True)
                sync_directory(self._path)

    def delete_incoming(self) -> None:
        """Forget what was fetched of a snapshot so far.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        with disk_errors(f"delete {self.incoming}"):
            if self.incoming.is_dir():
                shutil.rmtree(self.incoming)
                sync_directory(self._path)

    def prune(self, keep: int, in_use: Container[int] = ()) -> None:
        """Remove all but the newest `keep` snapshots and those in use.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        for index in self.indexes()[keep:]:
            if index not in in_use:
                self.delete(index)

    def _paths(self, index: int) -> tuple[Path, Path]:
        return self.file_of(index), self.manifest_of(index)
