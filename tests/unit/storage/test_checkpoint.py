"""Sidecars of full segments: a restart believes what it can check, and reads the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicad.errors import CorruptLogError, DiskFailedError
from replicad.storage.checkpoint import Checkpoints, read_entries
from replicad.storage.recovery import Recovered, recover
from tests.support.entries import LogBuilder, write_of
from tests.unit.storage.conftest import FileSizeLimit, files_of

SEGMENT_BYTES = 1000
Damage = Callable[[bytes], bytes]
RecoverAgain = Callable[..., Recovered]


@pytest.fixture
def filled(stored: Recovered, log: LogBuilder) -> Recovered:
    """Some segments with two epochs, and all the sidecars that there can be.

    The second leader knew of fewer commits at first than the first one had written down.
    """
    lines = log.open_epoch(3) + log.inserts(7, commit=2) + log.inserts(2, commit=7)
    lines += log.open_epoch(4, commit=3) + log.inserts(9, commit=5)
    stored.journal.append(lines, log.index, 1)
    stored.journal.sync()
    write_sidecars(stored.checkpoints, log)
    return stored


def write_sidecars(checkpoints: Checkpoints, log: LogBuilder) -> None:
    while checkpoints.write_one(log.index):
        pass


def sidecars(directory: Path) -> list[Path]:
    return sorted((directory / "log").glob("*.index"))


@pytest.fixture
def recover_again(tmp_path: Path, log: LogBuilder) -> Iterator[RecoverAgain]:
    """Recovers what must be the builder's log, with this commit index."""
    opened: list[Recovered] = []

    def again(commit: int = 7) -> Recovered:
        recovered = recover(tmp_path, log.genesis, 0, segment_bytes=SEGMENT_BYTES)
        opened.append(recovered)
        assert recovered.index.points() == log.index.points()
        assert recovered.index.epoch_starts == log.index.epoch_starts
        ends = [recovered.index.end_of(i) for i in range(log.index.last + 1)]
        assert ends == [log.index.end_of(i) for i in range(log.index.last + 1)]
        assert (recovered.commit, recovered.last_time) == (commit, "1970-01-01T00:00:19.000Z")
        return recovered

    yield again
    for recovered in opened:
        recovered.journal.abandon()


def last_segment_bytes(recovered: Recovered) -> int:
    return recovered.journal.end - recovered.journal.segments[-1].start


def test_every_full_segment_gets_one_and_a_restart_reads_the_last_segment_only(
    tmp_path: Path, filled: Recovered, log: LogBuilder, recover_again: RecoverAgain
) -> None:
    stems = [path.stem for path in sidecars(tmp_path)]
    assert len(stems) > 3
    assert [f"{stem}.jsonl" for stem in stems] == list(files_of(tmp_path))[:-1]
    again = recover_again()
    assert again.read_bytes == last_segment_bytes(filled)
    assert not again.checkpoints.write_one(again.index)


def test_one_call_writes_one(tmp_path: Path, stored: Recovered, log: LogBuilder) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    assert stored.checkpoints.write_one(log.index)
    stored.checkpoints.finish()
    assert len(sidecars(tmp_path)) == 1


def test_without_sidecars_everything_is_read(
    tmp_path: Path, filled: Recovered, log: LogBuilder, recover_again: RecoverAgain
) -> None:
    for path in sidecars(tmp_path):
        path.unlink()
    again = recover_again()
    assert again.read_bytes == log.index.end
    assert again.checkpoints.write_one(again.index)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\0" * len(data),
        lambda data: data[:5] + bytes([data[5] ^ 1]) + data[6:],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    ],
)
def test_a_damaged_sidecar_counts_for_nothing(
    tmp_path: Path, filled: Recovered, log: LogBuilder, damage: Damage, recover_again: RecoverAgain
) -> None:
    """And is written again."""
    second = sidecars(tmp_path)[1]
    whole = second.read_bytes()
    second.write_bytes(damage(whole))
    again = recover_again()
    segments = filled.journal.segments
    assert again.read_bytes == last_segment_bytes(filled) + segments[2].start - segments[1].start
    assert again.checkpoints.write_one(again.index)
    again.checkpoints.finish()
    assert second.read_bytes() == whole


def test_a_sidecar_of_another_segment_counts_for_nothing(
    tmp_path: Path, filled: Recovered, log: LogBuilder, recover_again: RecoverAgain
) -> None:
    first, second = sidecars(tmp_path)[:2]
    second.write_bytes(first.read_bytes())
    assert recover_again().read_bytes > last_segment_bytes(filled)


def flip(path: Path, at: int) -> None:
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("at", [0, 50, -1, -2, -50, -150])
def test_damage_in_the_first_or_last_line_is_seen_despite_the_sidecar(
    tmp_path: Path, filled: Recovered, log: LogBuilder, at: int, recover_again: RecoverAgain
) -> None:
    flip(tmp_path / "log" / list(files_of(tmp_path))[1], at)
    with pytest.raises(CorruptLogError, match="a later segment shows that it was synced"):
        recover_again()


