"""What several groups on several machines would bear, computed from measured figures. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from itertools import pairwise
from math import ceil
from typing import Final

REPLICAS: Final = 3
_US: Final = 1e6
_MIB: Final = 2**20
# What is computed with a machine fully busy holds no latency; up to here queues stay short.
BUSY_MAX: Final = 0.7
_NETWORK_BYTES: Final = 125e6
# Of a session of 2 s: kazoo sends a ping when a third of it has passed.
_PINGS: Final = 1.5
DIGEST_AND_POSITION_BYTES: Final = 40
_ROW: Final = re.compile(r"^\| [^|]*\| `(\w+)` \| ([\d.,]+) \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; the first table of docs/scaling.md.

    Attributes:
        gateway_us, leader_us, follower_us, rabbitmq_us: Processor time of a single write at 64
            connections, in microseconds; that of one follower.
        batch_writes: Writes that share a message and a sync at 64 connections.
        entry_bytes: Of a log line with a form.
        two_groups_full: Processor time of a write, all processes, when two groups have as many
            connections each, over that of one group.
        two_groups_thin: The same when they share these connections.
        rabbitmq_message_us: Processor time of a message to two queues, at 1 KiB.
        rabbitmq_kib_us: What each further KiB adds.
        idle_group_ms: Processor time a second of an idle group's three replicas and gateway.
        idle_servers_ms: What that group adds to RabbitMQ and ZooKeeper.
        zookeeper_requests: That one failover of one group costs, with one gateway.
        zookeeper_request_us: Processor time of ZooKeeper for one of them.
        syncs_1, syncs_3, syncs_10, syncs_30: fdatasyncs a second of one disk, all together, by as
            many processes that append to a file each.
        replica_mib, gateway_mib: Resident memory of a process that holds nothing.
        cache_mib: What SQLite's cache of a replica grows to.
        import_records: Records a second that a group takes from an import.
        failover_ms: Without writes, after the leader was killed.
        transfer_ms: Without writes, at a transfer.
    """

    gateway_us: float
    leader_us: float
    follower_us: float
    rabbitmq_us: float
    batch_writes: float
    entry_bytes: float
    two_groups_full: float
    two_groups_thin: float
    rabbitmq_message_us: float
    rabbitmq_kib_us: float
    idle_group_ms: float
    idle_servers_ms: float
    zookeeper_requests: float
    zookeeper_request_us: float
    syncs_1: float
    syncs_3: float
    syncs_10: float
    syncs_30: float
    replica_mib: float
    gateway_mib: float
    cache_mib: float
    import_records: float
    failover_ms: float
    transfer_ms: float

    @classmethod
    def read(cls, page: str) -> Figures:
        """From rows `| what | `name` | value | ... |` of a page in Markdown.

        Raises:
            KeyError: A figure is missing.
        """
        found = {name: float(value.replace(",", "")) for name, value in _ROW.findall(page)}
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    @property
    def write_us(self) -> float:
        """Processor time of one write over all processes of a group, and RabbitMQ."""
        followers = (REPLICAS - 1) * self.follower_us
        return self.gateway_us + self.leader_us + followers + self.rabbitmq_us

    @property
    def idle_us(self) -> float:
        """Processor time a second of a group that does nothing."""
        return 1000 * (self.idle_group_ms + self.idle_servers_ms)

    @property
    def leader_writes(self) -> float:
        """Writes a second at which the leader's process keeps one core busy."""
        return _US / self.leader_us

    @property
    def group_cores(self) -> float:
        """Cores that a group keeps busy when its leader's is."""
        return self.write_us / self.leader_us

    def syncs(self, processes: float) -> float:
        """fdatasyncs a second of one disk by as many processes; between those measured, linear."""
        measured = [(1, self.syncs_1), (3, self.syncs_3), (10, self.syncs_10), (30, self.syncs_30)]
        if processes <= 1:
            return self.syncs_1
        for (low, below), (high, above) in pairwise(measured):
            if processes <= high:
                return below + (above - below) * (processes - low) / (high - low)
        return self.syncs_30


@dataclass(frozen=True, slots=True)
class Shape:
    """Groups of three on machines that are alike; all processes are spread over all of them.

    Attributes:
        groups, nodes: How many of each.
        cores: Of one machine.
    """

    groups: int
    nodes: int
    cores: int

    @property
    def replicas_a_node(self) -> int:
        """Replicas on the fullest machine."""
        return ceil(self.groups * REPLICAS / self.nodes)

    @property
    def leaders_a_node(self) -> int:
        """Leaders on the fullest machine, balanced."""
        return ceil(self.groups / self.nodes)


def limits(figures: Figures, shape: Shape) -> dict[str, float]:
    """Writes a second, over all groups, at which each resource is used up.

    - cores: all of them, up to BUSY_MAX, less what idle groups need.
    - leaders: each leader's event loop, one core each, up to BUSY_MAX.
    - disk: of the fullest node, as many syncs as its replicas' batches need. What waits while the
      disk is busy goes into the next batch, so this limit recedes when it is reached.
    - RabbitMQ: all cores of a machine of its own, for one server.
    - network: 1 Gbit/s out of that machine, each line to two followers.
    """
    cores = shape.cores * shape.nodes
    busy = BUSY_MAX * cores * _US - shape.groups * figures.idle_us
    syncs_a_write = shape.replicas_a_node / shape.groups / figures.batch_writes
    return {
        "cores": max(0.0, busy / figures.write_us),
        "leaders": shape.groups * BUSY_MAX * figures.leader_writes,
        "disk": figures.syncs(shape.replicas_a_node) / syncs_a_write,
        "RabbitMQ": BUSY_MAX * shape.cores * _US / figures.rabbitmq_us,
        "network": BUSY_MAX * _NETWORK_BYTES / ((REPLICAS - 1) * figures.entry_bytes),
    }


def message_us(figures: Figures, writes: float) -> float:
    """RabbitMQ's processor time for one message to two followers, with as many writes."""
    kib = max(0.0, writes * figures.entry_bytes / 1024 - 1)
    return figures.rabbitmq_message_us + kib * figures.rabbitmq_kib_us


def node_memory_mib(figures: Figures, shape: Shape, entries: int) -> float:
    """Of the fullest node: replicas with as many entries a group in the log, and one gateway."""
    index = entries * DIGEST_AND_POSITION_BYTES / _MIB
    replica = figures.replica_mib + figures.cache_mib + index
    return shape.replicas_a_node * replica + figures.gateway_mib


def stampede_ms(figures: Figures, shape: Shape, gateways: int) -> float:
    """ZooKeeper's processor time for the elections after the loss of the fullest node.

    Each group's watchers, its replicas and all gateways, read everything again after each change.
    Where replicas lead nothing, they leave the in-sync set of their groups, by a change as well.
    """
    watchers = (REPLICAS + gateways) / (REPLICAS + 1)
    requests = shape.replicas_a_node * figures.zookeeper_requests * watchers
    return requests * figures.zookeeper_request_us / 1000


def coordinator_requests(groups: int, gateways: int) -> float:
    """Requests a second to ZooKeeper when nothing happens.

    Each replica and each gateway has a session with each group of its own; each leader notes once a
    second up to where changes are published.
    """
    return groups * ((REPLICAS + gateways) * _PINGS + 1)


def move_s(figures: Figures, records: int) -> float:
    """How long one group takes to receive as many records of another one."""
    return records / figures.import_records
