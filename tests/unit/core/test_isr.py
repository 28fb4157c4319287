"""The effective ISR through every interruption of a change (rule 2)."""

from __future__ import annotations

import pytest

from replicad.core.cluster import ClusterState, Disk
from replicad.core.context import Context
from replicad.core.effects import Propose, ReadState
from replicad.core.events import Outcome, ProposalFinished
from replicad.core.isr import InSyncSet
from tests.support.core import context_of, disk, disks, every, only, state_of

N1, N2, N3 = disks("n1", "n2", "n3")
VERSION = 5


@pytest.fixture
def context() -> Context:
    return context_of(epoch=1)


def in_sync(context: Context, *nodes: str) -> InSyncSet:
    return InSyncSet(context, state_of(1, "n1", disks(*nodes)), VERSION)


def proposed(context: Context) -> ClusterState:
    proposal = only(context.finish(), Propose)
    assert proposal.expected_version == VERSION
    return proposal.state


def counted(isr: InSyncSet) -> tuple[Disk, ...]:
    return isr.effective


def answer(isr: InSyncSet, state: ClusterState, outcome: Outcome) -> None:
    version = VERSION + 1 if outcome is Outcome.ACCEPTED else -1
    isr.on_proposal(ProposalFinished(state.nonce, outcome, version))


@pytest.mark.parametrize(
    ("outcome", "effective"),
    [
        (None, (N1, N2, N3)),
        (Outcome.ACCEPTED, (N1, N2)),
        (Outcome.REFUSED, (N1, N2, N3)),
        (Outcome.UNKNOWN, (N1, N2, N3)),
    ],
)
def test_whom_a_shrink_removes_counts_until_it_succeeded(
    context: Context, outcome: Outcome | None, effective: tuple[object, ...]
) -> None:
    isr = in_sync(context, "n1", "n2", "n3")
    isr.propose_shrink((N3,))
    if outcome:
        answer(isr, proposed(context), outcome)
    assert counted(isr) == effective


@pytest.mark.parametrize(
    ("outcome", "effective"),
    [
        (None, (N1, N2, N3)),
        (Outcome.ACCEPTED, (N1, N2, N3)),
        (Outcome.REFUSED, (N1, N2, N3)),  # An earlier attempt at the same may have happened.
        (Outcome.UNKNOWN, (N1, N2, N3)),
    ],
)
def test_whom_an_admission_names_counts_at_once(
    context: Context, outcome: Outcome | None, effective: tuple[object, ...]
) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    if outcome:
        answer(isr, proposed(context), outcome)
    assert counted(isr) == effective


def test_an_unchanged_version_proves_nothing_about_a_doubt(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    answer(isr, proposed(context), Outcome.UNKNOWN)
    isr.adopt(isr.confirmed, VERSION)
    assert counted(isr) == (N1, N2, N3)


def test_a_higher_version_settles_a_doubt(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    answer(isr, proposed(context), Outcome.UNKNOWN)
    isr.adopt(isr.confirmed, VERSION + 1)  # Something else was written at that version.
    assert counted(isr) == (N1, N2)
    assert isr.version == VERSION + 1


def test_a_later_success_settles_earlier_doubts(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    answer(isr, proposed(context), Outcome.UNKNOWN)
    isr.propose_settling()
    assert counted(isr) == (N1, N2, N3)
    answer(isr, proposed(context), Outcome.ACCEPTED)
    assert counted(isr) == (N1, N2)
    assert not isr.in_doubt


def test_several_doubts_count_together(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    answer(isr, proposed(context), Outcome.UNKNOWN)
    isr.propose_admission(disk("n2", 2))
    assert counted(isr) == (N1, N2, N3, disk("n2", 2))


def test_a_success_that_a_view_told_before_changes_nothing_more(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    admitted = proposed(context)
    isr.adopt(admitted, VERSION + 1)
    isr.adopt(state_of(1, "n1", (N1, N3)), VERSION + 2)
    answer(isr, admitted, Outcome.ACCEPTED)
    assert counted(isr) == (N1, N3)
    assert isr.version == VERSION + 2


def test_a_lower_version_is_never_adopted(context: Context) -> None:
    isr = in_sync(context, "n1", "n2", "n3")
    isr.adopt(state_of(1, "n1", (N1,)), VERSION - 1)
    assert counted(isr) == (N1, N2, N3)
    assert isr.version == VERSION


def test_one_proposal_at_a_time_and_a_pause_after_one_that_failed(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    assert not isr.may_propose
    answer(isr, proposed(context), Outcome.UNKNOWN)
    assert not isr.may_propose
    context.now += context.settings.proposal_retry_s
    assert isr.may_propose


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.UNKNOWN])
def test_a_proposal_that_did_not_succeed_makes_the_leader_read(
    context: Context, outcome: Outcome
) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    answer(isr, proposed(context), outcome)
    assert every(context.finish(), ReadState) == [ReadState(0)]


def nobody(_: Disk) -> bool:
    return False


def test_a_joiner_counts_until_it_is_too_late(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.join(N3)
    assert counted(isr) == (N1, N2, N3)
    isr.drop_joiners(nobody)
    assert counted(isr) == (N1, N2, N3)
    context.now += context.settings.join_max_s
    isr.drop_joiners(nobody)
    assert counted(isr) == (N1, N2)


def test_a_joiner_that_was_given_up_joins_again_only_after_a_while(context: Context) -> None:
    """Else it would delay every commit, for ever."""
    isr = in_sync(context, "n1", "n2")
    isr.join(N3)
    isr.drop_joiners(lambda lost: lost == N3)
    isr.join(N3)
    assert counted(isr) == (N1, N2)
    context.now += context.settings.join_max_s
    isr.join(N3)
    assert counted(isr) == (N1, N2, N3)


def test_a_joiner_that_was_proposed_counts_for_the_proposals_sake(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.join(N3)
    isr.propose_admission(N3)
    context.now += context.settings.join_max_s
    isr.drop_joiners(nobody)
    assert counted(isr) == (N1, N2, N3)


def test_a_wiped_member_is_replaced_in_one_step(context: Context) -> None:
    """(node, old disk) becomes (node, new disk); until then both count."""
    isr = in_sync(context, "n1", "n2", "n3")
    isr.propose_admission(disk("n2", 2))
    assert counted(isr) == (N1, N2, N3, disk("n2", 2))
    answer(isr, proposed(context), Outcome.ACCEPTED)
    assert counted(isr) == (N1, N3, disk("n2", 2))


def test_the_same_change_is_proposed_again_under_its_old_nonce(context: Context) -> None:
    isr = in_sync(context, "n1", "n2")
    isr.propose_admission(N3)
    first = proposed(context)
    answer(isr, first, Outcome.UNKNOWN)
    context.finish()
    isr.propose_admission(N3)
    assert proposed(context) == first
