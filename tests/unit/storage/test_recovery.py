from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import Change, encode_changes
from replicad.errors import CorruptLogError, DiskFullError
from replicad.storage.recovery import Recovered, recover
from tests.support.entries import LogBuilder, write_of
from tests.unit.storage.conftest import FileSizeLimit, files_of

Damage = Callable[[bytes], bytes]


def store(directory: Path, lines: bytes, *, first: int = 1) -> Path:
    """Put lines into a segment file as they are."""
    path = directory / "log" / f"{first:020d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lines)
    return path


def lost_and_found(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((directory / "lost+found").glob("*"))]


def recover_small(directory: Path, log: LogBuilder, floor: int = 0) -> Recovered:
    return recover(directory, log.genesis, floor, segment_bytes=1000)


def refused(directory: Path, log: LogBuilder, floor: int = 0) -> str:
    """Recovery refuses and changes nothing; its message."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(CorruptLogError) as caught:
        recover_small(directory, log, floor)
    before.setdefault(directory / "log" / "synced", b"")
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    return str(caught.value)


def test_an_empty_log(tmp_path: Path, log: LogBuilder) -> None:
    recovered = recover_small(tmp_path, log)
    assert (recovered.index.last, recovered.last_time, recovered.commit) == (0, "", 0)
    assert (recovered.cut_bytes, recovered.kept) == (0, None)
    recovered.journal.close()


def test_an_intact_log_over_segments_is_indexed_whole(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    lines = log.inserts(9) + log.open_epoch(4, commit=8) + log.inserts(10, commit=3)
    stored.journal.append(lines, log.index, 1)
    recovered = recover_small(tmp_path, log, 5)
    assert recovered.index.last_point == log.index.last_point
    assert recovered.index.points() == log.index.points()
    assert [recovered.index.end_of(i) for i in range(21)] == [
        log.index.end_of(i) for i in range(21)
    ]
    assert recovered.last_time == "1970-01-01T00:00:19.000Z"
    assert recovered.commit == 8
    assert recovered.cut_bytes == 0
    assert recovered.journal.mark.point == log.index.last_point
    recovered.journal.abandon()


def test_the_floor_counts_as_committed(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, log.inserts(3, commit=0))
    recovered = recover_small(tmp_path, log, 2)
    assert recovered.commit == 2
    recovered.journal.abandon()


def test_the_last_entry_cut_at_every_byte(tmp_path: Path, log: LogBuilder) -> None:
    """Recover, append, recover again: the entries before and after the cut are intact."""
    whole = log.inserts(3)
    start = log.index.end_of(2)
    for size in range(start, len(whole)):
        directory = tmp_path / str(size)
        store(directory, whole[:size])
        recovered = recover_small(directory, log)
        assert recovered.index.last == 2, size
        assert recovered.cut_bytes == size - start
        assert lost_and_found(directory) == ([whole[start:size]] if size > start else [])
        after = LogBuilder()
        after.index = recovered.index
        new = after.insert(write_of("new")) + after.inserts(1)
        recovered.journal.append(new, after.index, 3)
        recovered.journal.sync()
        recovered.journal.abandon()
        again = recover_small(directory, log)
        assert again.index.last_point == after.index.last_point
        assert again.cut_bytes == 0
        assert b"".join(files_of(directory).values()) == whole[:start] + new
        again.journal.abandon()


def flip(at: int) -> Damage:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        flip(0),
        flip(300),
        lambda data: b"\0" * len(data),
        lambda data: data[:10] + b"\0" * 200 + data[210:],
        lambda data: b"\n" + data[1:],
        lambda data: data[:-1] + b"x",
        lambda data: data[100:],
        lambda data: b"\n\n\n",
        lambda data: b"\xff" * 5000,
    ],
)
def test_garbled_unsynced_lines_are_cut_and_kept(
    tmp_path: Path, log: LogBuilder, damage: Damage
) -> None:
    """A power cut: the synced entries 1 to 3 stand, the batch 4 to 8 was being written."""
    synced = log.inserts(3) + log.inserts(1, commit=3)
    tail = log.inserts(4, commit=3)
    garbled = damage(tail)
    store(tmp_path, synced + garbled)
    recovered = recover(tmp_path, log.genesis, 3)
    kept = recovered.index.last
    assert kept >= 4
    cut = (synced + garbled)[recovered.index.end :]
    assert cut
    assert recovered.cut_bytes == len(cut)
    assert recovered.kept is not None
    assert recovered.kept.read_bytes() == cut
    assert recovered.commit == 3
    recovered.journal.abandon()
    again = recover(tmp_path, log.genesis, 3)
    assert (again.index.last, again.cut_bytes) == (kept, 0)
    again.journal.abandon()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_damage_is_cut_or_refused_and_never_passes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Entries 1 to 4 are named as committed: whatever happens to the bytes, they are not lost."""
    log = LogBuilder()
    lines = log.inserts(4) + log.inserts(4, commit=4)
    at = data.draw(st.integers(0, len(lines) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=40))
    damaged = lines[:at] + garbage + lines[at + len(garbage) :]
    directory = tmp_path_factory.mktemp("damage")
    store(directory, damaged)
    try:
        recovered = recover(directory, log.genesis, 0)
    except CorruptLogError:
        assert at < log.index.end_of(4)
        assert next(iter(files_of(directory).values())) == damaged
    else:
        assert recovered.index.last >= 4
        assert log.index.holds(recovered.index.last_point)
        assert damaged.startswith(lines[: recovered.index.end])
        recovered.journal.abandon()
    shutil.rmtree(directory)


