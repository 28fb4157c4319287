"""Whether a replica may repair its suspect disk from others (rule 8).

A repair gives the disk a new id, which no ISR names, and so gives up its say in who may lead. That
is right only if somebody else who is in sync can lead: otherwise what this disk holds may be all
that there is.
"""

from __future__ import annotations

from enum import Enum

from replicad.core.cluster import Disk, View
from replicad.errors import DamagedDiskError, ForeignClusterError


class Verdict(Enum):
    """What to do with a suspect disk."""

    REPAIR = "repair"
    """Another in-sync replica is there, or nobody counts on this disk."""
    WAIT = "wait"
    """Other replicas are in sync, but none of them is registered."""


def judge_repair(view: View, disk: Disk, cluster_id: str) -> Verdict:
    """Decide about a suspect disk that still has its old id.

    Args:
        view: What the coordinator holds now.
        disk: The suspect disk; its id is "" if it could not be read.
        cluster_id: The cluster that its data belong to; "" if it could not be read.

    Raises:
        DamagedDiskError: It is the only in-sync replica, or nobody knows whether it is.
        ForeignClusterError: Its data belong to another cluster.
    """
    if view.config is None or view.state is None:
        raise DamagedDiskError(
            f"the disk of {disk.node} is damaged, and ZooKeeper knows no cluster that could tell "
            "whether others hold what it held. Nothing was changed. If ZooKeeper lost its data, "
            f"move the directory of {disk.node} aside, start it empty, and run: "
            "replicad cluster adopt"
        )
    if cluster_id not in ("", view.config.cluster_id):
        raise ForeignClusterError(
            f"the damaged disk of {disk.node} belongs to cluster {cluster_id}, not to "
            f"{view.config.cluster_id}"
        )
    isr = view.state.isr
    others = [member for member in isr if member.node != disk.node]
    if disk not in isr and (disk.disk_id or len(others) == len(isr)):
        return Verdict.REPAIR
    if not others:
        raise DamagedDiskError(
            f"the disk of {disk.node} is damaged, and no other replica is in sync: it may hold "
            "acknowledged records that nobody else has. Nothing was changed. Restore the disk; or "
            "give up what is damaged: replicad disk quarantine, then replicad cluster recover"
        )
    registered = {Disk(member.node, member.disk_id) for member in view.members}
    return Verdict.REPAIR if any(member in registered for member in others) else Verdict.WAIT
