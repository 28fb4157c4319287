from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import (
    CorruptLogError,
    DiskFailedError,
    DiskFullError,
    ProtocolViolationError,
)
from replicad.storage.journal import Journal
from replicad.storage.recovery import Recovered, recover
from tests.support.entries import LogBuilder, write_of
from tests.unit.storage.conftest import FileSizeLimit, files_of

SEGMENT_BYTES = 1000


def test_what_was_appended_is_read_across_segments(stored: Recovered, log: LogBuilder) -> None:
    lines = log.inserts(20)
    stored.journal.append(lines, log.index, 1)
    stored.journal.sync()
    assert len(stored.journal.segments) > 2
    assert stored.journal.end == log.index.end == len(lines)
    assert stored.journal.read(0, len(lines)) == lines
    assert stored.journal.read(777, 2777) == lines[777:2777]
    assert stored.journal.read(5, 5) == b""


def test_reading_past_the_end_of_a_file_is_a_failed_disk(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(2), log.index, 1)
    os.truncate(next((tmp_path / "log").glob("*.jsonl")), 100)
    with pytest.raises(DiskFailedError, match="shorter"):
        stored.journal.read(0, log.index.end)


def test_segments_are_named_by_their_first_entry_and_hold_whole_lines(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    for name, content in files_of(tmp_path).items():
        assert content.startswith(b'{"index":%d,' % int(name[:20]))
        assert content.endswith(b"}\n")
        assert len(content) <= SEGMENT_BYTES


def test_an_entry_larger_than_a_segment_gets_one_of_its_own(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    lines = log.inserts(1) + log.inserts(1, padding=3000) + log.inserts(1)
    stored.journal.append(lines, log.index, 1)
    assert [int(name[:20]) for name in files_of(tmp_path)] == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    paddings=st.lists(st.integers(0, 1200), min_size=1, max_size=25),
    cuts=st.sets(st.integers(1, 24)),
    redo_from=st.integers(1, 25),
)
def test_the_files_depend_on_the_entries_alone(
    paddings: list[int], cuts: set[int], redo_from: int
) -> None:
    """Neither batches nor a truncation followed by the same entries change a byte."""
    log = LogBuilder()
    for padding in paddings:
        log.inserts(1, padding=padding)
    whole = LogBuilder()
    lines = b"".join(whole.inserts(1, padding=padding) for padding in paddings)
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        first = recover(Path(one), log.genesis, 0, segment_bytes=SEGMENT_BYTES).journal
        first.append(lines, log.index, 1)
        second = recover(Path(other), log.genesis, 0, segment_bytes=SEGMENT_BYTES).journal
        bounds = [0, *sorted(cut for cut in cuts if cut < len(paddings)), len(paddings)]
        for before, last in pairwise(bounds):
            part = lines[log.index.end_of(before) : log.index.end_of(last)]
            second.append(part, log.index, before + 1)
        redo_from = min(redo_from, len(paddings))
        second.truncate(log.index, redo_from, epoch=7)
        second.append(lines[log.index.end_of(redo_from - 1) :], log.index, redo_from)
        assert files_of(Path(one)) == files_of(Path(other))
        assert b"".join(files_of(Path(one)).values()) == lines
        first.abandon()
        second.abandon()


def test_an_append_must_follow_the_end(stored: Recovered, log: LogBuilder) -> None:
    log.inserts(1)
    line = log.inserts(1)
    with pytest.raises(ProtocolViolationError):
        stored.journal.append(line, log.index, 2)


@pytest.mark.parametrize("limit", [0, 1, 150, 400])
def test_no_room_leaves_nothing_of_the_batch(
    tmp_path: Path,
    stored: Recovered,
    log: LogBuilder,
    file_size_limit: FileSizeLimit,
    limit: int,
) -> None:
    before = log.inserts(1)
    stored.journal.append(before, log.index, 1)
    lines = log.inserts(20)
    with file_size_limit(len(before) + limit), pytest.raises(DiskFullError):
        stored.journal.append(lines, log.index, 2)
    assert list(files_of(tmp_path).values()) == [before]
    assert stored.journal.end == len(before)
    stored.journal.append(lines, log.index, 2)
    assert b"".join(files_of(tmp_path).values()) == before + lines


def test_a_full_file_system_takes_entries_again_once_there_is_room(
    tiny_disk: Path, log: LogBuilder
) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    journal = recover(tiny_disk, log.genesis, 0, segment_bytes=50_000).journal
    before = log.inserts(1)
    journal.append(before, log.index, 1)
    lines = log.inserts(1000)
    with pytest.raises(DiskFullError):
        journal.append(lines, log.index, 2)
    assert list(files_of(tiny_disk).values()) == [before]
    ballast.unlink()
    journal.append(lines, log.index, 2)
    journal.sync()
    assert b"".join(files_of(tiny_disk).values()) == before + lines
    journal.close()


def test_no_room_in_a_later_segment_removes_the_new_ones(
    tmp_path: Path, stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    """The batch fills one segment, opens a second, and fails in a third."""
    before = log.inserts(1)
    stored.journal.append(before, log.index, 1)
    lines = log.inserts(5) + log.inserts(1, padding=3000)
    with file_size_limit(SEGMENT_BYTES + 1), pytest.raises(DiskFullError):
        stored.journal.append(lines, log.index, 2)
    assert list(files_of(tmp_path).values()) == [before]
    stored.journal.append(lines, log.index, 2)
    stored.journal.sync()
    again = recover(tmp_path, log.genesis, 0, segment_bytes=SEGMENT_BYTES)
    assert again.index.last_point == log.index.last_point
    again.journal.abandon()


def test_no_room_for_the_very_first_entry_leaves_an_empty_log(
    tmp_path: Path, stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    lines = log.inserts(1)
    with file_size_limit(10), pytest.raises(DiskFullError):
        stored.journal.append(lines, log.index, 1)
    assert files_of(tmp_path) == {}
    assert stored.journal.end == 0


def test_other_write_errors_are_a_failed_disk(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    """What stands where the next segment must go was not put there by a journal."""
    stored.journal.append(log.inserts(1, padding=SEGMENT_BYTES), log.index, 1)
    (tmp_path / "log" / f"{2:020d}.jsonl").mkdir()
    lines = log.inserts(1)
    with pytest.raises(DiskFailedError):
        stored.journal.append(lines, log.index, 2)


@pytest.mark.parametrize("first_gone", range(1, 21))
def test_truncation_keeps_what_it_cuts(
    tmp_path: Path, stored: Recovered, log: LogBuilder, first_gone: int
) -> None:
    lines = log.inserts(20)
    stored.journal.append(lines, log.index, 1)
    stored.journal.sync()
    stored.journal.mark_synced(log.index, 20)
    at = log.index.end_of(first_gone - 1)
    kept = stored.journal.truncate(log.index, first_gone, epoch=7)
    assert kept.parent == tmp_path / "lost+found"
    assert kept.name.endswith(f"-{first_gone:020d}-epoch-7.jsonl")
    assert kept.read_bytes() == lines[at:]
    assert b"".join(files_of(tmp_path).values()) == lines[:at]
    assert all(files_of(tmp_path).values()), "an empty segment would change later rolls"
    assert stored.journal.mark == (at, log.index.point(first_gone - 1))
    again = recover(tmp_path, log.genesis, first_gone - 1, segment_bytes=SEGMENT_BYTES)
    assert again.index.last == first_gone - 1
    again.journal.abandon()


def test_two_truncations_at_one_place_keep_both(stored: Recovered, log: LogBuilder) -> None:
    stored.journal.append(log.inserts(3), log.index, 1)
    first = stored.journal.truncate(log.index, 2, epoch=7)
    log.index.truncate(2)
    other = log.insert(write_of("other"))
    stored.journal.append(other, log.index, 2)
    second = stored.journal.truncate(log.index, 2, epoch=7)
    assert first != second
    assert second.read_bytes() == other


def test_no_room_to_keep_a_tail_means_no_truncation(
    tmp_path: Path, stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    lines = log.inserts(20)
    stored.journal.append(lines, log.index, 1)
    stored.journal.mark_synced(log.index, 20)
    with file_size_limit(SEGMENT_BYTES), pytest.raises(DiskFullError):
        stored.journal.truncate(log.index, 2, epoch=7)
    assert b"".join(files_of(tmp_path).values()) == lines
    assert stored.journal.mark.position == len(lines)
    assert list((tmp_path / "lost+found").iterdir()) == []


def test_reads_after_a_truncation_see_the_new_bytes(stored: Recovered, log: LogBuilder) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    stored.journal.read(0, log.index.end)
    stored.journal.truncate(log.index, 3, epoch=7)
    log.index.truncate(3)
    other = log.inserts(20, padding=10)
    stored.journal.append(other, log.index, 3)
    assert stored.journal.read(log.index.end_of(2), log.index.end) == other


def test_a_failed_sync_is_a_failed_disk(stored: Recovered, log: LogBuilder) -> None:
    stored.journal.append(log.inserts(1), log.index, 1)
    # A pipe in place of the segment: the one kind of descriptor that the kernel refuses to sync.
    reader, writer = os.pipe()
    assert stored.journal._writer is not None
    os.dup2(writer, stored.journal._writer)
    with pytest.raises(DiskFailedError, match="cannot sync"):
        stored.journal.sync()
    os.close(reader)
    os.close(writer)


def test_the_mark_is_found_again(tmp_path: Path, stored: Recovered, log: LogBuilder) -> None:
    stored.journal.append(log.inserts(3), log.index, 1)
    stored.journal.sync()
    stored.journal.mark_synced(log.index, 2)
    again = Journal.open(tmp_path, segment_bytes=SEGMENT_BYTES)
    assert again.mark == (log.index.end_of(2), log.index.point(2))
    again.close()


def test_a_full_disk_is_no_error_for_the_mark(
    stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    stored.journal.append(log.inserts(1), log.index, 1)
    with file_size_limit(0):
        stored.journal.mark_synced(log.index, 1)


def test_a_mark_that_was_torn_counts_as_none(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(3), log.index, 1)
    stored.journal.mark_synced(log.index, 3)
    sidecar = tmp_path / "log" / "synced"
    whole = sidecar.read_bytes()
    for torn in (b"", whole[:-1], whole[:70], b"\0" * len(whole), whole[:30] + b"9" + whole[31:]):
        sidecar.write_bytes(torn)
        journal = Journal.open(tmp_path)
        assert journal.mark.position == 0, torn
        journal.abandon()


@pytest.mark.parametrize("name", ["1.jsonl", "x.jsonl", f"{1:021d}.jsonl"])
def test_a_log_file_of_another_name_is_corruption(tmp_path: Path, name: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / name).write_bytes(b"")
    with pytest.raises(CorruptLogError, match="not named"):
        Journal.open(tmp_path)


def test_many_segments_need_few_descriptors(tmp_path: Path, log: LogBuilder) -> None:
    journal = recover(tmp_path, log.genesis, 0, segment_bytes=1).journal
    lines = log.inserts(200)
    journal.append(lines, log.index, 1)
    before = len(os.listdir("/proc/self/fd"))
    assert journal.read(0, len(lines)) == lines
    assert len(os.listdir("/proc/self/fd")) - before <= 64
    journal.abandon()
