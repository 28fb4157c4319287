"""Runs the jobs of `replicad.storage.snapshot_worker` from the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path

import orjson

from replicad import errors
from replicad.errors import ReplicadError, WorkerFailedError
from replicad.storage.snapshot_build import Plan
from replicad.storage.snapshot_worker import LOADED_NAME


async def build(data_dir: Path, plan: Plan) -> bytes:
    """Build a snapshot; see `build_snapshot`. Returns the digest of its last entry.

    Raises:
        WorkerFailedError: The process was killed.
    """
    digest = await _run("build", data_dir=str(data_dir), plan=asdict(plan))
    return bytes.fromhex(str(digest))


async def check(file: Path, manifest: Path) -> None:
    """Verify the file of a snapshot; see `check_snapshot`.

    Raises:
        WorkerFailedError: The process was killed.
    """
    await _run("check", file=str(file), manifest=str(manifest))


async def load(data_dir: Path, index: int) -> Path:
    """Make the file of a record store from a snapshot; see `load_records`. Returns its path.

    Raises:
        SnapshotDamagedError: The snapshot is damaged.
        WorkerFailedError: The process was killed.
    """
    await _run("load", data_dir=str(data_dir), index=index)
    return data_dir / LOADED_NAME


async def _run(name: str, **arguments: object) -> object:
    job = orjson.dumps([name, arguments]).decode()
    command = (sys.executable, "-m", "replicad.storage.snapshot_worker", job)
    # The worker ends when this pipe is closed, be it by the kernel.
    read_end, write_end = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=read_end, stdout=asyncio.subprocess.PIPE
        )
        try:
            line, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    finally:
        os.close(read_end)
        os.close(write_end)
    if not line.endswith(b"\n"):
        raise WorkerFailedError(f"the {name} of a snapshot ended with code {process.returncode}")
    answer = orjson.loads(line)
    if "error" in answer:
        kind = getattr(errors, answer["error"], ReplicadError)
        raise kind(answer["message"])
    return answer["result"]
