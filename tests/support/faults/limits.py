"""What the machine gives to a process, at its end or wrong: descriptors, memory, the time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.support.client import Client, form
from tests.support.cluster import runs
from tests.support.commands import run
from tests.support.tools import faketime_library

_STANDARD: Final = 3
"""Descriptors that every process has: input, output, errors."""
_LARGE_FORMS: Final = 100
_MEMORY: Final = Path("/sys/fs/cgroup/memory")
# libfaketime 0.9.10 lets clock_nanosleep by an absolute time of the monotonic clock, which is how
# Python sleeps, fail with EINVAL.
_SLEEP: Final = """\
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def shifted_clock(shift: str, directory: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is off by `shift`, such as "+1h".

    A helper for Python is written to `directory`.
    """
    (directory / "sitecustomize.py").write_text(_SLEEP)
    return {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME": shift,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(directory),
    }


@contextmanager
def no_descriptors(pid: int, group: int) -> Iterator[None]:
    """Let a process of this group open nothing more, for as long as the block runs."""
    before = _descriptors(pid, group)
    # It keeps what it has; whatever it closes it cannot open again.
    _limit(pid, group, f"--nofile={_STANDARD}:{before[1]}")
    assert _descriptors(pid, group)[0] == str(_STANDARD)
    try:
        yield
    finally:
        if Path(f"/proc/{pid}").exists():
            _limit(pid, group, f"--nofile={before[0]}:{before[1]}")


def _descriptors(pid: int, group: int) -> list[str]:
    """The soft and the hard limit."""
    return _limit(pid, group, "--nofile", "--noheadings", "--output=SOFT,HARD").split()


def _limit(pid: int, group: int, *options: str) -> str:
    # One may change the limits of processes that run under the same user and group only, unless
    # one has a privilege that root lacks in many containers.
    become = ("setpriv", "--regid", str(group), "--clear-groups")
    return run(*become, "prlimit", f"--pid={pid}", *options)


async def kill_by_memory(pid: int, client: Client) -> None:
    """Give a process hardly more memory than it has, and send it large forms until the kernel
    kills it.
    """
    with _little_memory(pid, 1 << 20) as counted:
        for number in count():
            if not runs(pid):
                break
            assert number < _LARGE_FORMS, "it lives within its limit"
            await client.post(form(f"grande-{pid}-{number}", relleno="x" * 900_000))
        assert "oom_kill 0" not in counted.read_text()


@contextmanager
def _little_memory(pid: int, more_bytes: int) -> Iterator[Path]:
    """Yields the file that counts the kills."""
    assert _MEMORY.is_dir(), "no memory controller: mount cgroup v1's at /sys/fs/cgroup/memory"
    group = _MEMORY / f"replicad-test-{pid}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(more_bytes))
        (group / "cgroup.procs").write_text(str(pid))
        yield group / "memory.oom_control"
    finally:
        for each in (group / "cgroup.procs").read_text().split():
            (_MEMORY / "cgroup.procs").write_text(each)
        group.rmdir()
