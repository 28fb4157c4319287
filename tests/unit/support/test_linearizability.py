"""The judge of the fault tests, judged: by histories known to be right or wrong, and by force."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.linearizability import Kind, Operation, next_state, violations

Times = tuple[float, float | None]


def insert(when: Times, value: str, *, stored: bool = True, key: str = "k") -> Operation:
    return Operation(0, key, Kind.INSERT, when[0], when[1], value, stored)


def read(when: Times, value: str | None, *, key: str = "k") -> Operation:
    return Operation(1, key, Kind.READ, when[0], when[1], value)


def verify(when: Times, there: bool) -> Operation:
    return Operation(2, "k", Kind.VERIFY, when[0], when[1], None, there)


RIGHT = {
    "nothing": [],
    "read of what nobody stored": [read((0, 1), None), verify((2, 3), False)],
    "stored, then read": [insert((0, 1), "a"), read((2, 3), "a"), verify((2, 3), True)],
    "a second insert finds it": [insert((0, 1), "a"), insert((2, 3), "b", stored=False)],
    "the insert that returned last won": [
        insert((0, 9), "a"),
        insert((1, 2), "b", stored=False),
        read((3, 4), "a"),
    ],
    "reads on both sides of an insert under way": [
        insert((0, 9), "a"),
        read((1, 2), None),
        read((3, 4), "a"),
    ],
    "touching at one instant is overlapping": [insert((0, 1), "a"), read((1, 2), None)],
    "unknown and never done": [insert((0, None), "a"), read((1, 2), None), read((3, 4), None)],
    "unknown and done long after": [
        insert((0, None), "a"),
        read((5, 6), None),
        read((7, 8), "a"),
        insert((9, 10), "b", stored=False),
    ],
    "one of two unknown ones, then the other has no effect": [
        insert((0, None), "a"),
        insert((0, None), "b"),
        read((1, 2), None),
        read((3, 4), "b"),
        read((5, 6), "b"),
    ],
    "records do not order each other": [insert((0, 1), "a"), read((2, 3), None, key="other")],
}

WRONG = {
    "stale read": [insert((0, 1), "a"), read((2, 3), None)],
    "stale verification": [insert((0, 1), "a"), verify((2, 3), False)],
    "lost write": [insert((0, 1), "a"), read((2, 3), "a"), read((4, 5), None)],
    "stored twice": [insert((0, 9), "a"), insert((0, 9), "b")],
    "rejected, though nobody stored it": [insert((0, 1), "a", stored=False)],
    "rejected by one that was not sent yet": [
        insert((0, 1), "a", stored=False),
        insert((2, 3), "b"),
    ],
    "read of what nobody wrote": [insert((0, 1), "a"), read((0, 1), "z")],
    "visible, then gone, while its insert is under way": [
        insert((0, 9), "a"),
        read((1, 2), "a"),
        read((3, 4), None),
    ],
    "visible, then gone, of an insert without outcome": [
        insert((0, None), "a"),
        read((1, 2), "a"),
        verify((3, 4), False),
    ],
    "read before it was sent": [read((0, 1), "a"), insert((2, 3), "a")],
    "an unknown one takes effect before it was sent": [read((0, 1), "a"), insert((2, None), "a")],
    "two values": [
        insert((0, None), "a"),
        insert((0, None), "b"),
        read((1, 2), "a"),
        read((3, 4), "b"),
    ],
    "another value than the one stored": [
        insert((0, 1), "a"),
        insert((2, None), "b"),
        read((3, 4), "b"),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_linearizable(name: str) -> None:
    assert violations(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_not_linearizable(name: str) -> None:
    (violation,) = violations(WRONG[name])
    assert violation.key == "k"
    assert violation.stuck


def test_a_violation_names_record_and_operation() -> None:
    good = [insert((0, 1), "a", key="good"), read((2, 3), "a", key="good")]
    (violation,) = violations([*good, insert((0, 1), "a"), read((2, 3), None), read((4, 5), "a")])
    assert violation.longest == (insert((0, 1), "a"),)
    assert violation.stuck[0] == read((2, 3), None)
    text = str(violation)
    assert text.startswith("record k: 1 of 3 explained")
    assert "client 1: read: absent" in text


def test_a_long_history_with_many_clients_is_quick() -> None:
    """5,000 overlapping operations, of which one in 50 has no outcome: no search explodes."""
    history = [insert((0, 40), "a")]
    for number in range(5_000):
        begun = number / 10
        if number % 50 == 0:
            history.append(insert((begun, None), f"v{number}"))
        elif begun < 30:
            history.append(read((begun, begun + 1.5), None))
        elif begun > 40:
            history.append(read((begun, begun + 1.5), "a"))
    assert violations(history) == []
    assert len(violations([*history, read((600, 601), None)])) == 1


def explained_by_force(history: Sequence[Operation]) -> bool:
    """Tries every subset of open operations in every order: slow, and plainly right."""
    completed = [operation for operation in history if operation.returned is not None]
    opened = [operation for operation in history if operation.returned is None]
    for count in range(len(opened) + 1):
        for some in itertools.combinations(opened, count):
            if any(map(is_possible, orders([*completed, *some]))):
                return True
    return False


def orders(operations: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    """The permutations that respect real time."""
    for order in itertools.permutations(operations):
        pairs = itertools.combinations(order, 2)
        if all((math.inf if b.returned is None else b.returned) >= a.invoked for a, b in pairs):
            yield order


def is_possible(order: tuple[Operation, ...]) -> bool:
    state: str | None = None
    for operation in order:
        possible, state = next_state(state, operation)
        if not possible:
            return False
    return True


@st.composite
def some_operation(draw: st.DrawFn) -> Operation:
    begun = draw(st.integers(0, 6))
    returned = begun + draw(st.integers(0, 3))
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.INSERT:
        known = draw(st.booleans())
        value = draw(st.sampled_from("ab"))
        return insert((begun, returned if known else None), value, stored=draw(st.booleans()))
    if kind is Kind.READ:
        return read((begun, returned), draw(st.sampled_from([None, "a", "b"])))
    return verify((begun, returned), draw(st.booleans()))


@given(st.lists(some_operation(), max_size=5))
def test_agrees_with_trying_everything(history: list[Operation]) -> None:
    assert (violations(history) == []) == explained_by_force(history)
