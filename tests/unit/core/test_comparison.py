"""Who differs, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.comparison import (
    RangeDigest,
    RecordDigest,
    Split,
    first_difference,
    first_differing_entry,
    first_differing_record,
    remembered_by_all,
    split,
)


def test_one_against_two_is_the_minority() -> None:
    assert split({"n1": "a", "n2": "b", "n3": "a"}) == Split(("n1", "n3"), ("n2",))


def test_when_all_agree_nobody_is_accused() -> None:
    assert split({"n1": "a", "n2": "a"}) == Split(("n1", "n2"), ())


@pytest.mark.parametrize("values", [{"n1": "a", "n2": "b"}, {"n1": "a", "n2": "b", "n3": "c"}])
def test_without_a_majority_nobody_is_right(values: dict[str, str]) -> None:
    assert split(values) == Split((), tuple(values))


def ranges(*parts: str) -> list[RangeDigest]:
    """A range for each `key:digest`."""
    pairs = (part.split(":") for part in parts)
    return [RangeDigest("c", key, 1, digest) for key, digest in pairs]


def test_equal_ranges_do_not_differ() -> None:
    assert first_difference(ranges("a:1", "e:2"), ranges("a:1", "e:2")) is None


@pytest.mark.parametrize(
    ("theirs", "stretch"),
    [
        (("a:1", "e:x", "k:3"), (("c", "e"), ("c", "k"))),
        (("a:1", "f:x", "k:3"), (("c", "e"), ("c", "k"))),
        (("a:1", "d:x", "e:2", "k:3"), (("c", "d"), ("c", "k"))),
        (("a:1", "e:2"), (("c", "k"), None)),
        (("a:1", "e:2", "k:3", "z:4"), (("c", "z"), None)),
        (("a:1", "e:x"), (("c", "e"), None)),
        ((), (("c", "a"), None)),
    ],
)
def test_the_first_stretch_that_differs(
    theirs: tuple[str, ...], stretch: tuple[tuple[str, str], tuple[str, str] | None]
) -> None:
    ours = ranges("a:1", "e:2", "k:3")
    assert first_difference(ours, ranges(*theirs)) == stretch


def test_the_first_record_that_differs() -> None:
    ours = [RecordDigest("c", "a", 1, "1"), RecordDigest("c", "b", 2, "2")]
    assert first_differing_record(ours, ours) is None
    assert first_differing_record(ours, ours[:1]) == ("c", "b")
    assert first_differing_record(ours, [ours[0], ours[1]._replace(digest="x")]) == ("c", "b")


@pytest.mark.parametrize(
    ("forgotten", "since"),
    [
        ((), ""),
        (("", ""), ""),
        (("", "2026-11-23T06:02:21.692Z"), "2026-11-23T07:02:21.692Z"),
        (("2026-11-30T23:30:00.001Z", "2026-11-30T06:00:00.000Z"), "2026-12-01T00:30:00.001Z"),
    ],
)
def test_writes_are_compared_that_all_replicas_remember(
    forgotten: tuple[str, ...], since: str
) -> None:
    assert remembered_by_all(forgotten) == since


@given(st.integers(0, 50), st.integers(1, 1000))
async def test_the_first_entry_that_differs_is_found(low: int, length: int) -> None:
    for first_wrong in {low + 1, low + (length + 1) // 2, low + length}:

        async def is_equal(index: int, wrong: int = first_wrong) -> bool:
            return index < wrong

        found = await first_differing_entry(low, low + length, is_equal)
        assert found == max(first_wrong, low + 1)
