"""How a cluster begins: at its first start, and again after it lost its state or all in sync.

All three are decided here, from what the living replicas registered, and nowhere else: a cluster
that made itself anew whenever `state` was missing would sooner or later do so on top of old data.

Source: docs/protocol.md, "Coordination state".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from replicad.core.cluster import NODE_NAME, ClusterConfig, ClusterState, Disk, Member, View
from replicad.errors import ConfigurationError, ForeignClusterError, NotInitialisedError


@dataclass(frozen=True, slots=True)
class Beginning:
    """What is to be written, config and state together."""

    config: ClusterConfig
    state: ClusterState


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is to be written when all in-sync disks are lost, and what that gives up.

    Attributes:
        state: The new state: the chosen replica alone is in sync.
        given_up: The disks that were in sync; what only they hold is lost.
        last_index: Where the chosen replica's log ends.
    """

    state: ClusterState
    given_up: tuple[Disk, ...]
    last_index: int


def missing_replicas(replicas: Iterable[str], members: Iterable[Member]) -> tuple[str, ...]:
    """The configured replicas of which no living process is registered, sorted."""
    return tuple(sorted(set(replicas) - {member.node for member in members}))


def plan_first_start(
    replicas: tuple[str, ...],
    min_in_sync: int,
    members: tuple[Member, ...],
    *,
    cluster_id: str,
    nonce: str,
) -> Beginning:
    """A new cluster: every configured replica is there, empty, and in sync.

    Args:
        replicas: The names of all replicas.
        min_in_sync: The stored ISR never shrinks below this many.
        members: The living processes; those of other names do not count.
        cluster_id: Random, for good.
        nonce: Random.

    Raises:
        ConfigurationError: A replica is missing, or min_in_sync does not fit.
        NotInitialisedError: A replica holds data: the cluster is not new.
    """
    registered = _registered(replicas, min_in_sync, members)
    full = [member.node for member in registered if member.last_index or member.cluster_id]
    if full:
        raise NotInitialisedError(
            f"{', '.join(full)} hold data of an earlier cluster, but ZooKeeper knows none. If it "
            "lost its data, run `replicad cluster adopt`; to begin anew, empty the data directories"
        )
    isr = tuple(Disk(member.node, member.disk_id) for member in registered)
    return Beginning(
        ClusterConfig(cluster_id, tuple(sorted(replicas)), min_in_sync),
        ClusterState(epoch=0, leader=None, incarnation=None, url=None, isr=isr, nonce=nonce),
    )


def plan_adoption(
    replicas: tuple[str, ...], min_in_sync: int, members: tuple[Member, ...], *, nonce: str
) -> Beginning:
    """Continue a cluster whose `config` and `state` are lost.

    In sync are those whose log ends highest by (epoch, index): an entry of the highest epoch was
    written by a leader that held everything committed before, and of two logs that end in one
    epoch the longer holds the shorter. The others catch up. So nothing acknowledged is missing,
    as long as one replica that holds it is among them: every acknowledged entry is on at least
    min_in_sync replicas, so fewer than that may have lost their data.

    Args:
        replicas: The names of all replicas, as before.
        min_in_sync: As before.
        members: The living processes.
        nonce: Random.

    Raises:
        ConfigurationError: A replica is missing, the replicas belong to several clusters, too many
            are empty, or logs that should be equal are not; or min_in_sync does not fit.
    """
    registered = _registered(replicas, min_in_sync, members)
    clusters = sorted({member.cluster_id for member in registered} - {""})
    if not clusters:
        raise ConfigurationError("no replica holds data: run `replicad cluster init`")
    if len(clusters) > 1:
        raise ConfigurationError(f"the replicas hold data of several clusters: {clusters}")
    empty = [member.node for member in registered if not member.last_index]
    if len(empty) >= min_in_sync:
        raise ConfigurationError(
            f"{', '.join(empty)} are empty: with min_in_sync {min_in_sync} an acknowledged record "
            "may have been on these replicas alone; bring back one of their data directories"
        )
    end = max((member.last_epoch, member.last_index) for member in registered)
    longest = [m for m in registered if (m.last_epoch, m.last_index) == end]
    if len({member.last_digest for member in longest}) > 1:
        names = ", ".join(member.node for member in longest)
        raise ConfigurationError(
            f"the logs of {names} end at epoch {end[0]}, index {end[1]} with different digests: "
            "one is damaged; move its data directory aside and start it empty"
        )
    epoch = max(max(member.epoch, member.last_epoch) for member in registered)
    isr = tuple(Disk(member.node, member.disk_id) for member in longest)
    return Beginning(
        ClusterConfig(clusters[0], tuple(sorted(replicas)), min_in_sync),
        ClusterState(epoch=epoch, leader=None, incarnation=None, url=None, isr=isr, nonce=nonce),
    )


