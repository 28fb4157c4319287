"""What ZooKeeper holds: the configuration, the state, and who is alive.

Source: docs/protocol.md, "Coordination state".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import orjson

FORMAT_VERSION = 1
# Part of znodes, queue names and routing keys; `log.all` is the key of the stream to everyone.
NODE_NAME = re.compile(r"(?!all\Z)[a-z0-9][a-z0-9-]{0,31}")


class Disk(NamedTuple):
    """A replica's durable identity: a node name means nothing once its directory was wiped."""

    node: str
    disk_id: str


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The znode `config`.

    Attributes:
        cluster_id: Random, made once; the log's first digest derives from it.
        replicas: Names of all configured replicas, sorted.
        min_in_sync: The stored ISR never shrinks below this many members.
        format_version: Of the log and of the messages.
    """

    cluster_id: str
    replicas: tuple[str, ...]
    min_in_sync: int
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """The bytes of the znode."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, data: bytes) -> ClusterConfig:
        """The inverse of `to_json`."""
        fields = orjson.loads(data)
        return cls(**{**fields, "replicas": tuple(fields["replicas"])})


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The znode `state`: who leads, in which epoch, and who is in sync.

    Attributes:
        epoch: 0 before the first election; only ever grows.
        leader: The leader's name; None before the first election after init or adopt.
        incarnation: Which run of the leader's process.
        url: The leader's HTTP address.
        isr: The in-sync replicas with the disks that count, in the order they joined.
        nonce: Random for each proposal: tells one's own write after a lost reply.
    """

    epoch: int
    leader: str | None
    incarnation: str | None
    url: str | None
    isr: tuple[Disk, ...]
    nonce: str

    def to_json(self) -> bytes:
        """The bytes of the znode."""
        # orjson refuses named tuples by itself.
        return orjson.dumps(self, default=tuple)

    @classmethod
    def from_json(cls, data: bytes) -> ClusterState:
        """The inverse of `to_json`."""
        fields = orjson.loads(data)
        return cls(**{**fields, "isr": tuple(Disk(*pair) for pair in fields["isr"])})


@dataclass(frozen=True, slots=True)
class Member:
    """A living process: the ephemeral znode `members/<node>-<incarnation>`.

    Attributes:
        node, incarnation, url: Name, random id of this run, and HTTP address.
        disk_id: Of the data directory it holds.
        last_index: Where its log ended when it registered; 0 for an empty directory.
        last_epoch: The epoch of its last entry when it registered; 0 when there is none.
        last_digest: Of its last entry when it registered, in hex; "" when there is none.
        epoch: The highest epoch it had persisted when it registered.
        cluster_id: The cluster its data belong to; "" for an empty directory.
    """

    node: str
    incarnation: str
    url: str
    disk_id: str
    last_index: int
    last_epoch: int
    last_digest: str
    epoch: int
    cluster_id: str

    def to_json(self) -> bytes:
        """The bytes of the znode."""
        return orjson.dumps(self, default=tuple)

    @classmethod
    def from_json(cls, data: bytes) -> Member:
        """The inverse of `to_json`."""
        return cls(**orjson.loads(data))


@dataclass(frozen=True, slots=True)
class View:
    """One reading of the coordinator, begun and ended together.

    Attributes:
        config: None before the cluster's first start.
        state: None before the cluster's first start.
        version: Of the state; -1 when there is none. Only ever grows.
        members: The living processes, sorted by node and incarnation.
    """

    config: ClusterConfig | None
    state: ClusterState | None
    version: int
    members: tuple[Member, ...]


def majority(replicas: int) -> int:
    """The default of min_in_sync: 2 of 3, 3 of 5."""
    return replicas // 2 + 1
