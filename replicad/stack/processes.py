"""Background processes of a stack: started detached, known by pid and start time, ended by pid.

A pid alone proves nothing once its process is gone, since the kernel hands it out again. The pair
of pid and start time is unique while the machine is up, and the boot id tells boots apart; so
nothing here ever signals a process that the stack did not start.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from replicad.errors import StackError

_POLL_S = 0.02
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# In /proc/<pid>/stat, counted from the state, which is the field after the last parenthesis.
_STATE = 0
_START_TIME = 19


class ProcessId(NamedTuple):
    """One process, for good. `started` holds the boot id and the clock ticks since that boot."""

    pid: int
    started: str


def start_detached(command: list[str], env: Mapping[str, str], log: Path) -> ProcessId:
    """Start `command` in a session of its own, with nothing of the caller's but its environment.

    Args:
        command: The program's absolute path and its arguments.
        env: The whole environment.
        log: Standard output and standard error are appended to this file, made with mode 0600.

    Raises:
        StackError: The program cannot be started.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # A caller may wait for the end of a pipe that it left open for us: the child must not hold it.
    files += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable_descriptors()]
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            env,
            file_actions=files,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM),
        )
    except OSError as error:
        raise StackError(f"cannot start {command[0]}: {error}") from error
    # Not reaped yet, so its start time can be read even if it has ended by now.
    return ProcessId(pid, _started(pid) or "")


def _inheritable_descriptors() -> list[int]:
    return [
        fd
        for fd in map(int, os.listdir("/proc/self/fd"))
        if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)
    ]


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    if fields is None:
        return None
    return f"{_BOOT_ID.read_text().strip()}:{fields[_START_TIME]}"


def is_running(process: ProcessId) -> bool:
    """Whether this very process still runs. One that only waits to be reaped does not."""
    _reap(process.pid)
    fields = _stat(process.pid)
    if fields is None or fields[_STATE] in "ZX":
        return False
    return _started(process.pid) == process.started


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # Started by an earlier command: whoever inherited it reaps it.


def send(process: ProcessId, number: signal.Signals) -> None:
    """Send a signal if the process still runs; a process that is gone is no error."""
    if not is_running(process):
        return
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise StackError(f"may not signal process {process.pid}: {error}") from error


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; False when it did not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def wait_gone(process: ProcessId, timeout_s: float) -> bool:
    """Wait for the end of a process; False when it still runs after `timeout_s`."""
    return wait_until(lambda: not is_running(process), timeout_s)


def end(process: ProcessId, number: signal.Signals, grace_s: float) -> None:
    """Send `number`, wait, and after `grace_s` send SIGKILL.

    Raises:
        StackError: Not even SIGKILL ended it; it hangs in the kernel.
    """
    send(process, number)
    if wait_gone(process, grace_s):
        return
    send(process, signal.SIGKILL)
    if not wait_gone(process, 10.0):
        raise StackError(f"process {process.pid} does not end, even after SIGKILL")
