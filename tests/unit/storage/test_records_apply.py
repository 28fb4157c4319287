"""What is forgotten while entries are applied, and what secondary indexes are told."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.core.events import Earlier
from replicad.core.write import DEFINITIONS
from replicad.errors import ProtocolViolationError
from replicad.storage import records_apply as module
from replicad.storage.records import Records
from replicad.storage.snapshot import forget_before
from tests.support.entries import LogBuilder, delete_of, put_of, write_of
from tests.support.random_logs import HOUR_MS, Step, lines_of, steps
from tests.support.record_model import Model, apply, values

DAY_MS = 24 * HOUR_MS


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(tmp_path / "records.sqlite")
    yield opened
    opened.close()


def remembered(records: Records) -> int:
    (count,) = records._connection.execute("SELECT count(*) FROM requests").fetchone()
    return int(count)


def past(records: Records) -> int:
    (count,) = records._connection.execute("SELECT count(*) FROM past").fetchone()
    return int(count)


def test_requests_are_remembered_for_a_day_of_log_time(records: Records, log: LogBuilder) -> None:
    first = write_of("a")
    apply(records, log, log.write(first, time_ms=0))
    apply(records, log, log.write(write_of("b"), time_ms=DAY_MS))
    assert records.written_by(first.request) is not None
    assert records.lookup([first])[0].earlier == Earlier(1, first.fingerprint, "i")
    apply(records, log, log.write(write_of("c"), time_ms=DAY_MS + 1))
    assert records.forgets_before == "1970-01-01T00:00:00.001Z"
    assert records.written_by(first.request) is None
    assert records.lookup([first])[0].earlier is None
    assert values(records, "forms", "a") == [b"{}"]


def test_a_reopened_file_has_forgotten_as_much(tmp_path: Path, log: LogBuilder) -> None:
    path = tmp_path / "records.sqlite"
    records = Records.open(path)
    lines = log.write(write_of("a"), time_ms=0) + log.write(write_of("b"), time_ms=DAY_MS + 1)
    apply(records, log, lines)
    assert remembered(records) == 2  # They go little by little.
    records.close()
    again = Records.open(path)
    assert again.written_by("r-forms-a") is None
    assert again.forgets_before == "1970-01-01T00:00:00.001Z"
    apply(again, log, log.write(write_of("c"), time_ms=DAY_MS + 1))
    assert remembered(again) == 2
    again.close()


def test_an_update_writes_few_pages(records: Records, log: LogBuilder) -> None:
    """What a replaced version was is appended, not put to some place among all the others."""
    value = b'{"x":"%b"}' % (b"x" * 300)

    def update(numbers: range) -> int:
        first = log.index.last + 1
        writes = [put_of(str(n), value, request=f"r{first + n}") for n in numbers]
        records.empty_journal()
        apply(records, log, b"".join(map(log.write, writes)))
        return records.journal_bytes // 4096

    update(range(1000))
    update(range(1000))
    numbers = range(0, 1000, 15)  # Each on a page of its own.
    assert update(numbers) < 2 * len(numbers)


@pytest.mark.parametrize("together", [True, False])
def test_a_forgotten_request_id_may_be_used_again(
    records: Records, log: LogBuilder, together: bool
) -> None:
    lines = [
        log.write(write_of("a", request="again"), time_ms=0),
        log.write(write_of("b", request="again"), time_ms=DAY_MS + 1),
    ]
    if not together:
        records.apply(split_lines(lines.pop(0)), log.index.digest_at(1))
    apply(records, log, b"".join(lines))
    written = records.written_by("again")
    assert written is not None
    assert written.at == 2


@pytest.mark.parametrize("together", [True, False])
def test_a_remembered_request_id_cannot_be_used_again(
    records: Records, log: LogBuilder, together: bool
) -> None:
    lines = [
        log.write(write_of("a", request="again"), time_ms=0),
        log.write(write_of("b", request="again"), time_ms=DAY_MS),
    ]
    if not together:
        records.apply(split_lines(lines.pop(0)), log.index.digest_at(1))
    with pytest.raises(ProtocolViolationError, match="repeats"):
        apply(records, log, b"".join(lines))


def test_forgetting_is_spread_over_many_entries(
    records: Records, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FORGOTTEN_AT_ONCE", 10)
    lines = b"".join(log.write(write_of(f"{n}"), time_ms=n) for n in range(100))
    apply(records, log, lines)
    apply(records, log, log.write(write_of("99", request="r-forms-98"), time_ms=2 * DAY_MS))
    counts = [remembered(records)]
    while counts[-1] > 1 and len(counts) < 100:
        apply(records, log, log.open_epoch(len(counts)).replace(b"1970-01-01", b"1970-01-03"))
        counts.append(remembered(records))
    assert counts[0] > 80
    assert all(0 < before - after <= 12 for before, after in pairwise(counts))
    assert records.written_by("r-forms-98") is not None


def test_the_past_goes_with_the_log(
    records: Records, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FORGOTTEN_AT_ONCE", 2)
    apply(records, log, log.insert(write_of("a")))
    apply(records, log, b"".join(log.write(put_of("a", request=f"{n}")) for n in range(9)))
    assert (past(records), records.since) == (9, 0)
    records.prune(6)
    assert records.since == 0  # Until it is on the disk.
    left = []
    for number in range(4):
        apply(records, log, log.insert(write_of(f"{number}")))
        left.append(past(records))
    assert left == [7, 5, 4, 4]
    assert records.since == 6
    assert [each.until for each in records.versions_of("forms", "a", limit=9, bytes_max=99)] == [
        7,
        8,
        9,
        10,
        None,
    ]


def test_the_past_goes_faster_than_it_comes(
    records: Records, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FORGOTTEN_AT_ONCE", 2)

    def updates(count: int) -> bytes:
        return b"".join(
            log.write(put_of("a", request=f"{log.index.last + 1}")) for _ in range(count)
        )

    apply(records, log, updates(101))
    records.prune(101)
    for left in (100 - 22 + 10, 100 - 44 + 20):
        apply(records, log, updates(10))
        assert past(records) == left


@settings(max_examples=40, deadline=None)
@given(entries=steps(), base=st.integers(0, 40))
def test_what_is_kept_is_complete_since_the_logs_beginning(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Step], base: int
) -> None:
    log = LogBuilder()
    lines = lines_of(log, entries)
    base = min(base, len(lines) - 1)
    records = Records.open(tmp_path_factory.mktemp("records") / "records.sqlite")
    for index, line in enumerate(lines, 1):
        records.apply([line[:-1]], log.index.digest_at(index))
        if index == base:
            records.prune(base)
    model = Model(lines)
    assert records.since <= base
    for upto in range(base, len(lines) + 1):
        assert list(records.snapshot_lines(upto, "~")) == model.record_lines(upto)
    times = {entry.index: entry.time for entry in model.entries if entry.changes}
    recent = {at for at, time in times.items() if time >= forget_before(records.time)}
    asked = {at: records.written_by(str(model.entries[at - 1].request)) for at in times}
    assert {at for at, written in asked.items() if written} == recent
    records.close()


def test_indexes_are_kept_in_the_same_transaction(records: Records, log: LogBuilder) -> None:
    definition = b'{"schema":null,"indexes":["n"],"search":[],"key":"id"}'
    apply(records, log, log.insert(write_of("forms", definition, collection=DEFINITIONS)))
    lines = log.insert(write_of("a", b'{"n":1}')) + log.insert(write_of("b", b'{"n":2}'))
    apply(records, log, lines)

    def indexed() -> list[str]:
        rows = records._connection.execute("SELECT key FROM fields ORDER BY key").fetchall()
        return [key for (key,) in rows]

    assert indexed() == ["a", "b"]
    apply(records, log, log.write(delete_of("a", request="d")) + log.insert(write_of("c", b"{}")))
    assert indexed() == ["b", "c"]
    with pytest.raises(ProtocolViolationError):
        apply(records, log, LogBuilder().open_epoch(1))
    impossible = log.write(put_of("d", request="w")) + log.insert(write_of("b", request="w"))
    with pytest.raises(ProtocolViolationError):
        apply(records, log, impossible)
    assert indexed() == ["b", "c"]
