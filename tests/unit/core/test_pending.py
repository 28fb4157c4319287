from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.effects import Reason, Rejected
from replicad.core.entry import Change
from replicad.core.events import Earlier, Found
from replicad.core.pending import Changes, PendingWrites, Verdict
from replicad.core.write import DEFINITIONS, Operation, Wanted, WriteRequest
from tests.support.entries import batch_of, delete_of, put_of, write_of

NOTHING = Found((0,), None)
A = write_of("a")
INSERTED = (Change("insert", "a", b"{}"),)
MISMATCH = Rejected(Reason.MISMATCH)


def judged(pending: PendingWrites, write: WriteRequest, *versions: int) -> Verdict:
    return pending.judge(write, Found(versions or (0,) * len(write.operations), None))


def added(pending: PendingWrites, index: int, write: WriteRequest, *versions: int) -> str:
    """Append it, which must be possible; returns what it does, in letters."""
    changes = judged(pending, write, *versions).outcome
    assert not isinstance(changes, Earlier | Rejected)
    return pending.add(index, write, changes)


@pytest.fixture
def pending() -> PendingWrites:
    """The record a is pending at 7."""
    writes = PendingWrites()
    assert added(writes, 7, A) == "i"
    return writes


# -- what decides -------------------------------------------------------------------------------


def test_what_is_pending_decides(pending: PendingWrites) -> None:
    assert judged(pending, A) == Verdict(Earlier(7, A.fingerprint, "i"), 7)
    assert judged(pending, A._replace(fingerprint="f")) == Verdict(MISMATCH, 7)
    exists = Rejected(Reason.EXISTS, 0, 7)
    assert judged(pending, A._replace(request="other")) == Verdict(exists, 7)
    assert judged(pending, write_of("b")) == Verdict((Change("insert", "b", b"{}"),))
    assert judged(pending, write_of("a", collection="other")) == Verdict(INSERTED)


def test_what_is_stored_decides() -> None:
    writes = PendingWrites()
    earlier = Earlier(3, A.fingerprint, "i")
    assert writes.judge(A, Found((3,), earlier)) == Verdict(earlier, 3)
    assert writes.judge(A, Found((3,), Earlier(3, "f", "i"))) == Verdict(MISMATCH, 3)
    assert judged(writes, A, 3) == Verdict(Rejected(Reason.EXISTS, 0, 3))
    assert judged(writes, A) == Verdict(INSERTED)


def test_a_known_request_decides_before_everything_else(pending: PendingWrites) -> None:
    """Its definition may be gone, and its record have another version."""
    found = Found((9,), Earlier(3, A.fingerprint, "i"), definition=8)
    assert PendingWrites().judge(A, found) == Verdict(found.earlier or (), 3)
    assert pending.judge(A, Found((7,), None, definition=8)).outcome == Earlier(
        7, A.fingerprint, "i"
    )


def test_a_record_is_updated_deleted_and_inserted_again(pending: PendingWrites) -> None:
    exists = delete_of("a", request="d", condition=(7,))
    assert added(pending, 8, put_of("a", request="u", condition=(7,))) == "u"
    assert judged(pending, exists) == Verdict(Rejected(Reason.CHANGED, 0, 8), 8)
    assert added(pending, 9, delete_of("a", request="d", condition=(6, 8))) == "d"
    gone = Rejected(Reason.MISSING, 0, 0)
    assert judged(pending, delete_of("a", request="d2")) == Verdict(gone, 9)
    assert judged(pending, put_of("a", request="p", condition=(8,))) == Verdict(gone, 9)
    assert added(pending, 10, write_of("a", request="again")) == "i"
    assert judged(pending, A._replace(request="more")).outcome == Rejected(Reason.EXISTS, 0, 10)


def test_a_pending_delete_hides_what_is_stored() -> None:
    writes = PendingWrites()
    assert added(writes, 7, delete_of("a", request="d"), 3) == "d"
    assert judged(writes, A, 3) == Verdict(INSERTED)


def test_of_several_operations_the_first_that_cannot_be_is_told(pending: PendingWrites) -> None:
    batch = batch_of(
        Operation("b", b"{}"),
        Operation("a", b"{}", Wanted.ABSENT),
        Operation("c", None),
        request="batch",
    )
    assert judged(pending, batch) == Verdict(Rejected(Reason.EXISTS, 1, 7), 7)
    batch = batch._replace(operations=batch.operations[::2])
    assert judged(pending, batch) == Verdict(Rejected(Reason.MISSING, 1, 0))


