"""One replica's directory: who may use it, whose it is, and the epoch it has promised.

DATA_DIR/lock           locked while a process uses the directory
DATA_DIR/replica.json   node, disk id, cluster id
DATA_DIR/epoch          the highest epoch seen
DATA_DIR/suspect        why its disk is not trusted; there only until that is repaired
DATA_DIR/log/           see `journal.py`
DATA_DIR/lost+found/    what was cut off the log, see `lostfound.py`
DATA_DIR/quarantine/    damaged files, see `quarantine.py`
DATA_DIR/records.sqlite derived from the log, see `records.py`
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import orjson

from replicad.errors import (
    ConfigurationError,
    DataDirectoryBusyError,
    DiskFailedError,
    DiskSuspectError,
    ForeignClusterError,
    ProtocolViolationError,
)
from replicad.storage.durable import disk_errors, make_directory, replace_file, sync_directory
from replicad.storage.sealed import seal, unseal

DIRECTORY_FORMAT: Final = 2
LOG_DIRECTORY: Final = "log"
QUARANTINE: Final = "quarantine"


class Trouble(Enum):
    """What is wrong with a disk."""

    UNSYNCED = "unsynced"
    """A sync failed: after the sync mark, what is read may not be what the disk holds."""
    CORRUPT = "corrupt"
    """Bytes that were known to be synced are damaged or gone."""
    IDENTITY = "identity"
    """`replica.json` or `epoch` is damaged or gone: what this disk promised cannot be known."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a disk is not trusted.

    Attributes:
        trouble: What kind of damage.
        reason: What was seen, for people.
        disk_id: The disk's id when this was seen; "" if it could not be known.
        time: When, such as 20261123T080000Z; part of the quarantine's name.
    """

    trouble: Trouble
    reason: str
    disk_id: str
    time: str


@dataclass(frozen=True, slots=True)
class _Identity:
    format: int
    node: str
    disk_id: str
    cluster_id: str


class DataDirectory:
    """A locked data directory; nobody else can open it until `close`."""

    def __init__(
        self,
        path: Path,
        lock: int,
        identity: _Identity,
        epoch: int,
        suspicion: Suspicion | None,
    ) -> None:
        """Use `open`."""
        self._path = path
        self._lock = lock
        self._identity = identity
        self._epoch = epoch
        self._suspicion = suspicion

    @classmethod
    def open(cls, path: Path, node: str) -> Self:
        """Lock the directory of `node`; create it, with a new disk id, if there is none.

        A damaged one is opened too, with a `suspicion`; nothing of it is changed.

        Raises:
            DataDirectoryBusyError: Another process, or this one, holds it.
            ForeignClusterError: It belongs to another node.
            ConfigurationError: It cannot be created, or was made by another version.
            DiskFullError: It is new and there is no room for it.
            DiskFailedError: It cannot be read, or could not be synced.
        """
        lock = _lock(path)
        try:
            if not _is_used(path):
                return cls(path, lock, *_new(path, node), None)
            identity = _read_identity(path)
            suspicion = _read_suspicion(path, identity.disk_id if identity else "")
            if identity is None:
                why = "replica.json is damaged or gone"
                suspicion = suspicion or _suspicion(Trouble.IDENTITY, why, "")
                identity = _Identity(DIRECTORY_FORMAT, node, "", "")
            if identity.node != node:
                raise ForeignClusterError(
                    f"{path} belongs to replica {identity.node!r}, not to {node!r}"
                )
            epoch = _read_epoch(path)
            if epoch is None:
                why = "the file epoch is damaged or gone"
                suspicion = suspicion or _suspicion(Trouble.IDENTITY, why, identity.disk_id)
            return cls(path, lock, identity, epoch or 0, suspicion)
        except BaseException:
            os.close(lock)
            raise

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
        """32 hex digits, random, made with the directory; "" if a suspect one has lost it."""
        return self._identity.disk_id

    @property
    def cluster_id(self) -> str:
        """The cluster its log belongs to; "" before `adopt_cluster`."""
        return self._identity.cluster_id

    @property
    def epoch(self) -> int:
        """The highest epoch persisted; 0 if a suspect directory has lost it."""
        return self._epoch

    @property
    def suspicion(self) -> Suspicion | None:
        """Why the disk is not trusted; None if it is."""
        return self._suspicion

    @property
    def is_replaced(self) -> bool:
        """Whether a suspect disk has its new id already: a repair has begun."""
        return self._suspicion is not None and self.disk_id not in ("", self._suspicion.disk_id)

    @property
    def quarantine(self) -> Path:
        """Where a suspect directory's damaged files belong."""
        if self._suspicion is None:
            raise ProtocolViolationError("a disk that is trusted has no quarantine")
        name = f"{self._suspicion.time}-{self._suspicion.disk_id or 'unknown'}"
        return self._path / QUARANTINE / name

    def suspect(self, trouble: Trouble, reason: str) -> None:
        """Do not trust this disk any more; the first suspicion stands. Nothing is written."""
        if self._suspicion is None:
            self._suspicion = _suspicion(trouble, reason, self.disk_id)

    def mark_suspect(self) -> None:
        """Leave a mark, so that the suspicion outlives this process; durable if that is possible.

        A disk that does not sync may still take the mark. That is enough: what is read may differ
        from what the disk holds only as long as the kernel remembers it, and so long it remembers
        the mark, too.

        Raises:
            DiskFullError, DiskFailedError: The next process knows nothing of it.
        """
        if self._suspicion is None:
            return
        path, data = self._path / "suspect", orjson.dumps(self._suspicion) + b"\n"
        try:
            replace_file(path, data)
        except DiskSuspectError:
            with disk_errors(f"write {path}"):
                path.write_bytes(data)

    def replace_disk(self, cluster_id: str, epoch: int) -> None:
        """Give a suspect disk a new id, which no ISR names; durable on return.

        Args:
            cluster_id: The cluster that the data belong to.
            epoch: The coordinator's; persisted unless a higher one is.

        Raises:
            ForeignClusterError: It is bound to another cluster.
            DiskFullError, DiskFailedError: As for `replace_file`; to be begun again.
        """
        if self._suspicion is None:
            raise ProtocolViolationError("a disk that is trusted keeps its id")
        if self.cluster_id not in ("", cluster_id):
            raise self._foreign(cluster_id)
        self.mark_suspect()  # So that an interrupted repair goes on.
        # Whatever was promised before, also if it is lost: the new disk acks nothing below this.
        self._epoch = max(self._epoch, epoch)
        replace_file(self._path / "epoch", seal(b"%d" % self._epoch))
        disk_id = secrets.token_hex(16)
        self._store(_Identity(DIRECTORY_FORMAT, self.node, disk_id, cluster_id))

    def trust(self) -> None:
        """The disk is repaired, or turned out to be good: no suspicion is left.

        Raises:
            DiskFailedError: The outcome is unknown.
        """
        with disk_errors(f"end the repair of {self._path}"):
            (self._path / "suspect").unlink(missing_ok=True)
        sync_directory(self._path)
        self._suspicion = None

    def adopt_cluster(self, cluster_id: str) -> None:
        """Bind the directory to a cluster for good; durable on return.

        Raises:
            ForeignClusterError: It is bound to another one.
            DiskFullError, DiskFailedError: As for `replace_file`.
        """
        if self.cluster_id == cluster_id:
            return
        if self.cluster_id:
            raise self._foreign(cluster_id)
        self._store(replace(self._identity, cluster_id=cluster_id))

    def persist_epoch(self, epoch: int) -> None:
        """Make `epoch` durable before returning; a lower one than before changes nothing.

        Raises:
            DiskFullError: No room; the epoch is as it was.
            DiskFailedError: The outcome is unknown.
        """
        if epoch > self._epoch:
            replace_file(self._path / "epoch", seal(b"%d" % epoch))
            self._epoch = epoch

    def free_bytes(self) -> int:
        """What this process may still write to the file system."""
        room = os.statvfs(self._path)
        return room.f_bavail * room.f_frsize

    def close(self) -> None:
        """Let others have the directory. Call once."""
        os.close(self._lock)

    def _store(self, identity: _Identity) -> None:
        replace_file(self._path / "replica.json", _encode(identity))
        self._identity = identity

    def _foreign(self, cluster_id: str) -> ForeignClusterError:
        return ForeignClusterError(
            f"{self._path} belongs to cluster {self.cluster_id}, not to {cluster_id}"
        )


