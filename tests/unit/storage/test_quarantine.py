"""Repair of damaged logs, on real files: what is good stays, what is bad is kept and replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from replicad.core.messages import Point
from replicad.errors import MalformedEntryError, ProtocolViolationError
from replicad.storage.journal import Segment
from replicad.storage.logbase import Base, write_base
from replicad.storage.quarantine import Damage, LogRepair
from replicad.storage.recovery import recover
from replicad.storage.syncmark import Mark, SyncMark, read_mark
from tests.support.entries import LogBuilder, write_of
from tests.unit.storage.conftest import files_of

SEGMENT = 1000
NewRepair = Callable[..., LogRepair]


@pytest.fixture
def quarantine(tmp_path: Path) -> Path:
    return tmp_path / "quarantine" / "then-disk"


@pytest.fixture
def lines(tmp_path: Path, log: LogBuilder) -> list[bytes]:
    """The lines of 12 entries, which are stored in several segments."""
    made = [log.open_epoch(1), *(log.insert(write_of(str(n), b'{"x":1}')) for n in range(11))]
    recovered = recover(tmp_path, log.genesis, 0, segment_bytes=SEGMENT)
    recovered.journal.append(b"".join(made), log.index, 1)
    recovered.journal.sync()
    recovered.journal.mark_synced(log.index, 12)
    recovered.journal.close()
    assert len(files_of(tmp_path)) > 3
    return made


@pytest.fixture
def new_repair(tmp_path: Path, log: LogBuilder, quarantine: Path) -> NewRepair:
    def make(*, only_synced: bool = False) -> LogRepair:
        return LogRepair(
            tmp_path, log.genesis, quarantine, only_synced=only_synced, segment_bytes=SEGMENT
        )

    return make


def names_of(directory: Path) -> list[str]:
    return list(files_of(directory))


def path_of(directory: Path, at: int) -> Path:
    return directory / "log" / names_of(directory)[at]


def flip(path: Path, offset: int) -> bytes:
    """Flip one bit; returns what the file holds now."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    return bytes(data)


def missing(lines: list[bytes], damage: Damage) -> list[bytes]:
    assert damage.last is not None
    return lines[damage.first - 1 : damage.last]


def assert_recovers(directory: Path, log: LogBuilder, last: int) -> None:
    recovered = recover(directory, log.genesis, 0, segment_bytes=SEGMENT)
    assert recovered.index.last == last
    assert recovered.cut_bytes == 0
    recovered.journal.abandon()


def test_a_good_log_is_left_alone(
    tmp_path: Path, lines: list[bytes], new_repair: NewRepair
) -> None:
    before = files_of(tmp_path)
    repair = new_repair()
    assert repair.next_damage() is None
    assert repair.end.index == len(lines)
    assert (files_of(tmp_path), repair.set_aside) == (before, [])


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("offset", [30, 350])
def test_a_damaged_segment_is_filled_to_the_byte(
    tmp_path: Path,
    log: LogBuilder,
    lines: list[bytes],
    new_repair: NewRepair,
    quarantine: Path,
    at: int,
    offset: int,
) -> None:
    before = files_of(tmp_path)
    path = path_of(tmp_path, at)
    damaged = flip(path, offset)
    sidecar = path.with_suffix(".index")
    sidecar.touch()
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    assert "digest" in damage.why
    assert path.read_bytes() == damaged  # To look changes nothing.
    assert not quarantine.exists()
    repair.fill(missing(lines, damage))
    assert repair.next_damage() is None
    repair.finish()
    assert files_of(tmp_path) == before
    assert (quarantine / path.name).read_bytes() == damaged
    assert repair.set_aside == [path.name]
    assert not sidecar.exists()
    assert_recovers(tmp_path, log, len(lines))


