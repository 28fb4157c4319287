from __future__ import annotations

import pytest

from replicad.core.entry import WriteRequest
from replicad.core.events import Found
from replicad.core.pending import PendingWrites, Precedent, Verdict
from tests.support.entries import write_of

NOTHING = Found(exists=False, request=None)
A = write_of("a")
OTHER_FOR_A = WriteRequest("other request", "f", A.collection, A.key, A.value)
OTHER_WITH_ID = WriteRequest(A.request, "f", A.collection, "other key", A.value)


@pytest.fixture
def pending() -> PendingWrites:
    writes = PendingWrites()
    writes.add(7, A)
    return writes


@pytest.mark.parametrize(
    ("write", "verdict"),
    [
        (A, Verdict(Precedent.SAME_WRITE, 7)),
        (OTHER_WITH_ID, Verdict(Precedent.OTHER_WRITE, 7)),
        (OTHER_FOR_A, Verdict(Precedent.RECORD, 7)),
        (write_of("b"), None),
    ],
)
def test_what_is_pending_decides(
    pending: PendingWrites, write: WriteRequest, verdict: Verdict | None
) -> None:
    assert pending.judge(write, NOTHING) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Found(exists=True, request=(3, A.fingerprint)), Verdict(Precedent.SAME_WRITE, 3)),
        (Found(exists=True, request=(3, "f")), Verdict(Precedent.OTHER_WRITE, 3)),
        (Found(exists=True, request=None), Verdict(Precedent.RECORD, 0)),
        (NOTHING, None),
    ],
)
def test_what_is_stored_decides(found: Found, verdict: Verdict | None) -> None:
    assert PendingWrites().judge(A, found) == verdict


def test_applied_entries_are_left_to_the_store(pending: PendingWrites) -> None:
    pending.add(8, write_of("b"))
    pending.forget_applied(7)
    assert pending.judge(A, NOTHING) is None
    assert pending.judge(write_of("b"), NOTHING) is not None


def test_entries_that_found_no_room_are_forgotten(pending: PendingWrites) -> None:
    pending.add(8, write_of("b"))
    pending.forget_from(8)
    assert pending.judge(A, NOTHING) is not None
    assert pending.judge(write_of("b"), NOTHING) is None