def test_a_batch_says_what_it_does_to_each(pending: PendingWrites) -> None:
    batch = batch_of(
        Operation("a", b'{"n":2}'),
        Operation("b", b"{}"),
        Operation("c", None, (4,)),
        request="batch",
    )
    changes = (
        Change("update", "a", b'{"n":2}'),
        Change("insert", "b", b"{}"),
        Change("delete", "c", None),
    )
    assert judged(pending, batch, 0, 0, 4) == Verdict(changes)
    assert pending.add(8, batch, changes) == "uid"
    assert judged(pending, batch, 0, 0, 4).outcome == Earlier(8, batch.fingerprint, "uid")


# -- definitions --------------------------------------------------------------------------------

DEFINE = put_of("forms", request="define", collection=DEFINITIONS)
UNDEFINE = delete_of("forms", request="undefine", collection=DEFINITIONS)


def test_values_must_be_checked_by_the_stored_definition() -> None:
    writes = PendingWrites()
    checked = A._replace(definition=5)
    found = Found((0,), None, definition=5)
    assert writes.judge(checked, found) == Verdict(INSERTED)
    assert writes.judge(A, found) == Verdict(Rejected(Reason.DEFINITION, 0, 5))
    assert writes.judge(checked, NOTHING) == Verdict(Rejected(Reason.DEFINITION, 0, 0))


def test_values_must_be_checked_by_the_pending_definition() -> None:
    writes = PendingWrites()
    added(writes, 7, DEFINE)
    assert judged(writes, A) == Verdict(Rejected(Reason.DEFINITION, 0, 7), 7)
    assert judged(writes, A._replace(definition=7)) == Verdict(INSERTED)
    assert judged(writes, write_of("a", collection="other")) == Verdict(INSERTED)
    added(writes, 8, UNDEFINE)
    assert judged(writes, A._replace(definition=7)) == Verdict(Rejected(Reason.DEFINITION), 8)
    writes.forget_from(8)
    assert judged(writes, A._replace(definition=7)) == Verdict(INSERTED)


def test_the_definition_of_a_collection_with_records_stays() -> None:
    not_empty = Rejected(Reason.NOT_EMPTY)
    writes = PendingWrites()
    assert writes.judge(UNDEFINE, Found((3,), None, records=1)) == Verdict(not_empty)
    added(writes, 7, A)
    added(writes, 8, write_of("a", collection="other"))
    assert judged(writes, UNDEFINE, 3) == Verdict(not_empty, 8)
    added(writes, 9, delete_of("a", request="d"))
    assert judged(writes, UNDEFINE, 3) == Verdict((Change("delete", "forms", None),))
    added(writes, 10, delete_of("b", request="e"), 4)
    removed = Found((3,), None, records=1)
    assert writes.judge(UNDEFINE, removed) == Verdict((Change("delete", "forms", None),))
    writes.forget_from(10)
    assert writes.judge(UNDEFINE, removed) == Verdict(not_empty, 9)


def test_a_definition_may_ask_for_an_empty_collection() -> None:
    not_empty = Rejected(Reason.NOT_EMPTY)
    redefine = DEFINE._replace(if_empty=True)
    changes = (Change("update", "forms", b"{}"),)
    writes = PendingWrites()
    assert writes.judge(redefine, Found((3,), None, records=1)) == Verdict(not_empty)
    assert judged(writes, redefine, 3) == Verdict(changes)
    added(writes, 7, A)
    added(writes, 8, write_of("a", collection="other"))
    assert judged(writes, redefine, 3) == Verdict(not_empty, 8)
    added(writes, 9, delete_of("a", request="d"))
    assert judged(writes, redefine, 3) == Verdict(changes)
    added(writes, 10, redefine, 3)
    assert judged(writes, write_of("b")) == Verdict(Rejected(Reason.DEFINITION, 0, 10), 10)


def test_to_change_a_definition_needs_no_empty_collection(pending: PendingWrites) -> None:
    found = Found((3,), None, records=1)
    changes = (Change("update", "forms", b"{}"),)
    assert pending.judge(DEFINE, found._replace(records=0)) == Verdict(changes)


