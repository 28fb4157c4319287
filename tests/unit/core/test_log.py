from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.log import POINTS_MAX, LogIndex
from replicad.core.messages import Point
from tests.support.entries import LogBuilder

GENESIS = b"g" * 32


def digest(index: int, salt: int = 0) -> bytes:
    return bytes([salt]) * 24 + index.to_bytes(8, "big") if index else GENESIS


def log_of(*epochs: int, size: int = 10, salt: int = 0) -> LogIndex:
    """One entry for each given epoch."""
    index = LogIndex(Point(0, GENESIS))
    for at, epoch in enumerate(epochs, 1):
        index.append(epoch, size, digest(at, salt))
    return index


def test_an_empty_log() -> None:
    log = LogIndex(Point(0, GENESIS))
    assert (log.last, log.last_epoch, log.end, log.last_point) == (0, 0, 0, Point(0, GENESIS))
    assert log.points() == (Point(0, GENESIS),)
    assert log.holds(Point(0, GENESIS))
    assert not log.holds(Point(0, b"another"))


def test_digests_epochs_and_ends_by_index() -> None:
    log = log_of(1, 1, 4, 4, 7)
    assert [log.digest_at(i) for i in range(6)] == [digest(i) for i in range(6)]
    assert [log.epoch_at(i) for i in range(1, 6)] == [1, 1, 4, 4, 7]
    assert [log.end_of(i) for i in range(6)] == [0, 10, 20, 30, 40, 50]
    assert (log.last, log.last_epoch, log.end) == (5, 7, 50)


@pytest.mark.parametrize("index", [-1, 4])
def test_no_digest_beyond_the_log(index: int) -> None:
    with pytest.raises(IndexError):
        log_of(1, 1, 1).digest_at(index)


def test_a_log_holds_its_own_points_only() -> None:
    log = log_of(1, 1)
    assert log.holds(Point(2, digest(2)))
    assert not log.holds(Point(2, digest(2, salt=1)))
    assert not log.holds(Point(3, digest(3)))


@given(st.lists(st.integers(1, 5), max_size=12).map(sorted), st.data())
def test_truncating_is_as_if_the_rest_had_never_been(
    epochs: list[int], data: st.DataObject
) -> None:
    first_gone = data.draw(st.integers(1, len(epochs) + 1))
    log, kept = log_of(*epochs), log_of(*epochs[: first_gone - 1])
    log.truncate(first_gone)
    for each in (log, kept):
        each.append(9, 3, digest(each.last + 1, salt=1))
    assert log.points() == kept.points()
    assert (log.last, log.end, log.last_epoch) == (kept.last, kept.end, 9)
    assert [log.epoch_at(i) for i in range(1, log.last + 1)] == [*epochs[: first_gone - 1], 9]


@pytest.mark.parametrize(
    ("first", "last", "bytes_max", "fits"),
    [
        (1, 5, 50, 5),
        (1, 5, 49, 4),
        (1, 5, 10, 1),
        (1, 5, 0, 1),  # At least one, or a large entry could never be sent.
        (3, 5, 20, 4),
        (3, 4, 1000, 4),
        (5, 5, 1, 5),
    ],
)
def test_what_fits_into_a_message(first: int, last: int, bytes_max: int, fits: int) -> None:
    assert log_of(1, 1, 1, 1, 1).fit(first, last, bytes_max) == fits


def test_points_double_their_distance_and_name_where_epochs_begin() -> None:
    log = log_of(*[1] * 50, *[2] * 50)
    assert [p.index for p in log.points()] == [100, 99, 98, 96, 92, 84, 68, 50, 36, 0]


def test_points_are_few_however_many_epochs_there_were() -> None:
    log = log_of(*range(1, 1001))
    points = [p.index for p in log.points()]
    assert len(points) == POINTS_MAX
    assert points == sorted(points, reverse=True)
    assert (points[0], points[-1]) == (1000, 0)


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 60))
def test_a_peer_repeats_no_more_than_the_tails_that_differ(
    common: int, mine: int, its: int
) -> None:
    """Rule 7: the highest common point lies no further below than the tail is long."""
    log, peer = LogBuilder(), LogBuilder()
    for each in (log, peer):
        each.inserts(common)
    log.inserts(mine, padding=1)
    peer.inserts(its, padding=2)
    found = next(p for p in log.index.points() if peer.index.holds(p))
    assert common - found.index <= max(mine, 1)
    assert found.index <= common


