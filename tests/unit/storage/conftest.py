from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from replicad.storage.recovery import Recovered, recover
from tests.support.entries import LogBuilder

FileSizeLimit = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def log() -> LogBuilder:
    return LogBuilder()


@pytest.fixture
def stored(tmp_path: Path, log: LogBuilder) -> Iterator[Recovered]:
    """A new, empty log on disk, in small segments."""
    recovered = recover(tmp_path, log.genesis, 0, segment_bytes=1000)
    yield recovered
    recovered.journal.abandon()


@pytest.fixture
def file_size_limit() -> FileSizeLimit:
    """A real "no room": the kernel cuts a write at the limit and refuses the next one."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    path = tmp_path / "tiny"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "replicad-test", str(path)]
    subprocess.run(mount, check=True)  # noqa: S603
    yield path
    subprocess.run(["umount", str(path)], check=True)  # noqa: S603, S607


def files_of(directory: Path) -> dict[str, bytes]:
    """The segments of a data directory by name."""
    return {path.name: path.read_bytes() for path in sorted((directory / "log").glob("*.jsonl"))}
