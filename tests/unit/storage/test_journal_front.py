"""The front of a log is dropped, or a snapshot takes the place of all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import format_time
from replicad.core.log import LogIndex
from replicad.core.messages import Point
from replicad.errors import (
    CorruptLogError,
    DiskFullError,
    ProtocolViolationError,
)
from replicad.storage.journal import Journal
from replicad.storage.logbase import Base
from replicad.storage.recovery import Recovered, recover
from tests.support.entries import LogBuilder
from tests.unit.storage.conftest import FileSizeLimit, files_of

SEGMENT_BYTES = 1000


def recover_small(directory: Path, log: LogBuilder, floor: int = 0) -> Recovered:
    return recover(directory, log.genesis, floor, segment_bytes=SEGMENT_BYTES)


def base_at(log: LogIndex, index: int) -> Base:
    time = format_time(1000 * (index - 1))
    return Base(log.point(index), log.epoch_at(index), time, log.end_of(index))


def drop(journal: Journal, log: LogIndex, index: int) -> None:
    """As the store does it."""
    last = journal.boundary_at(index)
    assert last is not None
    journal.drop_before(base_at(log, last))
    log.rebase(last)


def fill(stored: Recovered, log: LogBuilder, count: int = 20) -> bytes:
    lines = log.inserts(count)
    stored.journal.append(lines, log.index, log.index.last - count + 1)
    stored.journal.sync()
    while stored.checkpoints.write_one(log.index):
        pass
    return lines


def test_a_front_is_dropped_by_whole_segments(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    lines = fill(stored, log)
    before = files_of(tmp_path)
    firsts = [int(name[:20]) for name in before]
    assert stored.journal.boundary_at(firsts[1] - 2) is None
    assert stored.journal.boundary_at(firsts[1] - 1) == firsts[1] - 1
    assert stored.journal.boundary_at(firsts[2] - 2) == firsts[1] - 1
    assert stored.journal.boundary_at(10**9) == firsts[-1] - 1, "the last one always stays"
    drop(stored.journal, log.index, firsts[2] - 1)
    assert files_of(tmp_path) == dict(list(before.items())[2:])
    assert len(list((tmp_path / "log").glob("*.index"))) == len(firsts) - 3
    start = log.index.start
    assert stored.journal.read(start, stored.journal.end) == lines[start:]
    with pytest.raises(ProtocolViolationError, match="does not begin before"):
        stored.journal.read(start - 1, start + 1)


def test_a_log_without_its_front_is_recovered_and_goes_on(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    fill(stored, log)
    stored.journal.mark_synced(log.index, 20)
    drop(stored.journal, log.index, 10)
    base = log.index.base
    assert 5 < base.index <= 10
    again = recover_small(tmp_path, log, base.index)
    assert (again.index.base, again.index.points()) == (base, log.index.points())
    assert (again.commit, again.cut_bytes) == (base.index, 0)
    more = log.inserts(5)
    for index in range(21, 26):
        again.index.append(1, log.index.end_of(index) - log.index.end_of(index - 1), b"")
    again.journal.append(more, log.index, 21)
    again.journal.sync()
    again.journal.truncate(log.index, 23, epoch=7)
    log.index.truncate(23)
    again.journal.close()
    last = recover_small(tmp_path, log)
    assert last.index.last_point == log.index.last_point
    last.journal.abandon()


@settings(max_examples=40, deadline=None)
@given(
    paddings=st.lists(st.integers(0, 700), min_size=4, max_size=25),
    data=st.data(),
)
def test_the_files_after_a_dropped_front_depend_on_the_entries_alone(
    paddings: list[int], data: st.DataObject
) -> None:
    """Also those of a replica that began after a snapshot and never had the front."""
    log = LogBuilder()
    lines = [log.inserts(1, padding=padding) for padding in paddings]
    dropped = data.draw(st.integers(0, len(paddings)))
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        whole = recover_small(Path(one), log).journal
        whole.append(b"".join(lines), log.index, 1)
        last = whole.boundary_at(dropped)
        if last is None:
            whole.abandon()
            return
        began = recover_small(Path(other), log).journal
        base = base_at(log.index, last)
        began.reset_to(LogBuilder().index, base, 0, epoch=7)
        index = LogIndex(base.point, base.epoch, start=began.end)
        for at in range(last, len(lines)):
            index.append(1, len(lines[at]), log.index.digest_at(at + 1))
            began.append(lines[at], index, at + 1)
        whole.drop_before(base)
        assert files_of(Path(one)) == files_of(Path(other))
        whole.abandon()
        began.abandon()


SNAPSHOT = Base(Point(7, b"s" * 32), 3, "2026-11-23T05:58:53.805Z")


def test_a_snapshot_takes_the_place_of_an_empty_log(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    """Its time counts: else a leader with an empty log could write an earlier one."""
    assert stored.journal.reset_to(log.index, SNAPSHOT, 0, epoch=7) is None
    again = recover_small(tmp_path, log)
    assert (again.last_time, again.commit) == (SNAPSHOT.time, 7)
    assert (again.index.last_point, again.index.last_epoch) == (SNAPSHOT.point, 3)
    again.journal.abandon()


def kept_bytes(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((directory / "lost+found").glob("*"))]


@pytest.mark.parametrize("index", [6, 12, 20, 21, 1000])
@pytest.mark.parametrize("committed", [0, 5])
def test_a_snapshot_takes_the_place_of_a_log(
    tmp_path: Path, stored: Recovered, log: LogBuilder, index: int, committed: int
) -> None:
    """What was not known to be committed is kept, wherever the snapshot ends."""
    lines = fill(stored, log)
    stored.journal.mark_synced(log.index, 20)
    base = SNAPSHOT._replace(point=Point(index, b"s" * 32))
    stored.journal.reset_to(log.index, base, committed, epoch=7)
    assert kept_bytes(tmp_path) == [lines[log.index.end_of(committed) :]]
    assert files_of(tmp_path) == {}
    again = recover_small(tmp_path, log)
    assert (again.index.base, again.index.last, again.cut_bytes) == (base.point, index, 0)
    assert again.index.start == again.journal.end == stored.journal.end
    again.journal.abandon()


def test_all_that_is_committed_needs_no_keeping(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    fill(stored, log, 6)
    assert stored.journal.reset_to(log.index, SNAPSHOT, 6, epoch=7) is None


def test_a_snapshot_never_takes_the_place_of_what_is_committed_or_equal(
    stored: Recovered, log: LogBuilder
) -> None:
    fill(stored, log)
    with pytest.raises(ProtocolViolationError, match="beyond what is committed"):
        stored.journal.reset_to(log.index, SNAPSHOT, 7, epoch=7)
    with pytest.raises(ProtocolViolationError, match="holds the snapshot's end"):
        stored.journal.reset_to(log.index, base_at(log.index, 7), 0, epoch=7)


def test_no_room_for_what_must_be_kept_leaves_the_log(
    tmp_path: Path, stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    lines = fill(stored, log)
    with file_size_limit(SEGMENT_BYTES), pytest.raises(DiskFullError):
        stored.journal.reset_to(log.index, SNAPSHOT, 0, epoch=7)
    assert b"".join(files_of(tmp_path).values()) == lines
    assert kept_bytes(tmp_path) == []


class Killed(BaseException):
    """The process is gone; nothing after the step that it was in has happened."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Die in the middle of a write, or before any other change, the `step`-th such."""
    done: list[str] = []

    def dying(name: str) -> Callable[..., object]:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            done.append(name)
            if len(done) == step:
                if name == "write" and isinstance(args[1], bytes | memoryview):
                    real(args[0], args[1][: len(args[1]) // 2])
                raise Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("write", "pwrite", "fdatasync", "fsync", "ftruncate", "unlink", "replace"):
            patched.setattr(os, name, dying(name))
        yield done


def steps(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    with killed_at(0, monkeypatch) as done:
        change()
    return len(done)


def test_dropping_a_front_may_be_interrupted_anywhere(
    log: LogBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = log.inserts(20)

    def prepare(directory: Path) -> Recovered:
        recovered = recover_small(directory, log)
        recovered.journal.append(lines, log.index, 1)
        recovered.journal.sync()
        while recovered.checkpoints.write_one(log.index):
            pass
        return recovered

    journal = prepare(tmp_path / "whole").journal
    last = journal.boundary_at(12)
    assert last is not None
    base = base_at(log.index, last)
    count = steps(lambda: journal.drop_before(base), monkeypatch)
    journal.abandon()
    assert count > 8
    expected = files_of(tmp_path / "whole")
    outcomes = set()
    for step in range(1, count + 1):
        directory = tmp_path / str(step)
        journal = prepare(directory).journal
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            journal.drop_before(base)
        journal.abandon()
        again = recover_small(directory, log)
        assert again.index.last_point == log.index.last_point
        assert again.index.base.index in (0, last)
        outcomes.add(again.index.base.index)
        if again.index.base.index == 0:
            again.journal.drop_before(base)
        assert files_of(directory) == expected
        left = {path.stem for path in (directory / "log").glob("*.index")}
        assert left <= {name.removesuffix(".jsonl") for name in expected}
        again.journal.abandon()
    assert outcomes == {0, last}


@pytest.mark.parametrize("index", [12, 30])
def test_installing_a_snapshot_may_be_interrupted_anywhere(
    log: LogBuilder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: int
) -> None:
    """The log is the old one, or its front before the snapshot's end, or begins after that."""
    lines = log.inserts(20)
    base = SNAPSHOT._replace(point=Point(index, b"s" * 32))

    def prepare(directory: Path) -> Journal:
        journal = recover_small(directory, log).journal
        journal.append(lines, log.index, 1)
        journal.sync()
        journal.mark_synced(log.index, 20)
        return journal

    journal = prepare(tmp_path / "whole")
    count = steps(lambda: journal.reset_to(log.index, base, 5, epoch=7), monkeypatch)
    journal.abandon()
    assert count > 10
    outcomes = set()
    for step in range(1, count + 1):
        directory = tmp_path / str(step)
        journal = prepare(directory)
        with killed_at(step, monkeypatch), pytest.raises(Killed):
            journal.reset_to(log.index, base, 5, epoch=7)
        journal.abandon()
        again = recover_small(directory, log, 5)
        assert again.cut_bytes == 0
        if again.index.base.index == 0:
            assert log.index.holds(again.index.last_point)
            assert again.index.last >= min(20, index - 1)
            outcomes.add("front" if again.index.last < 20 else "old")
            again.journal.reset_to(again.index, base, 5, epoch=7)
        else:
            outcomes.add("new")
        assert files_of(directory) == {}
        assert lines[log.index.end_of(5) :] in kept_bytes(directory)
        again.journal.abandon()
        last = recover_small(directory, log, 5)
        assert (last.index.last_point, last.index.last_epoch) == (base.point, base.epoch)
        last.journal.abandon()
    assert outcomes == ({"old", "front", "new"} if index == 12 else {"old", "new"})


def test_a_log_without_its_first_segment_and_without_a_base_is_corruption(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    fill(stored, log)
    drop(stored.journal, log.index, 10)
    (tmp_path / "log" / "base").unlink()
    with pytest.raises(CorruptLogError, match="expected entry 1"):
        recover_small(tmp_path, log)


def test_a_base_that_is_not_where_the_log_begins_is_corruption(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    fill(stored, log)
    drop(stored.journal, log.index, 15)
    (tmp_path / "log" / next(iter(files_of(tmp_path)))).unlink()
    with pytest.raises(CorruptLogError, match="one is missing"):
        recover_small(tmp_path, log)


def test_damage_after_the_base_is_judged_as_ever(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    """Before the mark it is corruption; a mark from before the base says nothing."""
    fill(stored, log)
    stored.journal.mark_synced(log.index, 3)
    drop(stored.journal, log.index, 15)
    name, content = list(files_of(tmp_path).items())[-1]
    (tmp_path / "log" / name).write_bytes(content[:-3])
    recovered = recover_small(tmp_path, log)
    assert (recovered.index.last, recovered.cut_bytes > 0) == (19, True)
    recovered.journal.close()
    whole = (tmp_path / "log" / name).read_bytes()
    (tmp_path / "log" / name).write_bytes(whole[:-3])
    with pytest.raises(CorruptLogError, match="synced up to entry 19"):
        recover_small(tmp_path, log)
