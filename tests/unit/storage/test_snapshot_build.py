from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    ProtocolViolationError,
    ReplicadError,
    SnapshotDamagedError,
)
from replicad.storage import snapshot_build as module
from replicad.storage.snapshot import Manifest, check_snapshot
from replicad.storage.snapshot_build import Plan, build_snapshot, plan_build, record_of
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.crashes import crashes
from tests.support.entries import LogBuilder, write_of
from tests.support.snapshots import CLUSTER, Segments


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    """Three segments; keys are spread over all of them."""
    made = Segments(tmp_path)
    made.add(made.log.open_epoch(3) + made.log.insert(write_of("m", b'{"n":1.0}')))
    made.add_records(["z", "c"])
    made.add_records(["x", "d", "a"])
    return made


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
    assert manifest.records == 6
    segments.files.delete(7)
    for base in (0, 2, 4):
        segments.build(base, segments=1)
    assert segments.files.indexes() == [7, 4, 2]
    assert (segments.content(7), segments.files.manifest_of(7).read_bytes()) == bytes_at_once
    assert len(names(segments)) == 6


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_the_steps_the_bytes_are_the_same(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True))
    with tempfile.TemporaryDirectory() as directory:
        made = Segments(Path(directory) / "data")
        while numbers:
            count = data.draw(st.integers(1, len(numbers)))
            made.add_records([str(number) for number in numbers[:count]])
            numbers = numbers[count:]
        last = len(made.lines)
        made.build()
        whole = made.content(last)
        made.files.delete(last)
        base = 0
        while base < last:
            base = made.build(base, segments=data.draw(st.integers(1, 5))).header.index
        assert made.content(last) == whole


def test_a_log_of_control_entries_has_an_empty_snapshot(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.add(segments.log.open_epoch(1) + segments.log.open_epoch(2))
    assert segments.build().records == 0
    segments.add_records(["a"])
    assert segments.build(base=2).records == 1


def test_values_that_look_like_entries_are_values(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    value = b'{"a":",\\"operation\\":\\"epoch\\",","operation":"epoch","value":1,"digest":"%b"}'
    segments.add(segments.log.insert(write_of("a", value % (b"0" * 64))))
    segments.build()


def test_operations_of_a_later_version_are_not_ignored(log: LogBuilder) -> None:
    line = next(split_lines(log.insert(write_of("a"))))
    with pytest.raises(ProtocolViolationError, match="'delete'"):
        record_of(line.replace(b'"operation":"insert"', b'"operation":"delete"'))


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


def repeat_key(segments: Segments) -> None:
    lines = segments.log.insert(write_of("m", b"{}"))
    segments.add(lines)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_line, CorruptLogError),
        (cut_last_newline, CorruptLogError),
        (cut_last_line, CorruptLogError),
        (damage_base, SnapshotDamagedError),
        (shorten_base, SnapshotDamagedError),
        (damage_manifest, SnapshotDamagedError),
        (repeat_key, SnapshotDamagedError),
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
        check_snapshot(path, manifest)

    monkeypatch.setattr(module, "check_snapshot", garbled)
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
