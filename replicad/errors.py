"""Every error that replicad raises on purpose.

    ReplicadError
    |-- ConfigurationError          what the operator gave cannot work; says what to change
    |   |-- DataDirectoryBusyError      another process holds the data directory
    |   |-- NodeNameTakenError          a living replica has this name and another disk
    |   |-- ForeignClusterError         this data directory belongs to another cluster
    |   `-- NotInitialisedError         there is data, but ZooKeeper knows no such cluster
    |-- CorruptLogError             bytes that were known to be synced are damaged
    |-- DiskFullError               no room; nothing was kept of what was being written
    |-- DiskFailedError             the disk does not do its work; the process must end
    |   `-- DiskSuspectError            a sync failed, or the device reports an error
    |-- DamagedDiskError            a suspect disk that must not be repaired from others
    |-- RecordsDamagedError         the derived record store is broken; rebuild it from the log
    |-- SnapshotDamagedError        a snapshot is not what it must be; delete it and get another
    |-- SnapshotUnavailableError    no peer could give a snapshot; what arrived of it is kept
    |-- WorkerFailedError           a background process ended without an answer; try later
    |-- LogFrontGoneError           what is asked for stood in a part of the log that was dropped
    |-- MalformedQueryError         what should be a query, or a cursor of one, is none
    |-- QueryRefusedError           a query that this collection cannot answer; says why
    |-- MalformedEntryError         a line that is not a log entry, or whose digest is wrong
    |-- MalformedMessageError       a peer sent something that is not a protocol message
    |-- ProtocolViolationError      a state that the protocol excludes; the replica halts
    |-- CoordinationError           ZooKeeper did not answer; the outcome is unknown
    |-- ReplicaUnavailableError     a replica did not answer an operator, or would not
    |-- BrokerError                 RabbitMQ did not answer
    `-- StackError                  a local cluster could not be started or stopped

Whoever catches one names the branch that it can act on.
"""

from __future__ import annotations


class ReplicadError(Exception):
    """Base of all errors that replicad raises on purpose."""


class ConfigurationError(ReplicadError):
    """What the operator gave cannot work. The message says what to change."""


class DataDirectoryBusyError(ConfigurationError):
    """Another process holds the lock of the data directory."""


class NodeNameTakenError(ConfigurationError):
    """A living replica is registered under this name with another disk id."""


class ForeignClusterError(ConfigurationError):
    """The data directory was created by another cluster or another node."""


class NotInitialisedError(ConfigurationError):
    """There is data on disk, but ZooKeeper holds no state for this cluster."""


class CorruptLogError(ReplicadError):
    """Bytes of the log that were known to be synced are damaged. Never cut, never skipped."""


class DiskFullError(ReplicadError):
    """There was no room. Whatever part had been written is removed again."""


class DiskFailedError(ReplicadError):
    """A file cannot be opened, read, written or synced. The process ends; nothing is retried."""


class DiskSuspectError(DiskFailedError):
    """A sync failed, or the device reports an I/O error: the disk may not hold what is read.

    Pages may be lost although a second sync would succeed.
    """


class DamagedDiskError(ReplicadError):
    """A disk is suspect, and no other replica is known to hold what it held. Nothing was changed.

    The message says what an operator can do.
    """


class RecordsDamagedError(ReplicadError):
    """The record store's file is damaged or gone. It is derived: `reset` it and apply the log."""


class SnapshotDamagedError(ReplicadError):
    """A snapshot or its manifest is not what it must be. It is derived: delete it, get another."""


class SnapshotUnavailableError(ReplicadError):
    """No peer could give a whole and right snapshot. What arrived of it is kept."""


class WorkerFailedError(ReplicadError):
    """A background process ended without an answer. What it was to make is not there."""


class LogFrontGoneError(ReplicadError):
    """The log begins after what is asked for: retention has dropped that."""


class MalformedQueryError(ReplicadError):
    """What should be a query, or a cursor of one, is none."""


class QueryRefusedError(ReplicadError):
    """A query that is well-formed, and that this collection cannot answer.

    Attributes:
        reason: A `core.query.Refused`.
        fields: Which fields it is about.
    """

    def __init__(self, reason: str, fields: tuple[str, ...] = ()) -> None:
        """Take both."""
        super().__init__(reason, fields)
        self.reason = reason
        self.fields = fields


class MalformedEntryError(ReplicadError):
    """A line is not a log entry, or its digest does not follow from its bytes."""


class MalformedMessageError(ReplicadError):
    """A peer sent something that is not a message of the replication protocol."""


class ProtocolViolationError(ReplicadError):
    """Something happened that the protocol excludes. The replica halts rather than guess."""


def require(condition: bool, message: str) -> None:
    """Check an invariant of the protocol; unlike `assert` it is never optimised away.

    Raises:
        ProtocolViolationError: The condition does not hold.
    """
    if not condition:
        raise ProtocolViolationError(message)


class CoordinationError(ReplicadError):
    """ZooKeeper gave no answer. A change that was under way may or may not have happened."""


class ReplicaUnavailableError(ReplicadError):
    """A replica did not answer an operator's request, or refused it."""


class BrokerError(ReplicadError):
    """RabbitMQ gave no answer, or refused what was asked of it."""


class StackError(ReplicadError):
    """A local cluster could not be started, found or stopped."""
