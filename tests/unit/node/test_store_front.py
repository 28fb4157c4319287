"""A replica whose log does not begin with entry 1: snapshot and log together hold everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicad.core.entry import split_lines
from replicad.core.messages import Point
from replicad.errors import CorruptLogError
from replicad.node.store import Store
from replicad.storage import snapshot_worker
from replicad.storage.datadir import DataDirectory
from replicad.storage.logbase import Base
from replicad.storage.places import index_of
from replicad.storage.snapshot_build import build_snapshot, plan_build
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.entries import LogBuilder
from tests.support.logs import log_bytes
from tests.support.record_stores import scan_all

Open = Callable[[], Store]
COUNT = 40


def open_at(path: Path) -> Iterator[Open]:
    directory = DataDirectory.open(path, "n1")
    directory.adopt_cluster("test")
    yield lambda: Store(directory, segment_bytes=2000)
    directory.close()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    yield from open_at(tmp_path)


def fill(store: Store) -> LogBuilder:
    """Append, sync and apply COUNT entries."""
    builder = LogBuilder()
    append(store, builder, builder.open_epoch(1) + builder.inserts(COUNT - 1))
    store.sync()
    store.apply(COUNT)
    return builder


def append(store: Store, builder: LogBuilder, lines: bytes) -> None:
    first = store.log.last + 1
    built = builder.index
    for index, line in enumerate(split_lines(lines), first):
        store.log.append(built.epoch_at(index), len(line) + 1, built.digest_at(index))
    store.append(first, lines)


def keys(store: Store) -> list[int]:
    """The entries that wrote the records, whose keys they are."""
    upto = store.records.applied.index
    return [index_of(at) for at, _ in scan_all(store.records, upto=upto)]


def take_snapshot(store: Store, path: Path, committed: int = COUNT) -> Point:
    SnapshotFiles.open(path)
    plan = plan_build("test", 0, store.segment_firsts, committed)
    assert plan is not None
    return build_snapshot(path, plan)


def test_full_segments_get_their_sidecars_in_passing(tmp_path: Path, open_store: Open) -> None:
    """One at each mark; the next start reads the last segment only."""
    store = open_store()
    fill(store)
    while store._checkpoints.write_one(store.log):
        store.mark_synced()
    store.close()
    again = open_store()
    last_segment = again.log.end - again.log.end_of(again.segment_firsts[-1] - 1)
    assert 0 < last_segment < again.log.end
    assert again.read_bytes == last_segment
    assert (again.log.last, again.commit, len(keys(again))) == (COUNT, COUNT, COUNT - 1)
    again.abandon()


def test_what_retention_wants_to_know(open_store: Open) -> None:
    store = open_store()
    assert store.segment_facts() == []
    fill(store)
    facts = store.segment_facts()
    assert [fact.first for fact in facts] == list(store.segment_firsts)
    assert sum(fact.size for fact in facts) == store.log.end
    assert [fact.last_time for fact in facts] == sorted(fact.last_time for fact in facts)
    assert facts[-1].last_time == "1970-01-01T00:00:39.000Z"
    store.abandon()


def test_a_dropped_front_stays_dropped_and_the_rest_goes_on(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store()
    builder = fill(store)
    whole = log_bytes(tmp_path)
    third = store.segment_firsts[2]
    store.drop_before(third)
    assert store.log.first == third
    assert log_bytes(tmp_path) == whole[builder.index.end_of(third - 1) :]
    append(store, builder, builder.inserts(5))
    store.sync()
    store.apply(COUNT + 5)
    assert store.read(third, 2) == whole[store.log.start : store.log.end_of(third + 1)]
    store.close()
    again = open_store()
    assert (again.log.base, again.log.last) == (builder.index.point(third - 1), COUNT + 5)
    assert keys(again) == list(range(2, COUNT + 6))
    again.abandon()


def test_nothing_is_dropped_that_is_no_whole_segment(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    fill(store)
    whole = log_bytes(tmp_path)
    store.drop_before(store.segment_firsts[1] - 2)
    assert store.log.first == 1
    assert log_bytes(tmp_path) == whole
    store.abandon()


@pytest.mark.parametrize("running", [True, False])
def test_records_are_made_anew_from_snapshot_and_log(
    tmp_path: Path, open_store: Open, running: bool
) -> None:
    store = open_store()
    fill(store)
    point = take_snapshot(store, tmp_path)
    store.drop_before(point.index)
    assert store.log.base == point
    if running:
        store.rebuild(COUNT)
    else:
        store.close()
        (tmp_path / "records.sqlite").unlink()
        store = open_store()
        assert (store.commit, store.records.applied) == (point.index, point)
        store.apply(COUNT)
    assert keys(store) == list(range(2, COUNT + 1))
    assert store.records.applied == store.log.last_point
    store.abandon()


def test_a_snapshot_that_reaches_beyond_the_base_is_as_good(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store()
    fill(store)
    point = take_snapshot(store, tmp_path)
    store.drop_before(store.segment_firsts[2] - 1)
    assert store.log.base.index < point.index
    store.close()
    (tmp_path / "records.sqlite").unlink()
    again = open_store()
    assert (again.commit, again.records.applied) == (point.index, point)
    assert keys(again) == list(range(2, point.index + 1))
    again.abandon()


def test_without_the_front_and_without_a_snapshot_records_are_not_made_up(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store()
    fill(store)
    store.drop_before(COUNT)
    store.close()
    (tmp_path / "records.sqlite").unlink()
    with pytest.raises(CorruptLogError, match="no snapshot holds what was before: there is none"):
        open_store()


def test_a_damaged_snapshot_is_named(tmp_path: Path, open_store: Open) -> None:
    store = open_store()
    fill(store)
    point = take_snapshot(store, tmp_path)
    store.drop_before(point.index)
    path = SnapshotFiles(tmp_path).file_of(point.index)
    path.write_bytes(path.read_bytes().replace(b'"x":""', b'"z":""', 1))
    with pytest.raises(CorruptLogError, match="is not what its manifest says"):
        store.rebuild(COUNT)
    store.abandon()


@pytest.mark.parametrize("killed", [False, True])
def test_a_snapshot_takes_the_place_of_log_and_records(
    tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the process dies between the log and the records."""
    leader_dir, path = tmp_path / "leader", tmp_path / "follower"
    leaders, followers = open_at(leader_dir), open_at(path)
    leader, open_store = next(leaders)(), next(followers)
    builder = fill(leader)
    point = take_snapshot(leader, leader_dir)
    store = open_store()
    other = LogBuilder()
    append(store, other, other.open_epoch(1) + other.inserts(3, padding=9))
    store.sync()
    store.apply(1)
    lost = log_bytes(path)[other.index.end_of(1) :]
    (leader_dir / "snapshots").rename(path / "snapshots")
    snapshot_worker.load(str(path), point.index)
    base = Base(point, 1, "1970-01-01T00:00:30.000Z")
    if killed:
        monkeypatch.setattr(store.records, "replace_with", _die)
        with pytest.raises(KeyboardInterrupt):
            store.install(base, 1, path / snapshot_worker.LOADED_NAME)
        store.abandon()
        store = open_store()
        assert store.commit == point.index
    else:
        store.install(base, 1, path / snapshot_worker.LOADED_NAME)
    assert (store.log.last_point, store.last_time) == (point, base.time)
    assert keys(store) == list(range(2, point.index + 1))
    assert [kept.read_bytes() for kept in (path / "lost+found").iterdir()] == [lost]
    rest = leader.read(point.index + 1, COUNT - point.index)
    append(store, builder, rest)
    store.sync()
    store.apply(COUNT)
    store.close()
    again = open_store()
    assert again.log.last_point == builder.index.last_point
    assert keys(again) == list(range(2, COUNT + 1))
    assert log_bytes(leader_dir).endswith(log_bytes(path))
    again.abandon()
    leader.abandon()
    for each in (leaders, followers):
        next(each, None)


def _die(loaded: Path) -> None:
    raise KeyboardInterrupt(loaded)


def test_a_scrub_reads_all_in_slices_and_finds_a_flipped_bit(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store()
    fill(store)
    at, slices = store.log.first, 0
    while at <= store.log.last:
        at = store.check(at, 1000)
        slices += 1
    assert slices > 10
    segment = sorted((tmp_path / "log").glob("*.jsonl"))[1]
    content = segment.read_bytes()
    segment.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    damaged = store.segment_firsts[1] + 2
    assert store.check(damaged - 1, 1) == damaged
    with pytest.raises(CorruptLogError, match=f"{segment.name}, byte .*, entry {damaged}: digest"):
        store.check(damaged, 3000)
    store.abandon()