@pytest.mark.parametrize("at", [0, 10, 150, 400])
def test_damage_below_the_floor_is_corruption(tmp_path: Path, log: LogBuilder, at: int) -> None:
    path = store(tmp_path, flip(at)(log.inserts(3)))
    entry = 1 + sum(at >= log.index.end_of(i) for i in (1, 2, 3))
    message = refused(tmp_path, log, entry)
    assert str(path) in message
    assert f"byte {log.index.end_of(entry - 1)}, entry {entry}: digest" in message
    assert "applied as committed" in message


def test_damage_above_the_floor_is_a_torn_tail(tmp_path: Path, log: LogBuilder) -> None:
    lines = log.inserts(3)
    store(tmp_path, flip(log.index.end_of(2) + 5)(lines))
    recovered = recover_small(tmp_path, log, 2)
    assert recovered.index.last == 2
    recovered.journal.abandon()


def test_a_log_that_ends_below_the_floor_is_corruption(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, log.inserts(3))
    assert "the log ends" in refused(tmp_path, log, 4)


def test_a_vanished_log_is_corruption(tmp_path: Path, log: LogBuilder) -> None:
    (tmp_path / "log").mkdir()
    assert "applied as committed" in refused(tmp_path, log, 1)


@pytest.mark.parametrize("shape", ["flipped", "cut at a line", "cut in a line"])
def test_damage_before_the_mark_is_corruption(tmp_path: Path, log: LogBuilder, shape: str) -> None:
    recovered = recover_small(tmp_path, log)
    lines = log.inserts(3)
    recovered.journal.append(lines, log.index, 1)
    recovered.journal.sync()
    recovered.journal.mark_synced(log.index, 3)
    recovered.journal.close()
    start = log.index.end_of(2)
    damaged = {
        "flipped": flip(start + 20)(lines),
        "cut at a line": lines[:start],
        "cut in a line": lines[:-1],
    }
    store(tmp_path, damaged[shape])
    assert "synced up to entry 3" in refused(tmp_path, log)


def test_another_log_under_the_same_mark_is_corruption(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, log.inserts(3))
    recover_small(tmp_path, log).journal.close()
    other = LogBuilder()
    store(tmp_path, other.inserts(2) + other.insert(write_of("another")))
    assert "entry 3 is not the one that was synced" in refused(tmp_path, other)


def test_damage_to_what_a_later_line_names_as_committed_is_corruption(
    tmp_path: Path, log: LogBuilder
) -> None:
    lines = log.inserts(4) + log.inserts(1, commit=3)
    store(tmp_path, flip(log.index.end_of(2) + 5)(lines))
    assert "entries up to 3 are committed" in refused(tmp_path, log)


def test_a_later_line_counts_even_if_the_damage_took_its_line_break(
    tmp_path: Path, log: LogBuilder
) -> None:
    lines = log.inserts(3) + log.inserts(1, commit=3)
    end = log.index.end_of(3)
    store(tmp_path, lines[: end - 90] + b"\0" * 90 + lines[end:])
    assert "entries up to 3 are committed" in refused(tmp_path, log)


