from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from replicad.errors import (
    ConfigurationError,
    DataDirectoryBusyError,
    DiskFullError,
    ForeignClusterError,
    ProtocolViolationError,
)
from replicad.storage import datadir
from replicad.storage.datadir import DataDirectory, Trouble
from replicad.storage.sealed import seal
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
    assert (tmp_path / "epoch").read_bytes() == seal(b"7")


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
    ("name", "content", "trouble"),
    [
        ("replica.json", b"", Trouble.IDENTITY),
        ("replica.json", b"{}", Trouble.IDENTITY),
        ("replica.json", b'{"format":1}', Trouble.IDENTITY),
        ("replica.json", b"[1]", Trouble.IDENTITY),
        ("epoch", b"", Trouble.IDENTITY),
        ("epoch", b"x", Trouble.IDENTITY),
        ("epoch", b"-1", Trouble.IDENTITY),
        ("epoch", None, Trouble.IDENTITY),
    ],
)
def test_a_damaged_identity_is_never_guessed(
    tmp_path: Path, name: str, content: bytes | None, trouble: Trouble
) -> None:
    first = DataDirectory.open(tmp_path, "n1")
    first.close()
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    directory = DataDirectory.open(tmp_path, "n1")
    assert directory.suspicion is not None
    assert directory.suspicion.trouble is trouble
    assert directory.disk_id == ("" if name == "replica.json" else first.disk_id)
    assert (directory.epoch, directory.is_replaced) == (0, False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    directory.close()


def test_a_log_without_identity_gets_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    directory = DataDirectory.open(tmp_path, "n1")
    assert directory.suspicion is not None
    assert (directory.suspicion.trouble, directory.disk_id) == (Trouble.IDENTITY, "")
    assert not (tmp_path / "replica.json").exists()
    directory.close()


# -- suspect disks ------------------------------------------------------------------------------


def suspect(path: Path) -> DataDirectory:
    directory = DataDirectory.open(path, "n1")
    directory.adopt_cluster("abc")
    directory.persist_epoch(7)
    directory.suspect(Trouble.UNSYNCED, "EIO")
    directory.mark_suspect()
    return directory


def test_a_suspicion_outlives_the_process(tmp_path: Path) -> None:
    first = suspect(tmp_path)
    first.close()
    again = DataDirectory.open(tmp_path, "n1")
    assert again.suspicion == first.suspicion
    assert again.suspicion is not None
    assert (again.suspicion.trouble, again.suspicion.reason) == (Trouble.UNSYNCED, "EIO")
    assert again.suspicion.disk_id == again.disk_id == first.disk_id
    assert not again.is_replaced
    again.close()


def test_the_first_suspicion_stands(tmp_path: Path) -> None:
    directory = suspect(tmp_path)
    quarantine = directory.quarantine
    directory.suspect(Trouble.CORRUPT, "more")
    assert directory.suspicion is not None
    assert directory.suspicion.reason == "EIO"
    assert directory.quarantine == quarantine
    directory.close()


def test_a_replaced_disk_is_suspect_until_it_is_repaired(tmp_path: Path) -> None:
    directory = suspect(tmp_path)
    before, quarantine = directory.disk_id, directory.quarantine
    directory.replace_disk("abc", 9)
    directory.close()
    again = DataDirectory.open(tmp_path, "n1")
    assert again.disk_id not in ("", before)
    assert (again.is_replaced, again.epoch, again.cluster_id) == (True, 9, "abc")
    assert again.quarantine == quarantine  # An interrupted repair goes on in the same place.
    again.trust()
    assert (again.suspicion, again.is_replaced) == (None, False)
    again.close()
    last = DataDirectory.open(tmp_path, "n1")
    assert (last.suspicion, last.disk_id) == (None, again.disk_id)
    last.close()


def test_a_new_disk_promises_no_lower_epoch_than_the_old_one(tmp_path: Path) -> None:
    directory = suspect(tmp_path)
    directory.replace_disk("abc", 3)
    directory.close()
    assert (tmp_path / "epoch").read_bytes() == seal(b"7")


def test_a_lost_epoch_comes_from_the_coordinator(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path, "n1").close()
    (tmp_path / "epoch").write_bytes(b"\0\0")
    directory = DataDirectory.open(tmp_path, "n1")
    directory.replace_disk("abc", 0)
    directory.close()
    assert (tmp_path / "epoch").read_bytes() == seal(b"0")


def test_a_lost_identity_is_made_anew_with_another_disk_id(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path, "n1")
    first.close()
    (tmp_path / "replica.json").write_bytes(b"")
    directory = DataDirectory.open(tmp_path, "n1")
    directory.replace_disk("abc", 2)
    directory.close()
    again = DataDirectory.open(tmp_path, "n1")
    assert again.disk_id not in ("", first.disk_id)
    assert (again.node, again.cluster_id, again.is_replaced) == ("n1", "abc", True)
    again.close()


def test_an_unreadable_mark_means_the_worst(tmp_path: Path) -> None:
    suspect(tmp_path).close()
    (tmp_path / "suspect").write_bytes(b"\0")
    directory = DataDirectory.open(tmp_path, "n1")
    assert directory.suspicion is not None
    assert directory.suspicion.trouble is Trouble.UNSYNCED
    assert not directory.is_replaced
    directory.close()


def test_a_suspect_disk_of_another_cluster_is_not_replaced(tmp_path: Path) -> None:
    directory = suspect(tmp_path)
    before = directory.disk_id
    with pytest.raises(ForeignClusterError):
        directory.replace_disk("def", 9)
    assert (directory.disk_id, directory.epoch) == (before, 7)
    directory.close()


def test_a_trusted_disk_keeps_its_id(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    with pytest.raises(ProtocolViolationError):
        directory.replace_disk("abc", 1)
    directory.close()


def test_a_disk_that_does_not_sync_still_takes_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    directory = DataDirectory.open(tmp_path, "n1")
    directory.suspect(Trouble.UNSYNCED, "EIO")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        patched.setattr(os, "fdatasync", fail)
        directory.mark_suspect()
    directory.close()
    again = DataDirectory.open(tmp_path, "n1")
    assert again.suspicion == directory.suspicion
    again.close()


def test_a_suspicion_that_finds_no_room_holds_in_this_process(
    tmp_path: Path, file_size_limit: FileSizeLimit
) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    directory.suspect(Trouble.UNSYNCED, "EIO")
    with file_size_limit(1), pytest.raises(DiskFullError):
        directory.mark_suspect()
    assert directory.suspicion is not None
    assert not (tmp_path / "suspect").exists()
    directory.close()


def test_a_format_of_the_future_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr(datadir, "DIRECTORY_FORMAT", 9)
        DataDirectory.open(tmp_path, "n1").close()
    with pytest.raises(ConfigurationError, match="format 9"):
        DataDirectory.open(tmp_path, "n1")


@pytest.mark.parametrize("name", ["replica.json", "epoch"])
def test_every_bit_that_flips_is_noticed(tmp_path: Path, name: str) -> None:
    """Another node's name or cluster, or a lower epoch, must not be believed."""
    directory = DataDirectory.open(tmp_path, "n1")
    directory.adopt_cluster("c")
    directory.persist_epoch(12)
    directory.close()
    whole = (tmp_path / name).read_bytes()
    for at in range(len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (tmp_path / name).write_bytes(damaged)
        directory = DataDirectory.open(tmp_path, "n1")
        assert directory.suspicion is not None
        assert directory.suspicion.trouble is Trouble.IDENTITY
        directory.close()


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
    assert (tmp_path / "epoch").read_bytes() == seal(b"5")
    directory.persist_epoch(60)
    assert (tmp_path / "epoch").read_bytes() == seal(b"60")
    directory.close()


def test_free_bytes_is_what_the_file_system_says(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path, "n1")
    assert directory.free_bytes() > 0
    directory.close()
