from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replicad.storage.places import INDEX_MAX, at_of, index_of, last_at_of, position_of

NUMBERS = st.integers(1, 5000)
INDEXES = st.integers(0, INDEX_MAX)
POSITIONS = st.integers(0, 999)


@given(NUMBERS, INDEXES, POSITIONS)
def test_a_place_says_what_it_was_made_of(number: int, index: int, position: int) -> None:
    at = at_of(number, index, position)
    assert (index_of(at), position_of(at)) == (index, position)
    assert 0 <= at < 1 << 63  # SQLite's integers.


@given(NUMBERS, INDEXES, INDEXES, POSITIONS, POSITIONS)
def test_places_of_a_collection_are_in_the_order_of_entries(
    number: int, one: int, other: int, position: int, elsewhere: int
) -> None:
    first, second = at_of(number, one, position), at_of(number, other, elsewhere)
    assert (first < second) == ((one, position) < (other, elsewhere))
    assert (first <= last_at_of(number, other)) == (one <= other)


def test_the_last_place_of_all() -> None:
    assert last_at_of(1023, 1 << 62) == (1 << 63) - 1 == last_at_of(1023, INDEX_MAX) | 1023
