"""One replica's directory: who may use it, whose it is, and the epoch it has promised.

DATA_DIR/lock           locked while a process uses the directory
DATA_DIR/replica.json   node, disk id, cluster id
DATA_DIR/epoch          the highest epoch seen
DATA_DIR/log/           see `journal.py`
DATA_DIR/lost+found/    what was cut off the log
DATA_DIR/records.sqlite derived from the log, see `records.py`
"""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import orjson

from replicad.errors import (
    ConfigurationError,
    CorruptLogError,
    DataDirectoryBusyError,
    ForeignClusterError,
)
from replicad.storage.durable import make_directory, replace_file

DIRECTORY_FORMAT: Final = 1
LOG_DIRECTORY: Final = "log"


@dataclass(frozen=True, slots=True)
class _Identity:
    format: int
    node: str
    disk_id: str
    cluster_id: str


class DataDirectory:
    """A locked data directory; nobody else can open it until `close`."""

    def __init__(self, path: Path, lock: int, identity: _Identity, epoch: int) -> None:
        """Use `open`."""
        self._path = path
        self._lock = lock
        self._identity = identity
        self._epoch = epoch

    @classmethod
    def open(cls, path: Path, node: str) -> Self:
        """Lock the directory of `node`; create it, with a new disk id, if there is none.

        Raises:
            DataDirectoryBusyError: Another process, or this one, holds it.
            ForeignClusterError: It belongs to another node.
            ConfigurationError: It cannot be created, or was made by another version.
            CorruptLogError: Its identity or its epoch is lost or unreadable: the disk is suspect.
            DiskFullError: It is new and there is no room for it.
            DiskFailedError: It could not be synced.
        """
        lock = _lock(path)
        try:
            identity, epoch = _load(path) if (path / "replica.json").exists() else _new(path, node)
            if identity.node != node:
                raise ForeignClusterError(
                    f"{path} belongs to replica {identity.node!r}, not to {node!r}"
                )
        except BaseException:
            os.close(lock)
            raise
        return cls(path, lock, identity, epoch)

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    @property
    def node(self) -> str:
        """The replica's name."""
        return self._identity.node

    @property
    def disk_id(self) -> str:
        """32 hex digits, random, made with the directory."""
        return self._identity.disk_id

    @property
    def cluster_id(self) -> str:
        """The cluster its log belongs to; "" before `adopt_cluster`."""
        return self._identity.cluster_id

    @property
    def epoch(self) -> int:
        """The highest epoch persisted."""
        return self._epoch

    def adopt_cluster(self, cluster_id: str) -> None:
        """Bind the directory to a cluster for good; durable on return.

        Raises:
            ForeignClusterError: It is bound to another one.
            DiskFullError, DiskFailedError: As for `replace_file`.
        """
        if self.cluster_id == cluster_id:
            return
        if self.cluster_id:
            raise ForeignClusterError(
                f"{self._path} belongs to cluster {self.cluster_id}, not to {cluster_id}"
            )
        self._store(replace(self._identity, cluster_id=cluster_id))

    def persist_epoch(self, epoch: int) -> None:
        """Make `epoch` durable before returning; a lower one than before changes nothing.

        Raises:
            DiskFullError: No room; the epoch is as it was.
            DiskFailedError: The outcome is unknown.
        """
        if epoch > self._epoch:
            replace_file(self._path / "epoch", b"%d\n" % epoch)
            self._epoch = epoch

    def free_bytes(self) -> int:
        """What this process may still write to the file system."""
        room = os.statvfs(self._path)
        return room.f_bavail * room.f_frsize

    def close(self) -> None:
        """Let others have the directory. Call once."""
        os.close(self._lock)

    def _store(self, identity: _Identity) -> None:
        replace_file(self._path / "replica.json", orjson.dumps(identity) + b"\n")
        self._identity = identity


def _lock(path: Path) -> int:
    try:
        make_directory(path)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be the data directory: {error}") from error
    try:
        # flock, not lockf: it excludes a second opening in the same process, too.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DataDirectoryBusyError(f"{path} is in use by another replica process") from error
    return lock


def _new(path: Path, node: str) -> tuple[_Identity, int]:
    if (path / LOG_DIRECTORY).exists():
        # With a new identity an old log would pass for a new, empty disk's.
        raise CorruptLogError(f"{path} holds a log, but replica.json is gone")
    identity = _Identity(DIRECTORY_FORMAT, node, secrets.token_hex(16), "")
    # The epoch first: a directory that has an identity has an epoch, so a lost one is noticed.
    replace_file(path / "epoch", b"0\n")
    replace_file(path / "replica.json", orjson.dumps(identity) + b"\n")
    return identity, 0


def _load(path: Path) -> tuple[_Identity, int]:
    try:
        fields = orjson.loads((path / "replica.json").read_bytes())
        if fields["format"] != DIRECTORY_FORMAT:
            raise ConfigurationError(f"{path} has format {fields['format']}; need format 1")
        return _Identity(**fields), int((path / "epoch").read_bytes())
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptLogError(f"replica.json or epoch in {path} is damaged: {error!r}") from error
