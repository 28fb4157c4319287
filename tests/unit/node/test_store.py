"""Log and record store of one replica, opened together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from replicad.core.entry import encode_epoch, format_time, split_lines, split_value
from replicad.core.messages import Point
from replicad.errors import CorruptLogError, DiskFullError, RecordsDamagedError
from replicad.node import store as module
from replicad.node.store import Store
from replicad.storage.datadir import DataDirectory
from replicad.storage.journal import Journal
from replicad.storage.places import index_of
from replicad.storage.sealed import seal
from tests.support.entries import LogBuilder, opening_of, write_of
from tests.support.logs import log_bytes
from tests.support.record_stores import scan_all

Open = Callable[[], Store]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    opened = DataDirectory.open(tmp_path, "n1")
    opened.adopt_cluster("test")
    yield opened
    opened.close()


@pytest.fixture
def open_store(directory: DataDirectory) -> Open:
    """Opens the store of one directory."""
    return lambda: Store(directory)


def fill(store: Store, count: int, *, commit: int = 0) -> LogBuilder:
    """Append an epoch and records up to index `count`, and sync them."""
    builder = LogBuilder()
    lines = builder.open_epoch(1) + builder.inserts(count - 1, commit=commit)
    append(store, builder, lines)
    store.sync()
    return builder


def append(store: Store, builder: LogBuilder, lines: bytes) -> None:
    """Append lines of the builder that end where it ends."""
    first = store.log.last + 1
    built = builder.index
    for index, line in enumerate(split_lines(lines), first):
        store.log.append(built.epoch_at(index), len(line) + 1, built.digest_at(index))
    store.append(first, lines)


def keys(store: Store) -> list[int]:
    """The entries that wrote the records."""
    upto = store.records.applied.index
    return [index_of(at) for at, _ in scan_all(store.records, upto=upto)]


def open_files() -> list[str]:
    """What this process has open of logs and record stores."""
    targets = (path.resolve().name for path in Path("/proc/self/fd").iterdir())
    return sorted(name for name in targets if name.startswith("records.") or "jsonl" in name)


def test_what_was_applied_is_there_again(open_store: Open) -> None:
    store = open_store()
    builder = fill(store, 4)
    store.apply(3)
    assert keys(store) == [2, 3]
    store.close()
    again = open_store()
    assert (again.log.last_point, again.commit, again.cut_bytes) == (builder.index.last_point, 3, 0)
    assert again.last_time > ""
    assert keys(again) == [2, 3]
    again.abandon()


def test_what_the_log_says_is_committed_is_applied_on_opening(open_store: Open) -> None:
    """The last entry names the commit index of its time."""
    store = open_store()
    fill(store, 4, commit=3)
    assert keys(store) == []
    store.abandon()
    again = open_store()
    assert (again.commit, keys(again)) == (3, [2, 3])
    again.abandon()


@pytest.mark.parametrize("damage", [b"", b"no database at all", None])
def test_damaged_records_are_made_anew_from_the_log(
    tmp_path: Path, open_store: Open, damage: bytes | None
) -> None:
    store = open_store()
    fill(store, 4, commit=3)
    store.apply(3)
    store.close()
    path = tmp_path / "records.sqlite"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    again = open_store()
    assert keys(again) == [2, 3]
    assert again.records.get([("forms", "2")]) != [None]
    again.abandon()


def test_records_damaged_on_the_disk_can_be_made_anew(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    builder = fill(store, 1000)
    store.apply(999)
    store.close()
    path = tmp_path / "records.sqlite"
    content = path.read_bytes()
    quarter = len(content) // 4  # The first and the last pages are read on opening.
    path.write_bytes(content[:quarter] + b"\xee" * quarter + content[2 * quarter :])
    again = open_store()
    again.rebuild(1000)
    assert again.records.applied == builder.index.last_point
    assert len(scan_all(again.records, upto=1000)) == 999
    again.abandon()


def test_records_found_damaged_when_more_is_applied_are_made_anew(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    fill(store, 4)
    store.apply(2)
    take = store.records.take
    damaged = [RecordsDamagedError("damaged")]

    def fail_once(lines: Iterable[bytes], digest: bytes) -> None:
        if damaged:
            raise damaged.pop()
        take(lines, digest)

    monkeypatch.setattr(store.records, "take", fail_once)
    store.apply(4)
    assert keys(store) == [2, 3, 4]
    store.abandon()


def test_records_of_another_log_are_refused(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    fill(store, 4)
    store.apply(3)
    store.close()
    with sqlite3.connect(tmp_path / "records.sqlite") as connection:
        connection.execute("UPDATE applied SET digest = ?", (b"x" * 32,))
    connection.close()
    with pytest.raises(CorruptLogError, match="differ at the committed entry 3") as refused:
        open_store()
    assert open_files() == []
    del refused  # Until here it kept what the failed attempt had opened from being collected.


def test_a_clean_end_protects_the_last_entry(tmp_path: Path, open_store: Open) -> None:
    """It was synced and may have been acked, so its damage is no torn tail."""
    store = open_store()
    fill(store, 4)
    store.close()
    damage_last_byte(tmp_path)
    with pytest.raises(CorruptLogError, match="synced up to entry 4"):
        open_store()


def test_what_is_appended_is_applied_without_being_read_again(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    builder = fill(store, 4)
    monkeypatch.delattr(Journal, "read")
    store.apply(3)
    append(store, builder, builder.inserts(3))
    store.apply(6)
    store.apply(7)
    assert keys(store) == [2, 3, 4, 5, 6, 7]
    store.abandon()


@pytest.mark.parametrize("kept_bytes", [0, 600, 1000, 1400])
def test_what_is_not_kept_is_applied_from_the_log(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES_MAX", kept_bytes)
    store = open_store()
    builder = fill(store, 3)
    for count in (2, 1, 4):
        append(store, builder, builder.inserts(count))
        store.apply(builder.index.last - 2)
    store.apply(10)
    assert [value for _, value in scan_all(store.records, upto=10)] == values_of(store, 2, 10)
    store.abandon()


def test_what_was_kept_is_cut_with_the_log(open_store: Open) -> None:
    store = open_store()
    fill(store, 5)
    store.apply(2)
    store.truncate(4)
    store.log.truncate(4)
    other = LogBuilder()
    other.open_epoch(1)
    other.inserts(2)
    append(store, other, other.insert(write_of("another")))
    store.apply(4)
    assert [value for _, value in scan_all(store.records, upto=4)] == values_of(store, 2, 4)
    store.abandon()


def values_of(store: Store, first: int, last: int) -> list[bytes]:
    """What the entries say that was stored, by the files of the log."""
    return [split_value(line)[1] for line in split_lines(store.read(first, last - first + 1))]


def test_what_was_applied_is_protected_before_it_is_in_the_record_store(
    tmp_path: Path, open_store: Open
) -> None:
    """Whoever applied it knew that it was committed, so its damage is no torn tail."""
    store = open_store()
    fill(store, 4)
    store.apply(4)
    assert store.records.settled.index == 0
    store.abandon()
    damage_last_byte(tmp_path)
    with pytest.raises(CorruptLogError, match="synced up to entry 4"):
        open_store()


def test_what_was_applied_is_written_when_the_mark_is(open_store: Open) -> None:
    store = open_store()
    fill(store, 4)
    store.apply(3)
    store.mark_synced()
    assert store.records.settled.index == 3
    store.abandon()
    again = open_store()
    assert (again.commit, keys(again)) == (3, [2, 3])
    again.abandon()


def test_without_room_what_was_applied_waits(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    fill(store, 4)
    store.apply(3)
    with monkeypatch.context() as full:

        def fail() -> None:
            raise DiskFullError("no room")

        full.setattr(store.records, "settle", fail)
        store.mark_synced()
    assert store.records.settled.index == 0
    store.mark_synced()
    assert store.records.settled.index == 3
    store.abandon()


def test_what_is_taken_while_the_record_store_is_damaged(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out when it is written, and all of it is made anew."""
    store = open_store()
    fill(store, 4)
    store.apply(3)
    settle = store.records.settle

    def fail_once() -> None:
        monkeypatch.setattr(store.records, "settle", settle)
        raise RecordsDamagedError("damaged")

    monkeypatch.setattr(store.records, "settle", fail_once)
    store.mark_synced()
    assert store.records.applied.index == 3
    assert keys(store) == [2, 3]
    store.abandon()


