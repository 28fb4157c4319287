"""Mistakes in how a leader judges writes, and in what it tells of them (rules 10 and 11)."""

from __future__ import annotations

from typing import Any

import pytest

from replicad.core import leader, pending
from replicad.core.attempts import RejectedAttempts
from replicad.core.effects import Rejected
from replicad.core.events import Earlier, Found
from replicad.core.pending import PendingWrites, Verdict
from replicad.core.waiting import Waiting
from replicad.core.write import WriteRequest


def request_id_not_remembered_across_failover(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: a new leader knows only the requests of its own epoch."""
    original = PendingWrites.judge

    def judge(self: PendingWrites, write: WriteRequest, found: Found) -> Verdict:
        return original(self, write, found._replace(earlier=None))

    patch.setattr(PendingWrites, "judge", judge)


def pending_keys_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: a write is judged by what is pending, too."""

    def latest(self: PendingWrites, collection: str, key: str, applied: int) -> pending._Version:
        return 0, applied

    patch.setattr(PendingWrites, "_latest", latest)


def condition_judged_without_what_is_pending(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: a condition is about the newest version; here about the newest that is applied."""
    original = PendingWrites._latest

    def latest(self: PendingWrites, collection: str, key: str, applied: int) -> pending._Version:
        at, version = original(self, collection, key, applied)
        return at, applied if applied and version else version

    patch.setattr(PendingWrites, "_latest", latest)


def what_found_no_room_still_counts(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: what was not appended after all has deleted and changed nothing."""
    original = PendingWrites.forget_from

    def forget_from(self: PendingWrites, first: int) -> None:
        versions = dict(self._versions)
        original(self, first)
        self._versions = versions

    patch.setattr(PendingWrites, "forget_from", forget_from)


def batch_done_in_part(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: all or nothing; here what can be is done."""
    original = PendingWrites.judge

    def judge(self: PendingWrites, write: WriteRequest, found: Found) -> Verdict:
        verdict = original(self, write, found)
        if len(write.operations) == 1 or not isinstance(verdict.outcome, Rejected):
            return verdict
        at = verdict.outcome.position
        versions = found.versions[:at] + found.versions[at + 1 :]
        operations = write.operations[:at] + write.operations[at + 1 :]
        return judge(self, write._replace(operations=operations), found._replace(versions=versions))

    patch.setattr(PendingWrites, "judge", judge)


def definition_ignored(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: values that were checked by an old definition are not stored."""
    original = PendingWrites.judge

    def judge(self: PendingWrites, write: WriteRequest, found: Found) -> Verdict:
        verdict = original(self, write, found)
        if isinstance(verdict.outcome, Rejected) and verdict.outcome.reason.value == "definition":
            write = write._replace(definition=verdict.outcome.version)
            return original(self, write, found)
        return verdict

    patch.setattr(PendingWrites, "judge", judge)


def definition_deleted_although_records_are_pending(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: whether a collection is empty is judged by what is pending, too."""
    patch.setattr(PendingWrites, "_records_of", lambda self, write: 0)


def late_attempt_done(patch: pytest.MonkeyPatch) -> None:
    """Rule 10: an attempt that comes after a later one was rejected is done, if it can be."""
    patch.setattr(RejectedAttempts, "is_late", lambda self, write: False)


def rejection_before_what_it_rests_on_commits(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: who is told "exists" may rely on the other record."""
    original = PendingWrites.judge

    def judge(self: PendingWrites, write: WriteRequest, found: Found) -> Verdict:
        outcome, at = original(self, write, found)
        return Verdict(outcome, at if isinstance(outcome, Earlier) else 0)

    patch.setattr(PendingWrites, "judge", judge)


def rejection_without_a_round(patch: pytest.MonkeyPatch) -> None:
    """Rule 11: a rejection is a strong read."""

    def wait(*fields: Any) -> Waiting:  # noqa: ANN401 - those of Waiting
        waiting = Waiting(*fields)
        if waiting.results is not None:
            waiting.round = 0
        return waiting

    patch.setattr(leader, "Waiting", wait)


WRITES = (
    request_id_not_remembered_across_failover,
    pending_keys_not_looked_at,
    condition_judged_without_what_is_pending,
    what_found_no_room_still_counts,
    batch_done_in_part,
    definition_ignored,
    definition_deleted_although_records_are_pending,
    late_attempt_done,
    rejection_before_what_it_rests_on_commits,
    rejection_without_a_round,
)
