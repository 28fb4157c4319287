"""Mistakes in how entries are replicated, committed and read (rules 1, 2, 3, 6, 7, 9, 11)."""

from __future__ import annotations

from typing import Any

import pytest

from replicad.core import follower, isr, leader, membership, rounds
from replicad.core.cluster import Disk
from replicad.core.context import Context
from replicad.core.effects import Apply, Send, TruncateLog
from replicad.core.events import Outcome, ProposalFinished
from replicad.core.followers import Followers, Progress
from replicad.core.messages import Ack, Append


def commit_on_first_ack(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: every member of the effective ISR must ack; here any one follower will do."""
    original = leader.Leader._settle

    def settle(self: leader.Leader) -> None:
        acking = [self.followers.progress[disk] for disk in self.isr.others]
        known = [progress.matched for progress in acking]
        for progress in acking:
            progress.matched = max(known)
        original(self)
        for progress, matched in zip(acking, known, strict=True):
            progress.matched = matched

    patch.setattr(leader.Leader, "_settle", settle)


def leader_acks_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: the leader's own sync counts as its ack; here its append does."""
    original = leader.Leader._settle

    def settle(self: leader.Leader) -> None:
        context = self._context
        synced, context.synced = context.synced, context.log.last
        original(self)
        context.synced = synced

    patch.setattr(leader.Leader, "_settle", settle)


def follower_acks_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: an ack speaks of what is on the disk; here of what was written."""

    def ack(self: follower.Follower, to: str) -> None:
        context = self._context
        matched = context.log.point(self._verified.index)
        disk = context.me.disk
        context.emit(Send(to, Ack(context.epoch, *disk, matched, self._round)))

    patch.setattr(follower.Follower, "_ack", ack)


def acks_counted_by_node_name(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: acks count for a disk id; here an empty disk inherits its predecessor's acks."""
    original = Followers.note_ack

    def note_ack(self: Followers, ack: Ack, now: float) -> Progress:
        known = next((disk.disk_id for disk in self.progress if disk.node == ack.node), ack.disk_id)
        return original(self, Ack(ack.epoch, ack.node, known, ack.matched, ack.round), now)

    patch.setattr(Followers, "note_ack", note_ack)


def shrink_counted_before_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: whom a shrink removes counts until the transaction has succeeded."""
    original = isr.InSyncSet._counted

    def counted(self: isr.InSyncSet) -> tuple[Disk, ...]:
        return self._in_doubt[-1].isr if self._in_doubt else original(self)

    patch.setattr(isr.InSyncSet, "_counted", counted)


def proposal_in_doubt_taken_as_failed(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: no answer is not a refusal."""
    original = isr.InSyncSet.on_proposal

    def on_proposal(self: isr.InSyncSet, finished: ProposalFinished) -> None:
        original(self, finished)
        if finished.outcome is Outcome.UNKNOWN:
            self._in_doubt = [p for p in self._in_doubt if p.nonce != finished.nonce]
            self._recompute()

    patch.setattr(isr.InSyncSet, "on_proposal", on_proposal)


def expand_without_condition(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: a follower is admitted once its log has reached the commit index, not before."""
    patch.setattr(membership, "max", lambda *_: 0, raising=False)


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


def reads_before_the_opening_commits(patch: pytest.MonkeyPatch) -> None:
    """Rule 6: a new leader does not know yet what its predecessor committed."""
    patch.setattr(leader.Leader, "ready", property(lambda self: True))


def commit_adopted_without_its_digest(patch: pytest.MonkeyPatch) -> None:
    """Rule 9: a follower that has diverged takes the leader's commit index for its own entries."""
    original = follower.Follower.on_append

    def on_append(self: follower.Follower, append: Append) -> None:
        context = self._context
        context.advance_commit(min(append.commit.index, context.log.last))
        original(self, append)

    patch.setattr(follower.Follower, "on_append", on_append)


def read_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: a strong read waits for a round that began after it arrived."""
    patch.setattr(rounds.Rounds, "confirmed", lambda self, followers: self.current + 1)


def expand_counted_after_the_transaction(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: who is to join counts before the proposal is sent."""
    patch.setattr(isr.InSyncSet, "_counted", lambda self: self.confirmed.isr)


def shrink_below_min_in_sync(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: a lone survivor goes on alone."""
    original = membership.Membership.tend

    def tend(self: membership.Membership, first: int) -> None:
        lagging = self._lagging()
        if lagging and self._isr.may_propose:
            self._isr.propose_shrink(lagging)
        else:
            original(self, first)

    patch.setattr(membership.Membership, "tend", tend)


def applied_before_it_is_synced(patch: pytest.MonkeyPatch) -> None:
    """Rule 9: the record store is never ahead of what a power cut leaves of the log."""

    def advance_commit(self: Context, index: int) -> None:
        self.commit = max(self.commit, index)
        if self.commit > self.applied:
            self.applied = self.commit
            self.emit(Apply(self.commit))

    patch.setattr(Context, "advance_commit", advance_commit)


def message_taken_for_fresh_when_it_comes(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: what waited in the broker is as old as the ack that it answers."""

    def note_commit(self: follower.Follower, append: Append) -> None:
        self._level_if = append.commit.index, self._context.now

    patch.setattr(follower.Follower, "_note_commit", note_commit)


def commit_of_an_unopened_epoch_taken_for_the_newest(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: a leader knows what is committed once its epoch is open."""

    def knows(self: follower.Follower, index: int) -> bool:
        return index <= self._context.applied

    patch.setattr(follower.Follower, "_knows_commit", knows)


def new_leader_taken_for_fresh(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: what others have committed before, a new leader knows once its epoch is open."""
    original = leader.Leader.__init__

    def begin(self: leader.Leader, context: Context, *others: Any) -> None:  # noqa: ANN401
        original(self, context, *others)
        context.note_level(context.now)

    patch.setattr(leader.Leader, "__init__", begin)


REPLICATION = (
    commit_on_first_ack,
    leader_acks_before_its_sync,
    follower_acks_before_its_sync,
    acks_counted_by_node_name,
    shrink_counted_before_the_transaction,
    proposal_in_doubt_taken_as_failed,
    expand_without_condition,
    truncation_because_a_message_is_shorter,
    reads_before_the_opening_commits,
    commit_adopted_without_its_digest,
    read_without_a_round,
    expand_counted_after_the_transaction,
    shrink_below_min_in_sync,
    applied_before_it_is_synced,
    message_taken_for_fresh_when_it_comes,
    commit_of_an_unopened_epoch_taken_for_the_newest,
    new_leader_taken_for_fresh,
)
