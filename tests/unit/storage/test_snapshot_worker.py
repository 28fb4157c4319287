from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from replicad.storage.records import Records
from replicad.storage.snapshot_worker import LOADED_NAME
from tests.support.snapshots import CLUSTER, Segments, manifest_of


def start(name: str, **arguments: object) -> subprocess.Popen[bytes]:
    job = json.dumps([name, arguments])
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "replicad.storage.snapshot_worker", job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def answer(process: subprocess.Popen[bytes]) -> dict[str, str]:
    assert process.stdout is not None
    assert process.stdin is not None
    with process:
        line = process.stdout.readline()
    decoded: dict[str, str] = json.loads(line)
    return decoded


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    made = Segments(tmp_path)
    made.add_records(["b", "a"])
    return made


def test_the_three_jobs(segments: Segments) -> None:
    plan = {"cluster_id": CLUSTER, "base": 0, "segments": [1], "index": 2}
    built = answer(start("build", data_dir=str(segments.data_dir), plan=plan))
    point = segments.log.index.last_point
    assert built == {"result": point.digest.hex()}
    assert segments.content(2) == segments.expected(2)

    file, manifest = segments.files.file_of(2), segments.files.manifest_of(2)
    assert answer(start("check", file=str(file), manifest=str(manifest))) == {"result": None}

    (segments.data_dir / LOADED_NAME).write_bytes(b"left over")
    assert answer(start("load", data_dir=str(segments.data_dir), index=2)) == {"result": None}
    records = Records.open(segments.data_dir / LOADED_NAME)
    assert records.applied == point
    records.close()


@pytest.mark.parametrize(
    ("damage", "said"), [(b"c", "is not what its manifest says"), (b'"', "not a record")]
)
def test_damage_is_told_and_leaves_nothing(segments: Segments, damage: bytes, said: str) -> None:
    segments.build()
    file = segments.files.file_of(2)
    file.write_bytes(file.read_bytes().replace(b'"key":"b"', b'"key":"%b"' % damage))
    told = answer(start("load", data_dir=str(segments.data_dir), index=2))
    assert told["error"] == "SnapshotDamagedError"
    assert said in told["message"]
    assert not (segments.data_dir / LOADED_NAME).exists()


def test_a_snapshot_with_a_request_twice_is_damaged(segments: Segments) -> None:
    header = segments.build().header
    file = segments.files.file_of(2)
    data = file.read_bytes().replace(b'"request":"r-forms-b"', b'"request":"r-forms-a"')
    file.write_bytes(data)
    manifest = manifest_of(header, data.splitlines(keepends=True)[1:])
    segments.files.manifest_of(2).write_bytes(b"".join(manifest.encode()))
    told = answer(start("load", data_dir=str(segments.data_dir), index=2))
    assert told["error"] == "SnapshotDamagedError"
    assert not (segments.data_dir / LOADED_NAME).exists()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """A pipe that nobody fills keeps it at work for as long as it lives."""
    pipe = tmp_path / "manifest"
    os.mkfifo(pipe)
    process = start("check", file="-", manifest=str(pipe))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=20) == 1
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()


def test_it_is_killed_like_any_process(tmp_path: Path) -> None:
    pipe = tmp_path / "manifest"
    os.mkfifo(pipe)
    process = start("check", file="-", manifest=str(pipe))
    process.kill()
    with process:
        assert process.wait(timeout=20) == -signal.SIGKILL
