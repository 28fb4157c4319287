from __future__ import annotations

from replicad.core.attempts import Attempt, RejectedAttempts
from replicad.core.write import WriteRequest
from tests.support.entries import write_of


def attempt(number: int, call: str = "c0") -> WriteRequest:
    return write_of("a")._replace(attempt=number, call=call)


def test_earlier_attempts_of_a_rejected_call_are_late() -> None:
    rejected = RejectedAttempts()
    rejected.note(attempt(2), 0.0)
    assert [rejected.is_late(attempt(number)) for number in (1, 2, 3)] == [True, True, False]
    assert not rejected.is_late(attempt(1, "c1"))
    rejected.note(attempt(5), 0.0)
    assert rejected.is_late(attempt(3))


def test_a_first_attempt_is_not_remembered() -> None:
    rejected = RejectedAttempts()
    rejected.note(attempt(1), 0.0)
    assert not rejected.is_late(attempt(1))


def test_what_nobody_was_told_is_forgotten_but_not_what_came_later() -> None:
    rejected = RejectedAttempts()
    rejected.note(attempt(2), 0.0)
    rejected.note(attempt(3), 0.0)
    rejected.forget([Attempt("c0", 2)])
    assert rejected.is_late(attempt(1))
    rejected.forget([Attempt("c0", 3), Attempt("unknown", 2)])
    assert not rejected.is_late(attempt(1))


def test_old_ones_are_forgotten() -> None:
    rejected = RejectedAttempts()
    rejected.note(attempt(2, "c1"), 1.0)
    rejected.note(attempt(2, "c2"), 2.0)
    rejected.note(attempt(3, "c1"), 3.0)
    rejected.forget_before(3.0)
    assert rejected.is_late(attempt(1, "c1"))
    assert not rejected.is_late(attempt(1, "c2"))
    rejected.forget_before(9.0)
    assert not rejected.is_late(attempt(1, "c1"))
