from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.core.write import Operation
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    ProtocolViolationError,
    ReplicadError,
    SnapshotDamagedError,
)
from replicad.storage import snapshot_build as module
from replicad.storage.snapshot import (
    Manifest,
    Record,
    Remembered,
    check_bytes,
    check_snapshot,
    decode_line,
    read_records,
)
from replicad.storage.snapshot_build import Plan, build_snapshot, changes_in, plan_build
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.crashes import crashes
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of
from tests.support.random_logs import HOUR_MS, Step, lines_of, steps
from tests.support.snapshots import CLUSTER, Segments


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    """Three segments; keys are spread over all of them."""
    made = Segments(tmp_path)
    made.add(made.log.open_epoch(3) + made.log.insert(write_of("m", b'{"n":1.0}')))
    made.add_records(["z", "c"])
    made.add_records(["x", "d", "a"])
    return made


@pytest.fixture
def documented() -> str:
    """The check in the log format's page."""
    page = (Path(__file__).parents[3] / "docs" / "log-format.md").read_text()
    programs: list[str] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return next(program for program in programs if "follows from the log" in program)


def names(segments: Segments) -> list[str]:
    return sorted(path.name for path in segments.files.path.iterdir())


def test_a_segment_is_built_on_once_the_next_one_has_begun_for_good() -> None:
    firsts = [1, 10, 20]
    for committed, expected in [
        (9, None),
        (10, Plan("c", 0, (1,), 9)),
        (19, Plan("c", 0, (1,), 9)),
    ]:
        assert plan_build("c", 0, firsts, committed) == expected
    assert plan_build("c", 0, firsts, 20) == Plan("c", 0, (1, 10), 19)
    assert plan_build("c", 9, firsts, 20) == Plan("c", 9, (10,), 19)
    assert plan_build("c", 19, firsts, 999) is None
    assert plan_build("c", 0, [], 0) is None


def test_it_waits_for_as_many_segments_as_are_worth_it() -> None:
    assert plan_build("c", 9, [10, 20, 30], 30, segments_min=3) is None
    assert plan_build("c", 9, [10, 20, 30, 40], 40, segments_min=3) is not None
    many = [1 + 10 * number for number in range(100)]
    plan = plan_build("c", 0, many, 10_000, segments_min=99)
    assert plan == Plan("c", 0, tuple(many[: module.SEGMENTS_MAX]), many[module.SEGMENTS_MAX] - 1)


def test_entries_that_are_nowhere_are_noticed() -> None:
    with pytest.raises(SnapshotDamagedError, match="entry 1 is in no segment"):
        plan_build("c", 0, [10, 20], 20)
    with pytest.raises(SnapshotDamagedError, match="entry 6 is in no segment"):
        plan_build("c", 5, [10, 20], 20)


def test_building_on_a_snapshot_gives_the_same_as_building_from_the_log(
    segments: Segments, tmp_path: Path
) -> None:
    manifest = segments.build()
    bytes_at_once = segments.content(7), b"".join(manifest.encode())
    assert manifest.header.epoch == 3
    assert manifest.lines == 6 + 6
    segments.files.delete(7)
    for base in (0, 2, 4):
        segments.build(base, segments=1)
    assert segments.files.indexes() == [7, 4, 2]
    assert (segments.content(7), segments.files.manifest_of(7).read_bytes()) == bytes_at_once
    assert len(names(segments)) == 6


