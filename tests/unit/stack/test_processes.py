"""Real, small child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.errors import StackError
from replicad.stack.processes import (
    ProcessId,
    end,
    is_running,
    send,
    start_detached,
    wait_gone,
    wait_until,
)

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def start(command: list[str], log: Path) -> ProcessId:
    process = start_detached(command, dict(os.environ), log)
    assert wait_until(lambda: log.exists() and "up" in log.read_text(), 10)
    return process


@pytest.fixture
def child(log: Path) -> Iterator[ProcessId]:
    process = start(SLEEP, log)
    yield process
    end(process, signal.SIGKILL, 5)


def test_a_child_has_its_own_session_and_none_of_our_files(child: ProcessId, log: Path) -> None:
    assert os.getsid(child.pid) == child.pid
    files = {os.readlink(f"/proc/{child.pid}/fd/{number}") for number in (0, 1, 2)}
    assert files == {"/dev/null", str(log)}
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_child_does_not_hold_a_pipe_that_we_could_pass_on(log: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    process = start(SLEEP, log)
    try:
        os.close(writing)
        assert os.read(reading, 1) == b""  # The end of the pipe: nobody else can write to it.
    finally:
        os.close(reading)
        end(process, signal.SIGKILL, 5)


def test_ending_by_sigterm(child: ProcessId) -> None:
    assert is_running(child)
    end(child, signal.SIGTERM, 10)
    assert not is_running(child)
    assert not Path(f"/proc/{child.pid}").exists()  # Reaped: it was a child of ours.


def test_one_that_ignores_sigterm_is_killed(log: Path) -> None:
    process = start(STUBBORN, log)
    end(process, signal.SIGTERM, 0.2)
    assert not is_running(process)


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone() -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:  # noqa: S603
        try:
            recycled = ProcessId(stranger.pid, "another boot:1")
            assert not is_running(recycled)
            end(recycled, signal.SIGKILL, 1)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_process_of_another_parent_counts_as_gone_when_it_is_a_zombie(log: Path) -> None:
    # The child's child ends and is never waited for.
    script = (
        "import subprocess, sys, time;"
        "print(subprocess.Popen([sys.executable, '-c', '']).pid, 'up', flush=True); time.sleep(60)"
    )
    parent = start([sys.executable, "-c", script], log)
    try:
        pid = int(log.read_text().split()[0])
        stat = Path(f"/proc/{pid}/stat")
        assert wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", 10)
        started = (
            f"{parent.started.split(':')[0]}:{stat.read_text().rpartition(')')[2].split()[19]}"
        )
        assert not is_running(ProcessId(pid, started))
    finally:
        end(parent, signal.SIGKILL, 5)


def test_a_stopped_process_still_runs(child: ProcessId) -> None:
    send(child, signal.SIGSTOP)
    assert is_running(child)
    assert not wait_gone(child, 0.1)


def test_a_missing_program_is_named(log: Path) -> None:
    with pytest.raises(StackError, match="/no/such/program"):
        start_detached(["/no/such/program"], {}, log)