def based(*epochs: int, base: int = 10, base_epoch: int = 2, start: int = 500) -> LogIndex:
    """A log that begins after entry `base`, with one entry for each given epoch."""
    log = LogIndex(Point(base, digest(base)), base_epoch, start=start)
    for at, epoch in enumerate(epochs, base + 1):
        log.append(epoch, 10, digest(at))
    return log


def facts(log: LogIndex) -> list[object]:
    """All that a log tells."""
    indexes = range(log.base.index, log.last + 1)
    return [
        (log.base, log.base_epoch, log.first, log.last, log.start, log.end, log.last_epoch),
        [(log.point(i), log.epoch_at(i), log.end_of(i)) for i in indexes],
        log.epoch_starts,
        log.points(),
        log.last_point,
    ]


def test_a_log_that_begins_after_a_base() -> None:
    log = based(2, 2, 3)
    assert (log.first, log.last, log.base_epoch, log.last_epoch) == (11, 13, 2, 3)
    assert [log.epoch_at(i) for i in range(10, 14)] == [2, 2, 2, 3]
    assert [log.end_of(i) for i in range(10, 14)] == [500, 510, 520, 530]
    assert [log.digest_at(i) for i in range(10, 14)] == [digest(i) for i in range(10, 14)]
    assert log.epoch_starts == ((3, 13),)
    assert log.fit(11, 13, 25) == 12
    assert log.fit(12, 13, 5) == 12


def test_an_empty_log_after_a_base_is_at_the_base() -> None:
    log = based()
    assert (log.last, log.last_epoch, log.end) == (10, 2, 500)
    assert log.last_point == log.base == Point(10, digest(10))
    assert log.points() == (log.base,)


def test_of_what_lies_before_the_base_nothing_is_known() -> None:
    log = based(2, 2)
    assert log.holds(Point(10, digest(10)))
    assert not log.holds(Point(10, digest(10, salt=1)))
    assert not log.holds(Point(9, digest(9)))
    assert not log.holds(Point(0, GENESIS))
    for ask in (log.digest_at, log.end_of, log.truncate):
        with pytest.raises(IndexError):
            ask(9)


def test_points_never_go_below_the_base() -> None:
    points = based(*range(3, 203), base=1000).points()
    assert points[0].index == 1200
    assert points[-1].index == 1000
    assert len(points) == POINTS_MAX


def test_the_epoch_that_goes_on_after_the_base_begins_before_it() -> None:
    assert based(2, 2).epoch_starts == ()
    assert based(3).epoch_starts == ((3, 11),)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12).map(sorted), st.data())
def test_dropping_a_front_is_as_if_the_log_had_begun_there(
    epochs: list[int], data: st.DataObject
) -> None:
    """Positions stay as they are."""
    at = data.draw(st.integers(0, len(epochs)))
    log = log_of(*epochs)
    fresh = LogIndex(log.point(at), log.epoch_at(at), start=10 * at)
    for index in range(at + 1, len(epochs) + 1):
        fresh.append(epochs[index - 1], 10, digest(index))
    log.rebase(at)
    assert facts(log) == facts(fresh)
    first_gone = data.draw(st.integers(at + 1, len(epochs) + 1))
    for each in (log, fresh):
        each.truncate(first_gone)
        each.append(9, 7, digest(each.last + 1, salt=1))
    assert facts(log) == facts(fresh)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12).map(sorted), st.data())
def test_a_log_put_together_from_parts_is_the_same(epochs: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(epochs)))
    log = log_of(*epochs)
    other = log_of(*epochs[: at - 1])
    other.extend(log.part(at, len(epochs)))
    assert facts(other) == facts(log)


def test_a_reset_log_begins_anew() -> None:
    log = log_of(1, 1, 2)
    log.reset(Point(10, digest(10)), 2, start=500)
    assert facts(log) == facts(based())


def test_dropping_a_front_gives_memory_back() -> None:
    log = log_of(*[1] * 100_000)
    log.rebase(99_000)
    held = log._digests.__sizeof__() + log._ends.__sizeof__()
    assert held < 100_000
