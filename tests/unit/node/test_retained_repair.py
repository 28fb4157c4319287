"""Repair of a log whose front is gone: it is worth nothing without the snapshot of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.core.entry import genesis_digest
from replicad.errors import CorruptLogError
from replicad.node.store import Store
from replicad.storage.datadir import DataDirectory, Trouble
from replicad.storage.quarantine import LogRepair, begins_after
from replicad.storage.snapshot_files import SnapshotFiles
from tests.unit.node.test_store_front import fill, take_snapshot

SEGMENT = 2000


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.adopt_cluster("test")
    yield directory
    directory.close()


def retained(directory: DataDirectory) -> tuple[int, int]:
    """Drop the first two segments of several; the snapshot covers all full ones."""
    store = Store(directory, segment_bytes=SEGMENT)
    fill(store)
    snapshot = take_snapshot(store, directory.path).index
    store.drop_before(store.segment_firsts[2] - 1)
    base = store.log.base.index
    assert 0 < base < store.segment_firsts[2] < snapshot
    store.close()
    return base, snapshot


def repair(directory: DataDirectory) -> None:
    """As DiskRepair does when no peer has the entries any more: they dropped them."""
    directory.suspect(Trouble.CORRUPT, "test")
    directory.replace_disk("test", 1)
    log = LogRepair(
        directory.path,
        genesis_digest("test"),
        directory.quarantine,
        only_synced=False,
        segment_bytes=SEGMENT,
    )
    while log.next_damage() is not None:
        log.cut()
    log.finish()
    directory.trust()


def test_a_log_cut_below_its_snapshot_can_be_opened(
    tmp_path: Path, directory: DataDirectory
) -> None:
    """Its snapshot ends beyond what is left: the two do not join, and a leader sends another."""
    retained(directory)
    second = sorted((tmp_path / "log").glob("*.jsonl"))[1]
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    with pytest.raises(CorruptLogError):
        Store(directory, segment_bytes=SEGMENT)
    repair(directory)
    store = Store(directory, segment_bytes=SEGMENT)
    assert store.log.last == 0
    store.abandon()


def test_a_replica_without_its_snapshot_can_be_made_anew(
    tmp_path: Path, directory: DataDirectory
) -> None:
    _, snapshot = retained(directory)
    SnapshotFiles(tmp_path).delete(snapshot)
    (tmp_path / "records.sqlite").unlink()
    with pytest.raises(CorruptLogError):
        Store(directory, segment_bytes=SEGMENT)
    repair(directory)
    store = Store(directory, segment_bytes=SEGMENT)
    assert store.log.last == 0
    store.abandon()
    assert list((tmp_path / "quarantine").glob("*/*.jsonl"))


def test_a_retained_log_is_recognised_when_the_identity_is_lost(
    tmp_path: Path, directory: DataDirectory
) -> None:
    retained(directory)
    assert begins_after(tmp_path, genesis_digest("test"))
