from __future__ import annotations

import stat
from pathlib import Path

import pytest

from replicad.errors import DiskFailedError, SnapshotDamagedError
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.crashes import crashes
from tests.support.snapshots import Segments


@pytest.fixture
def three(tmp_path: Path) -> Segments:
    """Snapshots up to entries 1, 2 and 3."""
    made = Segments(tmp_path)
    for base in range(3):
        made.add_records([str(base)])
        made.build(base)
    return made


def names(files: SnapshotFiles) -> list[str]:
    return sorted(path.name for path in files.path.iterdir())


def test_files_and_directory_are_private(three: Segments) -> None:
    assert stat.S_IMODE(three.files.path.stat().st_mode) == 0o700
    for path in (three.files.file_of(3), three.files.manifest_of(3)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_crash_has_left_is_removed(three: Segments) -> None:
    files = three.files
    before = names(files)
    three.files.incoming.mkdir()
    for name in ("00000000000000000009.ndjson", "snapshot.1.tmp", "x.manifest.ndjson.tmp", "note"):
        (files.path / name).write_bytes(b"x")
    again = SnapshotFiles.open(three.data_dir)
    assert names(again) == [*before, "incoming"]
    assert again.indexes() == [3, 2, 1]


def test_a_data_directory_without_snapshots(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    assert files.indexes() == []
    files.prune(keep=2)
    files.delete_incoming()
    with pytest.raises(SnapshotDamagedError):
        files.load(1)


def test_a_manifest_without_its_file(three: Segments) -> None:
    three.files.file_of(3).unlink()
    with pytest.raises(SnapshotDamagedError):
        three.files.load(3)


def test_a_manifest_under_another_name(three: Segments) -> None:
    three.files.manifest_of(2).replace(three.files.manifest_of(3))
    three.files.file_of(2).replace(three.files.file_of(3))
    with pytest.raises(SnapshotDamagedError, match="another's"):
        three.files.load(3)


def test_the_newest_are_kept_and_those_in_use(three: Segments) -> None:
    three.files.prune(keep=1, in_use={1})
    assert three.files.indexes() == [3, 1]
    three.files.prune(keep=1)
    assert three.files.indexes() == [3]
    assert len(names(three.files)) == 2


def test_a_crash_in_a_deletion(three: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    files = three.files
    contents = [path.read_bytes() for path in (files.file_of(2), files.manifest_of(2))]

    def open_again() -> None:
        again = SnapshotFiles.open(three.data_dir)
        assert again.indexes() in ([3, 1], [3, 2, 1])
        for index in again.indexes():
            again.load(index)
        for path, content in zip((files.file_of(2), files.manifest_of(2)), contents, strict=True):
            path.write_bytes(content)

    assert len(list(crashes(monkeypatch, lambda: files.delete(2), before=open_again))) == 4
    assert files.indexes() == [3, 1]


def test_a_disk_that_cannot_delete(three: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(DiskFailedError):
        three.files.delete(3)