def plan_recovery(view: View, lead: str, *, nonce: str) -> Recovery:
    """Let a replica lead that is not in sync, because nobody who is will come back.

    Acknowledged records that only the lost disks held are lost. So it is refused while anybody is
    registered who could lead without loss, or with less of it.

    Args:
        view: What the coordinator holds; each member's log position as it is now.
        lead: The replica that is to lead.
        nonce: Random.

    Raises:
        NotInitialisedError: The coordinator knows no such cluster.
        ConfigurationError: An in-sync replica is registered, `lead` is not, or another's log ends
            higher.
        ForeignClusterError: The replica holds data of another cluster.
    """
    if view.config is None or view.state is None:
        raise NotInitialisedError("ZooKeeper knows no such cluster: see `replicad cluster adopt`")
    members = {m.node: m for m in view.members if m.node in view.config.replicas}
    able = [m.node for m in members.values() if Disk(m.node, m.disk_id) in view.state.isr]
    if able:
        raise ConfigurationError(
            f"{', '.join(sorted(able))} is in sync and running: it can lead without any loss"
        )
    if lead not in members:
        raise ConfigurationError(f"{lead} is not registered as one of the cluster's replicas")
    chosen = members[lead]
    if chosen.cluster_id not in ("", view.config.cluster_id):
        raise ForeignClusterError(f"{lead} holds data of cluster {chosen.cluster_id}")
    best = max(members.values(), key=lambda m: (m.last_epoch, m.last_index, m.node == lead))
    if best.node != lead:
        raise ConfigurationError(
            f"the log of {best.node} ends at epoch {best.last_epoch}, index {best.last_index}, "
            f"that of {lead} at {chosen.last_epoch}, {chosen.last_index}: let {best.node} lead, or "
            "stop it first"
        )
    epoch = 1 + max(view.state.epoch, *(m.epoch for m in members.values()))
    isr = (Disk(lead, chosen.disk_id),)
    return Recovery(
        ClusterState(epoch=epoch, leader=None, incarnation=None, url=None, isr=isr, nonce=nonce),
        view.state.isr,
        chosen.last_index,
    )


def _registered(
    replicas: tuple[str, ...], min_in_sync: int, members: tuple[Member, ...]
) -> list[Member]:
    """One member for each configured replica, in the order of their names."""
    if len(set(replicas)) != len(replicas) or not replicas:
        raise ConfigurationError(f"replicas must be different names: {', '.join(replicas)}")
    if wrong := [name for name in replicas if not NODE_NAME.fullmatch(name)]:
        raise ConfigurationError(
            f"not a replica's name: {', '.join(wrong)}; "
            "use up to 32 of a-z, 0-9 and -, and not `all`"
        )
    if not 1 <= min_in_sync <= len(replicas):
        raise ConfigurationError(
            f"min_in_sync is {min_in_sync}; it must be from 1 to {len(replicas)}, the replicas"
        )
    missing = missing_replicas(replicas, members)
    if missing:
        raise ConfigurationError(f"not registered: {', '.join(missing)}")
    disks = {Disk(member.node, member.disk_id) for member in members if member.node in replicas}
    if len(disks) != len(replicas):
        raise ConfigurationError("a replica is registered twice, with different data directories")
    by_name = {member.node: member for member in members}
    return [by_name[name] for name in sorted(replicas)]