@settings(max_examples=100, deadline=None)
@given(steps(), st.data())
def test_whatever_the_steps_the_bytes_are_the_same(
    entries: list[Step], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = Segments(Path(directory) / "data")
        lines = lines_of(made.log, entries)
        while lines:
            count = data.draw(st.integers(1, len(lines)))
            made.add(b"".join(lines[:count]))
            lines = lines[count:]
        last = len(made.lines)
        whole = made.build()
        check_snapshot(made.files.file_of(last), whole)
        made.files.delete(last)
        base = 0
        while base < last:
            base = made.build(base, segments=data.draw(st.integers(1, 5))).header.index
        assert made.files.load(last) == whole


def test_the_documented_check(tmp_path: Path, documented: str) -> None:
    """It makes the same bytes of the log with nothing of replicad's own code."""
    segments = Segments(tmp_path)
    operations = [Operation("b", '{"n":1.0,"ñ":"é"}'.encode()), Operation("a", None)]
    segments.add(segments.log.open_epoch(1) + segments.log.insert(write_of("a", b'{"value":1}')))
    segments.add(segments.log.write(batch_of(*operations, request='"1'), time_ms=25 * HOUR_MS))
    segments.build(segments=1)
    segments.build(base=2)

    def check() -> list[str]:
        command = [sys.executable, "-c", documented]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603
        return [line.partition(" ")[2] for line in told.stdout.splitlines()]

    assert check() == ["follows from the log"] * 2
    path = segments.files.file_of(3)
    path.write_bytes(path.read_bytes().replace(b'"n":1.0', b'"n":1.1'))
    assert check() == ["follows from the log", "DOES NOT FOLLOW FROM THE LOG"]


def test_of_each_record_the_newest_is_kept(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    log = segments.log
    segments.add_records(["kept", "changed", "gone", "back"])
    segments.add(
        log.write(put_of("changed", b'{"n":2}', request="2"))
        + log.write(delete_of("gone", request="3"))
        + log.write(delete_of("back", request="4"))
    )
    segments.add(
        log.write(batch_of(Operation("back", b'{"n":3}'), Operation("changed", None), request="5"))
    )
    segments.build(segments=1)
    for base in (0, 4):
        manifest = segments.build(base)
        records = [each for each in decoded(segments, manifest) if isinstance(each, Record)]
        assert [(each.key, each.index, each.position) for each in records] == [
            ("back", 8, 0),
            ("kept", 1, 0),
        ]
        segments.files.delete(8)


def test_writes_are_forgotten_after_a_day_of_log_time(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    for time_ms in (0, 1, 2, 24 * HOUR_MS + 1):
        key = str(time_ms)
        segments.add(segments.log.write(write_of(key), time_ms=time_ms))
    assert remembered(segments, segments.build(segments=3)) == [1, 2, 3]
    assert remembered(segments, segments.build(base=3)) == [2, 3, 4]
    segments.add(segments.log.write(write_of("last"), time_ms=49 * HOUR_MS))
    assert remembered(segments, segments.build(base=4)) == [5]


def decoded(segments: Segments, manifest: Manifest) -> list[Record | Remembered]:
    path = segments.files.file_of(manifest.header.index)
    return [decode_line(line) for _, line in read_records(path, manifest)]


def remembered(segments: Segments, manifest: Manifest) -> list[int]:
    """The entries of the writes that a snapshot remembers."""
    lines = decoded(segments, manifest)
    return [each.index for each in lines if isinstance(each, Remembered)]


def test_a_log_of_control_entries_has_an_empty_snapshot(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.add(segments.log.open_epoch(1) + segments.log.open_epoch(2))
    assert segments.build().lines == 0
    segments.add_records(["a"])
    assert segments.build(base=2).lines == 2


def test_values_that_look_like_entries_are_values(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    value = b'{"a":",\\"operation\\":\\"epoch\\",","operation":"epoch","value":1,"digest":"%b"}'
    segments.add(segments.log.insert(write_of("a", value % (b"0" * 64))))
    gone = b'{"index":1,"position":0,"collection":"forms","key":"b","value":null}'
    segments.add(segments.log.insert(write_of("b", b'{"a":%b}' % gone)))
    segments.build()


@pytest.mark.parametrize("name", [b"merge", b"inserted", b"nsert"])
def test_operations_of_a_later_version_are_not_ignored(log: LogBuilder, name: bytes) -> None:
    (line,) = split_lines(log.insert(write_of("a")))
    with pytest.raises(ProtocolViolationError, match=f"'{name.decode()}'"):
        changes_in(line.replace(b'"operation":"insert"', b'"operation":"%b"' % name))
    several = batch_of(Operation("b", b"{}"), Operation("c", b"{}"), request="r")
    (line,) = split_lines(log.write(several))
    with pytest.raises(ProtocolViolationError):
        changes_in(line.replace(b'[["insert"', b'[["%b"' % name))


def damage_line(segments: Segments) -> None:
    path = segments.path_of(5)
    path.write_bytes(path.read_bytes().replace(b'"key":"d"', b'"key":"e"'))


def cut_last_newline(segments: Segments) -> None:
    path = segments.path_of(5)
    path.write_bytes(path.read_bytes()[:-1])


def cut_last_line(segments: Segments) -> None:
    segments.path_of(5).write_bytes(b"".join(segments.lines[4:6]))


def damage_base(segments: Segments) -> None:
    path = segments.files.file_of(2)
    path.write_bytes(path.read_bytes().replace(b'"n":1.0', b'"n":2.0'))


def shorten_base(segments: Segments) -> None:
    path = segments.files.file_of(2)
    path.write_bytes(path.read_bytes()[:-1])


def damage_manifest(segments: Segments) -> None:
    segments.files.manifest_of(2).write_bytes(b"{}\n")


def lose_segment(segments: Segments) -> None:
    segments.path_of(3).unlink()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_line, CorruptLogError),
        (cut_last_newline, CorruptLogError),
        (cut_last_line, CorruptLogError),
        (damage_base, SnapshotDamagedError),
        (shorten_base, SnapshotDamagedError),
        (damage_manifest, SnapshotDamagedError),
        (lose_segment, DiskFailedError),
    ],
)
def test_damage_ends_the_work_and_nothing_is_left(
    segments: Segments, damage: Callable[[Segments], None], error: type[ReplicadError]
) -> None:
    segments.build(segments=1)
    damage(segments)
    before = names(segments)
    with pytest.raises(error):
        build_snapshot(segments.data_dir, segments.plan(base=2))
    assert names(segments) == before


def test_a_file_that_reads_otherwise_than_it_was_written_does_not_count(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def garbled(path: Path, manifest: Manifest) -> None:
        path.write_bytes(path.read_bytes().replace(b'"key":"d"', b'"key":"e"'))
        check_bytes(path, manifest)

    monkeypatch.setattr(module, "check_bytes", garbled)
    with pytest.raises(SnapshotDamagedError):
        segments.build()
    assert names(segments) == []


def test_no_room(
    segments: Segments, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    segments.add_records(["big"], value_bytes=100_000)
    with file_size_limit(50_000), pytest.raises(DiskFullError):
        segments.build()
    assert names(segments) == []
    segments.build()


def test_a_crash_at_every_step(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    segments.build(segments=1)
    whole = segments.expected(7)
    plan = segments.plan(base=2)

    def open_again() -> SnapshotFiles:
        files = SnapshotFiles.open(segments.data_dir)
        assert files.indexes() in ([2], [7, 2])
        assert len(names(segments)) == 2 * len(files.indexes())
        for index in files.indexes():
            files.load(index)
        if 7 in files.indexes():
            assert segments.content(7) == whole
            files.delete(7)
        return files

    steps = list(
        crashes(monkeypatch, lambda: build_snapshot(segments.data_dir, plan), before=open_again)
    )
    assert len(steps) > 10
    assert segments.content(7) == whole
    assert segments.files.load(7).header.cluster_id == CLUSTER