def test_several_damaged_segments_are_filled_one_by_one(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair
) -> None:
    before = files_of(tmp_path)
    flip(path_of(tmp_path, 0), 10)
    flip(path_of(tmp_path, 1), 10)
    path_of(tmp_path, 2).write_bytes(b"")
    repair, filled = new_repair(), 0
    while (damage := repair.next_damage()) is not None:
        repair.fill(missing(lines, damage))
        filled += 1
    assert filled == 3
    assert files_of(tmp_path) == before


def test_lost_segments_at_the_front_get_their_own_files_again(
    tmp_path: Path, lines: list[bytes], new_repair: NewRepair
) -> None:
    before = files_of(tmp_path)
    for path in [path_of(tmp_path, 0), path_of(tmp_path, 1)]:
        path.unlink()
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    repair.fill(missing(lines, damage))
    assert repair.next_damage() is None
    assert files_of(tmp_path) == before


def test_lost_segments_in_the_middle_get_their_own_files_again(
    tmp_path: Path, lines: list[bytes], new_repair: NewRepair
) -> None:
    before = files_of(tmp_path)
    for path in [path_of(tmp_path, 1), path_of(tmp_path, 2)]:
        path.unlink()
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    assert "ends too early" in damage.why
    repair.fill(missing(lines, damage))
    assert repair.next_damage() is None
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("wrong", ["other bytes", "too few", "too many", "another log"])
def test_wrong_entries_change_nothing(
    tmp_path: Path, lines: list[bytes], new_repair: NewRepair, quarantine: Path, wrong: str
) -> None:
    flip(path_of(tmp_path, 1), 30)
    before = {path: path.read_bytes() for path in (tmp_path / "log").iterdir()}
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    right = missing(lines, damage)
    offered = {
        "other bytes": [*right[:-1], right[-1].replace(b'"x":1', b'"x":2')],
        "too few": right[:-1],
        "too many": [*right, lines[damage.last or 0]],
        "another log": [LogBuilder("other").open_epoch(1)],
    }[wrong]
    with pytest.raises(MalformedEntryError):
        repair.fill(offered)
    assert {path: path.read_bytes() for path in (tmp_path / "log").iterdir()} == before
    assert not quarantine.exists()
    repair.fill(right)  # From the next peer.
    assert repair.next_damage() is None


def test_what_no_peer_can_give_is_cut_with_all_that_follows(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair, quarantine: Path
) -> None:
    flip(path_of(tmp_path, 1), 350)
    before = files_of(tmp_path)
    (tmp_path / "records.sqlite").write_bytes(b"derived")
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    repair.cut()
    assert repair.next_damage() is None
    repair.finish()
    assert {path.name: path.read_bytes() for path in quarantine.iterdir()} == dict(
        list(before.items())[1:]
    )
    assert b"".join(files_of(tmp_path).values()) == b"".join(lines[: damage.first - 1])
    assert read_mark(tmp_path / "log").point == repair.end
    assert not (tmp_path / "records.sqlite").exists()
    assert_recovers(tmp_path, log, damage.first - 1)


def test_damage_in_the_last_segment_can_only_be_cut(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair
) -> None:
    flip(path_of(tmp_path, -1), 30)
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    assert damage.last is None
    with pytest.raises(ProtocolViolationError):
        repair.fill(lines)
    repair.cut()
    repair.finish()
    assert_recovers(tmp_path, log, damage.first - 1)


def test_after_a_failed_sync_only_what_was_marked_is_believed(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair, quarantine: Path
) -> None:
    whole = b"".join(files_of(tmp_path).values())
    mark = SyncMark(tmp_path / "log")
    mark.lower_to(Mark(log.index.end_of(7), log.index.point(7)))
    mark.close()
    repair = new_repair(only_synced=True)
    damage = repair.next_damage()
    assert damage == Damage(log.index.point(7), None, damage.why if damage else "")
    assert "not known to be synced" in damage.why
    repair.cut()
    assert repair.next_damage() is None
    repair.finish()
    assert b"".join(files_of(tmp_path).values()) == b"".join(lines[:7])
    kept = b"".join(path.read_bytes() for path in sorted(quarantine.iterdir()))
    assert whole.endswith(kept)
    assert_recovers(tmp_path, log, 7)