def test_a_torn_tail_is_cut_and_the_log_goes_on(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    builder = fill(store, 3)
    store.mark_synced()
    append(store, builder, builder.inserts(1))
    store.abandon()
    before = damage_last_byte(tmp_path)
    again = open_store()
    assert again.log.last == 3
    assert again.cut_bytes == builder.index.end - builder.index.end_of(3)
    (kept,) = (tmp_path / "lost+found").iterdir()
    assert before.endswith(kept.read_bytes())
    other = LogBuilder()
    other.open_epoch(1)
    other.inserts(2)
    append(again, other, other.insert(write_of("another")))
    again.sync()
    again.close()
    last = open_store()
    assert last.log.last_point == other.index.last_point
    last.abandon()


def damage_last_byte(directory: Path) -> bytes:
    """Make the last line unreadable; returns the log as it is then."""
    (segment,) = (directory / "log").glob("*.jsonl")
    content = segment.read_bytes()
    segment.write_bytes(content[:-3] + b"?" + content[-2:])
    return segment.read_bytes()


def test_a_cut_tail_is_kept_and_synced_again_as_something_else(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store()
    builder = fill(store, 5)
    whole = log_bytes(tmp_path)
    store.truncate(4)
    store.log.truncate(4)
    assert log_bytes(tmp_path) == whole[: builder.index.end_of(3)]
    (kept,) = (tmp_path / "lost+found").iterdir()
    assert kept.read_bytes() == whole[builder.index.end_of(3) :]
    store.mark_synced()
    line, digest = encode_epoch(
        opening_of("n2"),
        index=4,
        epoch=2,
        time=format_time(9000),
        commit=3,
        previous=store.log.last_point.digest,
    )
    store.log.append(2, len(line), digest)
    store.append(4, line)
    assert store.sync() == 4
    store.close()
    again = open_store()
    assert (again.log.last_point, again.log.last_epoch) == (Point(4, digest), 2)
    again.abandon()


def test_lines_are_read_byte_for_byte(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    builder = fill(store, 5)
    whole = log_bytes(tmp_path)
    assert store.read(1, 5) == whole
    assert store.read(2, 2) == whole[builder.index.end_of(1) : builder.index.end_of(3)]
    store.abandon()


def test_the_epoch_is_on_the_disk(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    store.persist_epoch(7)
    assert (tmp_path / "epoch").read_bytes() == seal(b"7")
    store.abandon()


def test_a_log_that_is_refused_leaves_nothing_open(tmp_path: Path, open_store: Open) -> None:
    """A process that runs several replicas may be told to try again."""
    store = open_store()
    builder = fill(store, 4)
    store.apply(3)
    store.close()
    (segment,) = (tmp_path / "log").glob("*.jsonl")
    whole = segment.read_bytes()
    damage_last_byte(tmp_path)
    with pytest.raises(CorruptLogError) as refused:
        open_store()
    assert open_files() == []
    segment.write_bytes(whole)
    again = open_store()
    assert again.log.last_point == builder.index.last_point
    again.abandon()
    del refused  # Until here it kept what the failed attempt had opened from being collected.


def test_room_that_the_records_may_still_need(open_store: Open) -> None:
    """Twice what is in the log and not in the record store's file."""
    store = open_store()
    builder = fill(store, 5)
    assert store.unapplied_bytes() == 2 * builder.index.end
    store.apply(3)
    assert store.unapplied_bytes() == 2 * builder.index.end
    store.mark_synced()
    assert store.unapplied_bytes() == 2 * (builder.index.end - builder.index.end_of(3))
    store.apply(5)
    store.mark_synced()
    assert store.unapplied_bytes() == 0
    assert store.free_bytes() > 0
    store.abandon()
