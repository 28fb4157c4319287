from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from replicad.errors import SnapshotDamagedError, WorkerFailedError
from replicad.node import snapshot_jobs
from tests.support.snapshots import Segments
from tests.support.waiting import eventually

Started = list[asyncio.subprocess.Process]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The processes that the jobs start."""
    processes: Started = []
    real = asyncio.create_subprocess_exec

    async def start(*command: str, stdin: int, stdout: int) -> asyncio.subprocess.Process:
        processes.append(await real(*command, stdin=stdin, stdout=stdout))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    return processes


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A manifest that nobody ever finishes writing."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    return path


async def test_results_and_errors_come_back(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.add_records(["a"])
    digest = await snapshot_jobs.build(tmp_path, segments.plan())
    assert digest == segments.log.index.digest_at(1)
    file, manifest = segments.files.file_of(1), segments.files.manifest_of(1)
    await snapshot_jobs.check(file, manifest)
    assert (await snapshot_jobs.load(tmp_path, 1)).is_file()
    file.write_bytes(b"x")
    with pytest.raises(SnapshotDamagedError, match="another header"):
        await snapshot_jobs.check(file, manifest)


async def test_a_cancelled_job_leaves_no_process(started: Started, endless: Path) -> None:
    job = asyncio.create_task(snapshot_jobs.check(endless, endless))
    await eventually(lambda: len(started) == 1)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert started[0].returncode == -signal.SIGKILL


async def test_a_killed_process_is_told(started: Started, endless: Path) -> None:
    job = asyncio.create_task(snapshot_jobs.check(endless, endless))
    await eventually(lambda: len(started) == 1)
    started[0].kill()
    with pytest.raises(WorkerFailedError, match="code -9"):
        await job