def test_after_a_failed_sync_without_a_mark_nothing_is_believed(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair, quarantine: Path
) -> None:
    before = files_of(tmp_path)
    (tmp_path / "log" / "synced").unlink()
    repair = new_repair(only_synced=True)
    assert repair.next_damage() is not None
    repair.cut()
    repair.finish()
    assert files_of(tmp_path) == {}
    assert {path.name: path.read_bytes() for path in quarantine.iterdir()} == before
    assert_recovers(tmp_path, log, 0)


def test_a_log_with_a_damaged_base_is_set_aside_whole(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair, quarantine: Path
) -> None:
    folder = tmp_path / "log"
    second = int(path_of(tmp_path, 1).stem)
    path_of(tmp_path, 0).unlink()
    write_base(folder, Base(log.index.point(second - 1), 1, position=log.index.end_of(second - 1)))
    flip(folder / "base", 5)
    repair = new_repair()
    damage = repair.next_damage()
    assert damage == Damage(Point(0, log.genesis), None, f"{folder / 'base'} is damaged")
    repair.cut()
    repair.finish()
    assert files_of(tmp_path) == {}
    assert (quarantine / "base").exists()
    assert_recovers(tmp_path, log, 0)


def test_strays_are_set_aside(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair, quarantine: Path
) -> None:
    (tmp_path / "log" / "copy.jsonl").write_bytes(b"x")
    repair = new_repair()
    assert repair.next_damage() is None
    repair.finish()
    assert (quarantine / "copy.jsonl").read_bytes() == b"x"
    assert_recovers(tmp_path, log, len(lines))


def test_a_segment_under_another_name_is_cut_with_all_that_follows(
    tmp_path: Path, log: LogBuilder, lines: list[bytes], new_repair: NewRepair
) -> None:
    path = path_of(tmp_path, 1)
    first = int(path.stem)
    path.rename(path.with_name(Segment(first - 1, 0).name))
    repair = new_repair()
    damage = repair.next_damage()
    assert damage is not None
    assert damage.last is None
    repair.cut()
    repair.finish()
    assert_recovers(tmp_path, log, first - 1)


class CrashError(Exception):
    pass


class Steps:
    """Lets some of the calls that change files happen, then crashes."""

    CALLS = ("rename", "replace", "link", "fsync", "unlink")

    def __init__(self, allowed: int, patched: pytest.MonkeyPatch) -> None:
        self.left = allowed
        for name in self.CALLS:
            patched.setattr(os, name, partial(self._step, getattr(os, name)))

    def _step(self, call: Callable[..., object], *args: object, **named: object) -> object:
        if self.left == 0:
            raise CrashError
        self.left -= 1
        return call(*args, **named)


@pytest.mark.parametrize("how", ["fill", "cut"])
def test_a_repair_may_be_interrupted_anywhere(
    tmp_path: Path,
    log: LogBuilder,
    lines: list[bytes],
    new_repair: NewRepair,
    quarantine: Path,
    how: str,
) -> None:
    damaged_path = path_of(tmp_path, 1)
    damaged = flip(damaged_path, 350)
    first = new_repair().next_damage()
    assert first is not None

    def repair_all() -> None:
        repair = new_repair()
        while (damage := repair.next_damage()) is not None:
            repair.fill(missing(lines, damage)) if how == "fill" else repair.cut()
        repair.finish()

    allowed, done = 0, False
    while not done:
        with pytest.MonkeyPatch.context() as patched, suppress(CrashError):
            Steps(allowed, patched)
            repair_all()
            done = True
        allowed += 1
    assert allowed > 3  # So it was interrupted at several steps, and went on each time.
    last = len(lines) if how == "fill" else first.previous.index
    assert b"".join(files_of(tmp_path).values()) == b"".join(lines[:last])
    kept = {path.name: path.read_bytes() for path in quarantine.iterdir()}
    assert kept[damaged_path.name] == damaged
    assert_recovers(tmp_path, log, last)
