from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from replicad.errors import (
    ConfigurationError,
    CorruptLogError,
    DataDirectoryBusyError,
    DiskFullError,
    ForeignClusterError,
)
from replicad.storage.datadir import DataDirectory
from tests.unit.storage.conftest import FileSizeLimit


def test_a_new_directory_is_private_and_has_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "a" / "n1"
    directory = DataDirectory.open(path, "n1")
    assert (directory.path, directory.node, directory.cluster_id) == (path, "n1", "")
    assert directory.epoch == 0
    assert len(bytes.fromhex(directory.disk_id)) == 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for name in ("lock", "replica.json", "epoch"):
        assert stat.S_IMODE((path / name).stat().st_mode) == 0o600, name
    directory.close()


def test_everything_is_found_again(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path, "n1")
    first.adopt_cluster("abc")
    first.persist_epoch(7)
    first.close()
    again = DataDirectory.open(tmp_path, "n1")
    assert (again.disk_id, again.cluster_id, again.epoch) == (first.disk_id, "abc", 7)
    again.close()


def test_the_epoch_never_goes_back(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.persist_epoch(7)
    directory.persist_epoch(6)
    directory.close()
    assert directory.epoch == 7
    assert (tmp_path / "epoch").read_bytes() == b"7\n"


def test_two_openings_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    with pytest.raises(DataDirectoryBusyError):
        DataDirectory.open(tmp_path, "n1")
    directory.close()
    DataDirectory.open(tmp_path, "n1").close()


def test_another_process_is_excluded_until_the_holder_dies(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from replicad.storage.datadir import DataDirectory; "
        "held = DataDirectory.open(Path(sys.argv[1]), 'n1'); print('held', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirectoryBusyError):
            DataDirectory.open(tmp_path, "n1")
        holder.kill()
    DataDirectory.open(tmp_path, "n1").close()


def test_another_nodes_directory_is_refused_and_not_kept_locked(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, "n1").close()
    with pytest.raises(ForeignClusterError, match="n1"):
        DataDirectory.open(tmp_path, "n2")
    DataDirectory.open(tmp_path, "n1").close()


def test_a_cluster_is_adopted_once(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.adopt_cluster("abc")
    directory.adopt_cluster("abc")
    with pytest.raises(ForeignClusterError, match="abc"):
        directory.adopt_cluster("def")
    assert directory.cluster_id == "abc"
    directory.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("replica.json", b""),
        ("replica.json", b"{}"),
        ("replica.json", b'{"format":1}'),
        ("epoch", b""),
        ("epoch", b"x"),
        ("epoch", None),
    ],
)
def test_a_damaged_identity_is_never_guessed(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    DataDirectory.open(tmp_path, "n1").close()
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptLogError):
        DataDirectory.open(tmp_path, "n1")


def test_a_log_without_identity_gets_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(CorruptLogError, match=r"replica\.json is gone"):
        DataDirectory.open(tmp_path, "n1")
    assert not (tmp_path / "replica.json").exists()


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, "n1").close()
    identity = tmp_path / "replica.json"
    identity.write_bytes(identity.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(ConfigurationError, match="format 2"):
        DataDirectory.open(tmp_path, "n1")


def test_an_unusable_path_is_the_operators_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="file"):
        DataDirectory.open(tmp_path / "file" / "n1", "n1")


def test_no_room_for_an_epoch_leaves_the_old_one(
    tmp_path: Path, file_size_limit: FileSizeLimit
) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.persist_epoch(5)
    with file_size_limit(1), pytest.raises(DiskFullError):
        directory.persist_epoch(60)
    assert directory.epoch == 5
    assert (tmp_path / "epoch").read_bytes() == b"5\n"
    directory.persist_epoch(60)
    assert (tmp_path / "epoch").read_bytes() == b"60\n"
    directory.close()


def test_free_bytes_is_what_the_file_system_says(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    assert directory.free_bytes() > 0
    directory.close()
