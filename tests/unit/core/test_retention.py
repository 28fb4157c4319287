"""Which old segments may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import format_time
from replicad.core.retention import KEEP_ALL, Retention, SegmentFacts, may_drop

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS
# Entries 1-10, 11-20, 21-30, 31-40 and the unfinished rest; 4, 3, 2, 1 and 0 hours old.
SEGMENTS = [
    SegmentFacts(1 + 10 * at, 100, format_time(NOW_MS - (4 - at) * HOUR_MS)) for at in range(5)
]


def dropped(retention: Retention, *, snapshot: int = 40, in_sync: int = 45) -> int:
    return may_drop(retention, SEGMENTS, unix_ms=NOW_MS, snapshot=snapshot, in_sync=in_sync)


@pytest.mark.parametrize(
    ("bytes_max", "last"), [(500, 0), (499, 10), (400, 10), (399, 20), (100, 40), (0, 40)]
)
def test_what_is_too_much_goes_by_whole_segments(bytes_max: int, last: int) -> None:
    assert dropped(Retention(bytes_max=bytes_max)) == last


@pytest.mark.parametrize(
    ("hours", "last"), [(4.1, 0), (4, 0), (3.9, 10), (2.5, 20), (0.5, 40), (0, 40)]
)
def test_what_is_too_old_goes_by_whole_segments(hours: float, last: int) -> None:
    assert dropped(Retention(age_max_s=hours * 3600)) == last


def test_either_limit_suffices() -> None:
    assert dropped(Retention(bytes_max=400, age_max_s=2.5 * 3600)) == 20
    assert dropped(Retention(bytes_max=200, age_max_s=3.9 * 3600)) == 30


def test_nothing_goes_by_default() -> None:
    assert dropped(KEEP_ALL) == 0


@pytest.mark.parametrize(("covered", "last"), [(0, 0), (9, 0), (10, 10), (29, 20), (1000, 40)])
def test_nothing_goes_that_a_snapshot_or_a_replica_lacks(covered: int, last: int) -> None:
    everything = Retention(bytes_max=0)
    assert dropped(everything, snapshot=covered, in_sync=1000) == last
    assert dropped(everything, snapshot=1000, in_sync=covered) == last


def test_an_empty_log_and_a_single_segment_stay() -> None:
    everything = Retention(bytes_max=0, age_max_s=0)
    for segments in ([], SEGMENTS[:1]):
        assert may_drop(everything, segments, unix_ms=NOW_MS, snapshot=99, in_sync=99) == 0


@given(
    sizes=st.lists(st.integers(1, 100), max_size=8),
    bytes_max=st.none() | st.integers(0, 500),
    age_max_s=st.none() | st.integers(0, 10_000),
    snapshot=st.integers(0, 100),
    in_sync=st.integers(0, 100),
)
def test_only_a_covered_front_is_dropped_and_no_more_than_is_wanted(
    sizes: list[int], bytes_max: int | None, age_max_s: int | None, snapshot: int, in_sync: int
) -> None:
    segments = [
        SegmentFacts(1 + 10 * at, size, format_time(NOW_MS - 1000 * (len(sizes) - at) ** 3))
        for at, size in enumerate(sizes)
    ]
    last = may_drop(
        Retention(bytes_max, age_max_s),
        segments,
        unix_ms=NOW_MS,
        snapshot=snapshot,
        in_sync=in_sync,
    )
    assert last <= min(snapshot, in_sync)
    assert last % 10 == 0
    assert last <= 10 * max(0, len(sizes) - 1)
    kept_from = last // 10
    if last:
        newest = segments[kept_from - 1]
        too_old = age_max_s is not None and newest.last_time < format_time(
            NOW_MS - 1000 * age_max_s
        )
        too_much = bytes_max is not None and sum(sizes[kept_from - 1 :]) > bytes_max
        assert too_old or too_much