def _suspicion(trouble: Trouble, reason: str, disk_id: str) -> Suspicion:
    return Suspicion(trouble, reason, disk_id, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


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


def _is_used(path: Path) -> bool:
    # With a new identity an old log would pass for a new, empty disk's.
    return any((path / name).exists() for name in ("replica.json", LOG_DIRECTORY, "suspect"))


def _new(path: Path, node: str) -> tuple[_Identity, int]:
    identity = _Identity(DIRECTORY_FORMAT, node, secrets.token_hex(16), "")
    # The epoch first: a directory that has an identity has an epoch, so a lost one is noticed.
    replace_file(path / "epoch", seal(b"0"))
    replace_file(path / "replica.json", _encode(identity))
    return identity, 0


def _read_identity(path: Path) -> _Identity | None:
    """What replica.json says; None if it is gone or damaged.

    Raises:
        ConfigurationError: It is whole, and was made by another version.
    """
    try:
        fields = orjson.loads(_read(path / "replica.json") or b"")
        is_whole = fields.pop("sha256", None) == _check_of(fields)
        if is_whole and fields["format"] != DIRECTORY_FORMAT:
            raise ConfigurationError(
                f"{path} has format {fields['format']}; need format {DIRECTORY_FORMAT}"
            )
        return _Identity(**fields) if is_whole else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _encode(identity: _Identity) -> bytes:
    fields = asdict(identity)
    return orjson.dumps({**fields, "sha256": _check_of(fields)}) + b"\n"


def _check_of(fields: dict[str, object]) -> str:
    """Tells whether a bit of the identity has changed on the disk."""
    return sha256(orjson.dumps(fields)).hexdigest()


def _read_epoch(path: Path) -> int | None:
    text = unseal(_read(path / "epoch") or b"")
    return int(text) if text is not None and text.isdigit() else None


def _read_suspicion(path: Path, disk_id: str) -> Suspicion | None:
    data = _read(path / "suspect")
    if data is None:
        return None
    try:
        fields = orjson.loads(data)
        return Suspicion(**{**fields, "trouble": Trouble(fields["trouble"])})
    except (ValueError, TypeError, KeyError):
        # The worst that it can have said.
        return _suspicion(Trouble.UNSYNCED, "the file suspect is damaged", disk_id)


def _read(path: Path) -> bytes | None:
    """A file's content; None if it is not there, nothing if the device cannot read it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise DiskFailedError(f"cannot read {path}: {error}") from error