@pytest.mark.parametrize("change", ["shorter", "longer"])
def test_a_segment_of_another_size_is_seen_despite_the_sidecar(
    tmp_path: Path, filled: Recovered, log: LogBuilder, change: str, recover_again: RecoverAgain
) -> None:
    path = tmp_path / "log" / list(files_of(tmp_path))[1]
    data = path.read_bytes()
    path.write_bytes(data[:-400] if change == "shorter" else data + b"\n")
    with pytest.raises(CorruptLogError):
        recover_again()


def test_a_stale_sidecar_does_not_bring_back_what_was_cut(
    tmp_path: Path, filled: Recovered, log: LogBuilder, recover_again: RecoverAgain
) -> None:
    """After a truncation a segment of the same name fills up with something else."""
    stale = sidecars(tmp_path)[1].read_bytes()
    first_gone = int(sidecars(tmp_path)[1].stem)
    filled.journal.truncate(log.index, first_gone, epoch=7)
    log.index.truncate(first_gone)
    lines = log.open_epoch(4, commit=3) + log.insert(write_of("seven"), commit=3)
    lines += b"".join(log.insert(write_of(f"other{i}")) for i in range(20 - log.index.last))
    filled.journal.append(lines, log.index, first_gone)
    filled.journal.sync()
    (tmp_path / "log" / f"{first_gone:020d}.index").write_bytes(stale)
    again = recover_again(3)
    assert again.read_bytes > last_segment_bytes(filled)
    assert filled.checkpoints.write_one(log.index), "by the last digest, not by the name"


def test_sidecars_go_with_their_segments(
    tmp_path: Path, filled: Recovered, log: LogBuilder
) -> None:
    filled.journal.truncate(log.index, 5, epoch=7)
    assert {path.stem for path in sidecars(tmp_path)} <= {
        name.removesuffix(".jsonl") for name in files_of(tmp_path)
    }


def test_a_full_disk_is_no_error_for_a_sidecar(
    tmp_path: Path, stored: Recovered, log: LogBuilder, file_size_limit: FileSizeLimit
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    with file_size_limit(10):
        stored.checkpoints.write_one(log.index)
        stored.checkpoints.finish()
    assert [path.suffix for path in (tmp_path / "log").iterdir() if path.suffix == ".tmp"] == []
    assert sidecars(tmp_path) == []


def test_what_went_wrong_beside_is_told_the_next_time(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    lines = log.inserts(20)
    stored.journal.append(lines, log.index, 1)
    second = stored.journal.segments[1]
    (tmp_path / "log" / (second.checkpoint + ".tmp")).mkdir()
    with pytest.raises(DiskFailedError, match=second.checkpoint):
        write_sidecars(stored.checkpoints, log)
    assert len(sidecars(tmp_path)) == 1


def test_a_sidecar_is_not_made_of_a_line_that_was_damaged_since(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    stored.journal.append(log.inserts(20), log.index, 1)
    flip(tmp_path / "log" / next(iter(files_of(tmp_path))), -20)
    with pytest.raises(CorruptLogError, match="entry 3: digest"):
        Checkpoints(stored.journal).write_one(log.index)
    assert sidecars(tmp_path) == []


@pytest.mark.parametrize("from_disk", [False, True])
def test_any_flipped_bit_is_found_by_reading_back(
    tmp_path: Path, filled: Recovered, log: LogBuilder, from_disk: bool
) -> None:
    read_entries(filled.journal, log.index, 1, log.index.last, from_disk=from_disk)
    path = tmp_path / "log" / list(files_of(tmp_path))[1]
    start = filled.journal.segments[1].start
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        os.truncate(path, 0)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        entry = next(i for i in range(1, 21) if log.index.end_of(i) > start + at)
        byte = log.index.end_of(entry - 1) - start
        with pytest.raises(CorruptLogError, match=f"byte {byte}, entry {entry}: "):
            read_entries(filled.journal, log.index, 1, log.index.last, from_disk=from_disk)
        read_entries(filled.journal, log.index, 1, entry - 1)


def test_a_line_exchanged_for_another_valid_one_is_found(
    tmp_path: Path, stored: Recovered, log: LogBuilder
) -> None:
    """Its own digest is right, and still it is not the one that was appended."""
    lines = log.inserts(2)
    stored.journal.append(lines, log.index, 1)
    other = LogBuilder()
    changed = other.inserts(1) + other.insert(write_of("2", b'{"x":""}', collection="other"))
    changed = changed[: len(lines)].ljust(len(lines))
    (tmp_path / "log" / next(iter(files_of(tmp_path)))).write_bytes(changed)
    with pytest.raises(CorruptLogError, match="entry 2: "):
        read_entries(stored.journal, log.index, 1, 2)
