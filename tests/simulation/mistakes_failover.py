"""Mistakes in who leads, when, and on which disk (rules 4, 5, 8, 12, 13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from replicad.core import follower, isr, leader, replica
from replicad.core.cluster import ClusterState, View
from replicad.core.context import Context
from replicad.core.effects import Effect, PersistEpoch, Refusal
from replicad.core.election import Election
from replicad.core.entry import Opening, format_time
from replicad.core.events import ProbeFinished
from replicad.core.messages import Append
from replicad.core.probing import Probes
from tests.simulation.disk import Disk
from tests.simulation.node import Node


def epoch_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: the highest epoch seen survives a restart."""
    original = Node._run_one

    def run_one(self: Node, effect: Effect) -> None:
        if not isinstance(effect, PersistEpoch):
            original(self, effect)

    patch.setattr(Node, "_run_one", run_one)


def no_epoch_fence(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: lower epochs are rejected; here a follower serves any leader in its epoch."""
    original = replica.Replica._on_append

    def on_append(self: replica.Replica, append: Append) -> None:
        context, role = self._context, self._role
        if append.epoch < context.epoch and isinstance(role, follower.Follower):
            persisted, context.epoch = context.epoch, append.epoch
            role.on_append(append)
            context.epoch = persisted
            return
        original(self, append)

    patch.setattr(replica.Replica, "_on_append", on_append)


def stale_state_adopted(patch: pytest.MonkeyPatch) -> None:
    """Coordination state: a version below one already seen counts for nothing.

    Two guards are removed. The one in `Replica._on_view` alone is not missed: a leader's ISR has
    its own, a follower goes by the epoch, and a candidacy on an old version is refused.
    """
    adopt = isr.InSyncSet.adopt
    on_view = replica.Replica._on_view

    def adopt_any(self: isr.InSyncSet, state: ClusterState, version: int) -> None:
        if version < self.version:
            self.version = version - 1
        adopt(self, state, version)

    def on_any_view(self: replica.Replica, view: View) -> None:
        if view.version < self._view.version:
            self._view = view
        on_view(self, view)

    patch.setattr(isr.InSyncSet, "adopt", adopt_any)
    patch.setattr(replica.Replica, "_on_view", on_any_view)


def epoch_persisted_after_what_it_allows(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: the epoch is durable before anything else of its step happens."""
    original = Node._run

    def run(self: Node, effects: list[Effect]) -> None:
        original(self, sorted(effects, key=lambda effect: isinstance(effect, PersistEpoch)))

    patch.setattr(Node, "_run", run)


def restarted_leader_resumes_its_epoch(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: a restarted process leads only by a new election."""
    original = replica.Replica._on_view

    def on_view(self: replica.Replica, view: View) -> None:
        original(self, view)
        context, state = self._context, view.state
        me = context.me
        if state is None or self.leads or view.version < self._view.version:
            return
        mine = (state.leader, state.epoch) == (me.node, context.epoch)
        if mine and state.incarnation != me.incarnation and me.disk in state.isr:
            opening = Opening(me.node, me.incarnation, "resumed", None, 0, (), (), None)
            self._role = leader.Leader(context, state, view.version, opening)

    patch.setattr(replica.Replica, "_on_view", on_view)


def empty_disk_electable(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: the ISR names disks, not nodes."""
    original = Election._may_stand

    def may_stand(self: Election, state: ClusterState) -> bool:
        disk = self._context.me.disk
        if any(member.node == disk.node for member in state.isr):
            state = replace(state, isr=(*state.isr, disk))
        return original(self, state)

    patch.setattr(Election, "_may_stand", may_stand)


def silence_taken_for_death(patch: pytest.MonkeyPatch) -> None:
    """Rule 5: a paused leader is silent, too."""

    def proves_death(self: Probes, finished: ProbeFinished, heard_at: float) -> bool:
        return heard_at < finished.asked_at

    patch.setattr(Probes, "proves_death", proves_death)


def probe_trusted_although_the_own_connection_was_down(patch: pytest.MonkeyPatch) -> None:
    """Rule 5: a broker that restarts takes everybody's queues away."""

    def proves_death(self: Probes, finished: ProbeFinished, heard_at: float) -> bool:
        return finished.gone and heard_at < finished.asked_at

    patch.setattr(Probes, "proves_death", proves_death)


def writes_taken_while_handing_over(patch: pytest.MonkeyPatch) -> None:
    """Rule 5: the successor's log never reaches the end of one that grows."""
    patch.setattr(leader.Leader, "refusal", _refusal_without_transfer(leader.Leader.refusal))


def time_goes_back(patch: pytest.MonkeyPatch) -> None:
    """The log: times never decrease, whatever the clocks say."""
    patch.setattr(Context, "wall_time", lambda self: format_time(self.unix_ms))


def damaged_disk_keeps_its_id(patch: pytest.MonkeyPatch) -> None:
    """Rule 8: what was lost must not be counted as held."""
    original = Disk.replace

    def keep(self: Disk, disk_id: str, epoch: int) -> None:
        original(self, self.disk_id, epoch)

    patch.setattr(Disk, "replace", keep)


def damage_taken_for_a_torn_tail(patch: pytest.MonkeyPatch) -> None:
    """Rule 8: what was synced or committed is never cut at a restart."""
    patch.setattr(Disk, "_floors", lambda self, named: ())


def failed_sync_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Rule 8: after a failed sync the page cache shows what the disk does not hold."""
    patch.setattr(Disk, "is_suspect", property(lambda self: self.epoch_lost))


def _refusal_without_transfer(
    original: Callable[[leader.Leader], Refusal | None],
) -> Callable[[leader.Leader], Refusal | None]:
    def refusal(self: leader.Leader) -> Refusal | None:
        until, self.transfer._until = self.transfer._until, float("-inf")
        reason = original(self)
        self.transfer._until = until
        return reason

    return refusal


FAILOVER = (
    epoch_not_persisted,
    no_epoch_fence,
    stale_state_adopted,
    epoch_persisted_after_what_it_allows,
    restarted_leader_resumes_its_epoch,
    empty_disk_electable,
    time_goes_back,
    damaged_disk_keeps_its_id,
    damage_taken_for_a_torn_tail,
    failed_sync_forgotten,
)

NEEDLESS = (
    silence_taken_for_death,
    probe_trusted_although_the_own_connection_was_down,
    writes_taken_while_handing_over,
)
"""Nothing is lost by these. That a healthy cluster copes worse is seen in a calm."""
