"""Every error that replicad raises on purpose.

    ReplicadError
    |-- ConfigurationError          what the operator gave cannot work; says what to change
    |   |-- DataDirectoryBusyError      another process holds the data directory
    |   |-- NodeNameTakenError          a living replica has this name and another disk
    |   |-- ForeignClusterError         this data directory belongs to another cluster
    |   `-- NotInitialisedError         there is data, but ZooKeeper knows no such cluster
    |-- CorruptLogError             bytes that were known to be synced are damaged
    |-- DiskFullError               no room; nothing was kept of what was being written
    |-- DiskFailedError             a sync failed; the process must end, never try again
    |-- RecordsDamagedError         the derived record store is broken; rebuild it from the log
    |-- MalformedEntryError         a line that is not a log entry, or whose digest is wrong
    |-- MalformedMessageError       a peer sent something that is not a protocol message
    |-- ProtocolViolationError      a state that the protocol excludes; the replica halts
    |-- CoordinationError           ZooKeeper did not answer; the outcome is unknown
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
    """A sync failed: pages may be lost although a second sync would succeed. End the process."""


class RecordsDamagedError(ReplicadError):
    """The record store's file is damaged or gone. It is derived: `reset` it and apply the log."""


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


class BrokerError(ReplicadError):
    """RabbitMQ gave no answer, or refused what was asked of it."""


class StackError(ReplicadError):
    """A local cluster could not be started, found or stopped."""