def test_what_the_damaged_line_itself_says_does_not_count(tmp_path: Path, log: LogBuilder) -> None:
    lines = log.inserts(3)
    start = log.index.end_of(2)
    tail = lines[start:].replace(b'"commit":0', b'"commit":9')
    store(tmp_path, lines[:start] + tail)
    recovered = recover_small(tmp_path, log)
    assert (recovered.index.last, recovered.commit, recovered.cut_bytes) == (2, 0, len(tail))
    recovered.journal.abandon()


def test_a_record_that_imitates_an_entry_is_no_evidence(tmp_path: Path, log: LogBuilder) -> None:
    """Else a client could choose that a power cut leaves a replica that refuses to start."""
    fake = b'{"index":9,"epoch":1,"time":"t","commit":8,"operation":"insert"}'
    lines = log.inserts(2)
    torn = log.insert(write_of("x", b'{"a":%b,"b":[%b,%b]}' % (fake, fake, fake)))[:-10]
    store(tmp_path, lines + torn)
    recovered = recover_small(tmp_path, log)
    assert (recovered.index.last, recovered.cut_bytes) == (2, len(torn))
    recovered.journal.abandon()


def test_a_record_that_quotes_an_entry_is_no_evidence(tmp_path: Path, log: LogBuilder) -> None:
    """In a JSON string the quotes of the imitation are escaped."""
    quote = (
        rb'{"x":"{\"index\":9,\"epoch\":1,\"time\":\"t\",\"commit\":8,\"operation\":\"insert\""}'
    )
    lines = log.inserts(2) + log.insert(write_of("a")) + log.insert(write_of("b", quote))
    store(tmp_path, flip(log.index.end_of(2) + 5)(lines))
    recovered = recover_small(tmp_path, log)
    assert recovered.index.last == 2
    recovered.journal.abandon()


