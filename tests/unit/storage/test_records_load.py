"""The file that is made from a snapshot is as good as the one made by applying the log."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.write import DEFINITIONS
from replicad.errors import DiskFullError, ProtocolViolationError
from replicad.storage.places import index_of, position_of
from replicad.storage.records import Records
from replicad.storage.records_load import load_records
from replicad.storage.snapshot import Record, Remembered, decode_line
from tests.support.entries import LogBuilder, write_of
from tests.support.random_logs import Step, lines_of, steps
from tests.support.record_model import apply

TIME = "2026-11-23T10:00:00.000Z"


def content(records: Records) -> list[object]:
    """All that the tables say of what is live; numbers are a file's own."""
    rows = records._connection.execute(
        "SELECT at, name, key, value, genero FROM records JOIN collections USING (number)"
    ).fetchall()
    live = sorted((index_of(at), position_of(at), *row) for at, *row in rows)
    counts = "SELECT name, records FROM collections WHERE records > 0 ORDER BY name"
    applied = "SELECT entry_index, digest, time FROM applied"
    requests = "SELECT * FROM requests WHERE time >= ? ORDER BY entry_index"
    remembered = records._connection.execute(requests, (records.forgets_before,)).fetchall()
    run = records._connection.execute
    return [live, run(counts).fetchall(), run(applied).fetchall(), remembered]


def load(path: Path, records: Records) -> None:
    """Make a file of a snapshot of these records."""
    lines = records.snapshot_lines(records.applied.index, records.forgets_before)
    load_records(path, map(decode_line, lines), records.applied, records.time)


@settings(max_examples=40, deadline=None)
@given(entries=steps(), cut=st.integers(1, 40))
def test_loading_a_snapshot_is_as_good_as_applying(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Step], cut: int
) -> None:
    path = tmp_path_factory.mktemp("records")
    log = LogBuilder()
    lines = lines_of(log, entries)
    cut = min(cut, len(lines))
    applied = Records.open(path / "applied")
    applied.apply((line[:-1] for line in lines[:cut]), log.index.digest_at(cut))
    load(path / "loaded", applied)
    records = Records.open(path / "records")
    records.replace_with(path / "loaded")
    assert not (path / "loaded").exists()
    assert (records.since, records.time) == (cut, applied.time)
    assert records.forgets_before == applied.forgets_before
    assert content(records) == content(applied)
    if lines[cut:]:
        for each in (records, applied):
            each.apply((line[:-1] for line in lines[cut:]), log.index.last_point.digest)
        assert content(records) == content(applied)
        for upto in range(cut, len(lines) + 1):
            told = [list(each.snapshot_lines(upto, "~")) for each in (records, applied)]
            assert told[0] == told[1]
    records.close()
    applied.close()


def test_what_was_loaded_stays(tmp_path: Path, log: LogBuilder) -> None:
    applied = Records.open(tmp_path / "applied")
    apply(applied, log, log.open_epoch(1) + log.inserts(20))
    apply(applied, log, log.insert(write_of("forms", b'{"key":"id"}', collection=DEFINITIONS)))
    load(tmp_path / "loaded", applied)
    path = tmp_path / "replaced"
    records = Records.open(path)
    other = LogBuilder("other")
    apply(records, other, other.inserts(3))
    generation = records.generation
    records.replace_with(tmp_path / "loaded")
    assert records.generation > generation
    apply(records, log, log.inserts(1))
    records.close()
    again = Records.open(path)
    assert (again.applied, again.count("forms")) == (log.index.last_point, 21)
    assert again.lookup([write_of("x")])[0].definition == 22
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again.close()
    applied.close()


def test_a_snapshot_that_repeats_itself_is_not_loaded(tmp_path: Path, log: LogBuilder) -> None:
    one = Record(1, 0, "forms", "a", b"{}")
    write = Remembered(1, TIME, "forms", "a", "i", "r1", "f")
    point = log.index.last_point
    snapshots: list[tuple[Record | Remembered, ...]] = [
        (one, replace(one, index=2)),
        (one, replace(one, key="b")),
        (write, replace(write, index=2)),
        (write, replace(write, request="r2")),
    ]
    for number, lines in enumerate(snapshots):
        with pytest.raises(ProtocolViolationError):
            load_records(tmp_path / f"{number}", iter(lines), point, TIME)


def test_no_room_to_load(tiny_disk: Path, log: LogBuilder) -> None:
    big = (
        Record(index, 0, "forms", f"{index}", b'{"x":"%b"}' % (b"x" * 9999))
        for index in range(1, 100)
    )
    with pytest.raises(DiskFullError):
        load_records(tiny_disk / "loaded", big, log.index.last_point, TIME)
