from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import decode_head
from replicad.storage.records import Records
from replicad.storage.snapshot import REQUESTS, forget_before, parse_line, time_of
from replicad.storage.snapshot_worker import LOADED_NAME, load
from tests.support.random_logs import Step, lines_of, steps
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
    ("damage", "said"),
    [(b"c", "is not what its manifest says"), (b'"', "not a line of a snapshot")],
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


def lines_as_of(records: Records, segments: Segments, index: int, horizon: str) -> bool:
    """Whether the records tell the lines of the snapshot as of an entry, as far as remembered."""
    expected = segments.expected(index).splitlines(keepends=True)[1:]
    kept = [line for line in expected if parse_line(line)[1] < REQUESTS or time_of(line) >= horizon]
    return list(records.snapshot_lines(index, horizon)) == kept


@settings(max_examples=60, deadline=None)
@given(steps(max_size=25), st.data())
def test_records_from_a_snapshot_and_from_the_log_are_the_same(
    entries: list[Step], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        segments = Segments(Path(directory) / "data")
        lines = lines_of(segments.log, entries)
        first = data.draw(st.integers(1, len(lines)))
        segments.add(b"".join(lines[:first]))
        segments.build()
        load(str(segments.data_dir), first)
        segments.add(b"".join(lines[first:]))
        loaded = Records.open(segments.data_dir / LOADED_NAME)
        applied = Records.open(segments.data_dir / "records.sqlite")
        for records, after in ((loaded, first), (applied, 0)):
            while after < len(lines):
                upto = data.draw(st.integers(after + 1, len(lines)))
                digest = segments.log.index.digest_at(upto)
                records.apply([line[:-1] for line in lines[after:upto]], digest)
                after = upto
            for index in range(max(1, records.since), len(lines) + 1):
                head = decode_head(lines[index - 1])
                horizon = max(forget_before(head[2]), records.forgets_before)
                assert lines_as_of(records, segments, index, horizon)
            records.close()


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