@pytest.mark.parametrize("at", ["begin", "middle", "end"])
def test_damage_in_a_segment_that_has_a_successor_is_corruption(
    tmp_path: Path, stored: Recovered, log: LogBuilder, at: str
) -> None:
    """Also without a mark and without a committed entry: segments are synced before rolls."""
    stored.journal.append(log.inserts(20), log.index, 1)
    name, content = list(files_of(tmp_path).items())[1]
    size = len(content)
    damaged = {"begin": flip(3)(content), "middle": flip(size // 2)(content), "end": content[:-1]}
    (tmp_path / "log" / name).write_bytes(damaged[at])
    assert "a later segment shows" in refused(tmp_path, log)


def test_an_empty_last_segment_is_a_torn_roll(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    """It goes away: the next entry may still fit the segment before."""
    stored.journal.append(log.inserts(5), log.index, 1)
    before = files_of(tmp_path)
    store(tmp_path, b"", first=6)
    recovered = recover_small(tmp_path, log)
    assert (recovered.index.last, recovered.cut_bytes, recovered.kept) == (5, 0, None)
    assert files_of(tmp_path) == before
    recovered.journal.abandon()


def test_an_empty_only_segment_is_an_empty_log(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, b"")
    recovered = recover_small(tmp_path, log)
    assert recovered.index.last == 0
    assert files_of(tmp_path) == {}
    recovered.journal.append(log.inserts(1), log.index, 1)
    recovered.journal.abandon()


def test_a_last_segment_that_is_torn_from_its_first_byte_goes_away(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    before = files_of(tmp_path)
    name, content = before.popitem()
    (tmp_path / "log" / name).write_bytes(b"\0" * len(content))
    recovered = recover_small(tmp_path, log)
    assert recovered.index.last == int(name[:20]) - 1
    assert files_of(tmp_path) == before
    assert lost_and_found(tmp_path) == [b"\0" * len(content)]
    recovered.journal.abandon()


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_corruption(
    tmp_path: Path, stored: Recovered, log: LogBuilder, which: int
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    (tmp_path / "log" / list(files_of(tmp_path))[which]).unlink()
    assert "one is missing or has another's name" in refused(tmp_path, log)


def test_a_segment_under_another_name_is_corruption(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    last = tmp_path / "log" / list(files_of(tmp_path))[-1]
    last.rename(last.with_name(f"{99:020d}.jsonl"))
    assert "one is missing or has another's name" in refused(tmp_path, log)


def test_a_log_of_another_cluster_is_corruption(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, LogBuilder("other").inserts(2, commit=1))
    assert "entry 1: digest" in refused(tmp_path, log)


def sealed(log: LogBuilder, **changed: object) -> bytes:
    """An entry that follows the log by its digest, with members that cannot follow."""
    members = {"index": log.index.last + 1, "epoch": 2, "time": "1970-01-01T00:00:09.000Z"}
    line, _ = encode_changes(
        (Change("insert", "sealed", b"{}"),),
        collection="forms",
        request="r-sealed",
        fingerprint="0" * 32,
        commit=0,
        previous=log.index.last_point.digest,
        **(members | changed),  # type: ignore[arg-type]
    )
    return line


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"index": 5}, "index 5 instead of 4"),
        ({"epoch": 1}, "epoch 1 after 2"),
        ({"time": "1970-01-01T00:00:00.000Z"}, "time 1970-01-01T00:00:00.000Z after"),
    ],
)
def test_a_sealed_line_that_cannot_follow_is_never_cut(
    tmp_path: Path, log: LogBuilder, changed: dict[str, object], why: str
) -> None:
    """Its digest is right, so no torn write made it."""
    store(tmp_path, log.open_epoch(2) + log.inserts(2) + sealed(log, **changed))
    assert why in refused(tmp_path, log)


def test_recovery_that_dies_after_keeping_the_tail_is_begun_again(
    tmp_path: Path, log: LogBuilder
) -> None:
    path = store(tmp_path, log.inserts(3)[:-5])
    torn = path.read_bytes()
    recover_small(tmp_path, log).journal.abandon()
    path.write_bytes(torn)  # As if it had died between keeping and cutting.
    recovered = recover_small(tmp_path, log)
    assert recovered.index.last == 2
    assert lost_and_found(tmp_path) == [torn[log.index.end_of(2) :]] * 2
    recovered.journal.abandon()


def test_no_room_to_keep_a_torn_tail_means_no_cut(
    tmp_path: Path, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    path = store(tmp_path, log.inserts(3)[:-5])
    torn = path.read_bytes()
    with file_size_limit(100), pytest.raises(DiskFullError):
        recover_small(tmp_path, log)
    assert path.read_bytes() == torn
    assert lost_and_found(tmp_path) == []


def test_a_full_disk_does_not_keep_an_intact_log_from_being_used(
    tmp_path: Path, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    store(tmp_path, log.inserts(3))
    with file_size_limit(0):
        recovered = recover_small(tmp_path, log)
    assert recovered.index.last == 3
    recovered.journal.abandon()


def test_recovery_leaks_no_descriptor_when_it_refuses(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, log.inserts(3))
    before = os.listdir("/proc/self/fd")
    refused(tmp_path, log, 4)
    assert os.listdir("/proc/self/fd") == before


def test_lines_longer_than_a_block_are_read_whole(tmp_path: Path, log: LogBuilder) -> None:
    store(tmp_path, log.inserts(2, padding=9_000_000))
    recovered = recover(tmp_path, log.genesis, 0)
    assert recovered.index.last_point == log.index.last_point
    recovered.journal.abandon()


def test_evidence_across_a_block_boundary_is_found(tmp_path: Path, log: LogBuilder) -> None:
    """The head that names entry 1 as committed lies around 4 MiB after the damage."""
    for shift in range(0, 120, 7):
        other = LogBuilder()
        damaged = flip(3)(other.inserts(1, padding=4 * 1024 * 1024 - 330 + shift))
        store(tmp_path, damaged + other.inserts(1, commit=1))
        assert "entries up to 1 are committed" in refused(tmp_path, other)


@pytest.mark.parametrize("clean", [True, False])
def test_what_may_not_have_been_synced_is_written_again(
    tmp_path: Path, log: LogBuilder, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    """After a failed sync the kernel would not write it again by itself."""
    written: list[tuple[bytes, int]] = []
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".jsonl"):
            written.append((bytes(data), os.lseek(descriptor, 0, os.SEEK_CUR)))
        return real(descriptor, data)

    stored = recover(tmp_path, log.genesis, 0)
    lines = log.inserts(5)
    stored.journal.append(lines, log.index, 1)
    stored.journal.sync()
    stored.journal.mark_synced(log.index, 5 if clean else 2)
    stored.journal.close()
    monkeypatch.setattr(os, "write", write)
    again = recover(tmp_path, log.genesis, 0)
    again.journal.abandon()
    start = log.index.end_of(2)
    assert written == ([] if clean else [(lines[start:], start)])
    assert b"".join(files_of(tmp_path).values()) == lines
