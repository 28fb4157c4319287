"""Mistakes of the protocol, planted into the production core one at a time.

A simulator that finds nothing proves nothing until it is shown to find what is there. Each mistake
here is one that a real system has shipped or that a rule of docs/protocol.md exists to prevent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from replicad.core import follower, isr, leader, membership, replica, rounds
from replicad.core.cluster import ClusterState, View
from replicad.core.effects import Effect, PersistEpoch, Send, TruncateLog
from replicad.core.events import Outcome, ProposalFinished
from replicad.core.followers import Followers, Progress
from replicad.core.messages import Ack, Append
from tests.simulation.node import Node

Mistake = Callable[[pytest.MonkeyPatch], None]
MISTAKES: dict[str, Mistake] = {}


def mistake(plant: Mistake) -> Mistake:
    """Register it under its name."""
    MISTAKES[plant.__name__] = plant
    return plant


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The core makes this mistake until the context ends."""
    with pytest.MonkeyPatch.context() as patch:
        MISTAKES[name](patch)
        yield


@mistake
def commit_on_first_ack(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: every member of the effective ISR must ack; here any one follower will do."""
    patch.setattr(leader, "min", _max_of_followers, raising=False)


@mistake
def leader_acks_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: the leader's own sync counts as its ack; here its append does."""
    original = leader.Leader._settle

    def settle(self: leader.Leader) -> None:
        context = self._context
        synced, context.synced = context.synced, context.log.last
        original(self)
        context.synced = synced

    patch.setattr(leader.Leader, "_settle", settle)


@mistake
def follower_acks_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: an ack speaks of what is on the disk; here of what was written."""

    def ack(self: follower.Follower, to: str) -> None:
        context = self._context
        matched = context.log.point(self._verified.index)
        disk = context.me.disk
        context.emit(Send(to, Ack(context.epoch, *disk, matched, self._round)))

    patch.setattr(follower.Follower, "_ack", ack)


@mistake
def acks_counted_by_node_name(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: acks count for a disk id; here an empty disk inherits its predecessor's acks."""
    original = Followers.note_ack

    def note_ack(self: Followers, ack: Ack, now: float) -> Progress:
        known = next((disk.disk_id for disk in self.progress if disk.node == ack.node), ack.disk_id)
        return original(self, Ack(ack.epoch, ack.node, known, ack.matched, ack.round), now)

    patch.setattr(Followers, "note_ack", note_ack)


@mistake
def shrink_counted_before_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: whom a shrink removes counts until the transaction has succeeded."""
    original = isr.InSyncSet._recompute

    def recompute(self: isr.InSyncSet) -> None:
        original(self)
        if self._in_doubt:
            self.effective = self._in_doubt[-1].isr

    patch.setattr(isr.InSyncSet, "_recompute", recompute)


@mistake
def proposal_in_doubt_taken_as_failed(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: no answer is not a refusal."""
    original = isr.InSyncSet.on_proposal

    def on_proposal(self: isr.InSyncSet, finished: ProposalFinished) -> None:
        original(self, finished)
        if finished.outcome is Outcome.UNKNOWN:
            self._in_doubt = [p for p in self._in_doubt if p.nonce != finished.nonce]
            self._recompute()

    patch.setattr(isr.InSyncSet, "on_proposal", on_proposal)


@mistake
def expand_without_condition(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: a follower is admitted once its log has reached the commit index, not before."""
    patch.setattr(membership, "max", lambda *_: 0, raising=False)


@mistake
def truncation_because_a_message_is_shorter(patch: pytest.MonkeyPatch) -> None:
    """Rule 7: a follower cuts only where digests differ (KIP-101)."""
    original = follower.Follower._take_over

    def take_over(self: follower.Follower, append: Append, lines: list[follower._Line]) -> None:
        context = self._context
        end = append.previous.index + append.count
        if context.log.last > end >= context.commit:
            context.emit(TruncateLog(end + 1))
            context.cut(end + 1)
        original(self, append, lines)

    patch.setattr(follower.Follower, "_take_over", take_over)


@mistake
def epoch_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: the highest epoch seen survives a restart."""
    original = Node._run_one

    def run_one(self: Node, effect: Effect) -> None:
        if not isinstance(effect, PersistEpoch):
            original(self, effect)

    patch.setattr(Node, "_run_one", run_one)


@mistake
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


@mistake
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


@mistake
def reads_before_the_opening_commits(patch: pytest.MonkeyPatch) -> None:
    """Rule 6: a new leader does not know yet what its predecessor committed."""
    patch.setattr(leader.Leader, "ready", property(lambda self: True))


@mistake
def commit_adopted_without_its_digest(patch: pytest.MonkeyPatch) -> None:
    """Rule 9: a follower that has diverged takes the leader's commit index for its own entries."""
    original = follower.Follower.on_append

    def on_append(self: follower.Follower, append: Append) -> None:
        context = self._context
        context.advance_commit(min(append.commit.index, context.log.last))
        original(self, append)

    patch.setattr(follower.Follower, "on_append", on_append)


@mistake
def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: a strong read waits for a round that began after it arrived."""
    patch.setattr(rounds.Rounds, "confirmed", lambda self, followers: self.current + 1)


def _max_of_followers(*values: Any) -> Any:  # noqa: ANN401 - stands in for `min`
    """Changes only the one call that computes the commit index, which gives a list."""
    if isinstance(values[0], list):
        return max(values[0][1:], default=values[0][0])
    return min(*values)