# -- against a plain model ----------------------------------------------------------------------

KEYS = st.sampled_from("abc")
CONDITIONS = st.sampled_from(Wanted) | st.lists(st.integers(1, 12), max_size=2).map(tuple)
OPERATIONS = st.lists(
    st.builds(Operation, KEYS, st.sampled_from([None, b"{}", b"[]"]), CONDITIONS),
    min_size=1,
    max_size=3,
    unique_by=lambda operation: operation.key,
)
NAMES = st.sampled_from(["forms", "other"])
WRITES = st.builds(
    lambda operations, name, request, definition: batch_of(
        *operations, request=request, collection=name, definition=definition
    ),
    OPERATIONS,
    NAMES,
    st.integers(0, 9).map(str),
    st.sampled_from([0, 0, 1, 2]),
)
DEFINITION_WRITES = st.builds(
    lambda name, value, request, if_empty: write_of(
        name, value, collection=DEFINITIONS, request=request, condition=Wanted.ANYTHING
    )._replace(if_empty=if_empty),
    NAMES,
    st.sampled_from([None, b"{}"]),
    st.integers(0, 9).map(str),
    st.booleans(),
)


class Model:
    """Every entry, replayed from the first whenever something is asked."""

    def __init__(self) -> None:
        self.entries: list[tuple[WriteRequest, Changes]] = []

    def found(self, write: WriteRequest, upto: int) -> Found:
        """What a record store with the entries up to `upto` says."""
        versions: dict[tuple[str, str], int] = {}
        earlier = None
        for index, (other, changes) in enumerate(self.entries[:upto], 1):
            for _, key, value in changes:
                if value is None:
                    del versions[other.collection, key]
                else:
                    versions[other.collection, key] = index
            if other.request == write.request:
                done = "".join(operation[0] for operation, _, _ in changes)
                earlier = Earlier(index, other.fingerprint, done)
        keys = [operation.key for operation in write.operations]
        emptied = {o.key for o in write.operations if o.value is None or write.if_empty}
        return Found(
            tuple(versions.get((write.collection, key), 0) for key in keys),
            earlier,
            versions.get((DEFINITIONS, write.collection), 0),
            sum(name in emptied for name, _ in versions) if write.collection == DEFINITIONS else 0,
        )


@given(st.data())
def test_laid_over_any_applied_index_it_is_what_the_whole_log_says(data: st.DataObject) -> None:
    """Whatever was applied, and whatever found no room and was taken back."""
    model, pending, applied = Model(), PendingWrites(), 0
    for _ in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["write"] * 4 + ["apply", "fail"]))
        last = len(model.entries)
        if step == "apply":
            applied = data.draw(st.integers(applied, last))
            pending.forget_applied(applied)
        elif step == "fail":
            first = data.draw(st.integers(applied + 1, last + 1))
            pending.forget_from(first)
            del model.entries[first - 1 :]
        else:
            write = data.draw(WRITES | DEFINITION_WRITES)
            if data.draw(st.booleans()):
                write = write._replace(definition=model.found(write, last).definition)
            verdict = pending.judge(write, model.found(write, applied))
            plain = PendingWrites().judge(write, model.found(write, last))
            assert verdict.outcome == plain.outcome
            assert 0 <= verdict.at <= last
            if not isinstance(plain.outcome, Earlier | Rejected):
                pending.add(last + 1, write, plain.outcome)
                model.entries.append((write, plain.outcome))


@given(st.data())
def test_a_verdict_holds_as_long_as_the_entry_that_it_rests_on(data: st.DataObject) -> None:
    """Entries above it may still vanish: no rejection may rest on them."""
    model, pending = Model(), PendingWrites()
    for _ in range(data.draw(st.integers(1, 15))):
        write = data.draw(WRITES | DEFINITION_WRITES)
        write = write._replace(definition=model.found(write, len(model.entries)).definition)
        outcome, at = pending.judge(write, model.found(write, 0))
        if isinstance(outcome, Earlier | Rejected):
            assert PendingWrites().judge(write, model.found(write, at)).outcome == outcome
        else:
            model.entries.append((write, outcome))
            pending.add(len(model.entries), write, outcome)
