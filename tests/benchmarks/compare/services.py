"""Programs of our own that a comparison needs, each a process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

from replicad.stack.ports import LOOPBACK, accepts
from replicad.stack.processes import ProcessId, end, start_detached, wait_until
from tests.benchmarks.system import BenchmarkError

_START_S: Final = 15.0
_END_S: Final = 5.0


def start_service(module: str, arguments: list[str], port: int, log: Path) -> ProcessId:
    """Run a module that listens on a loopback port, and wait until it does.

    Raises:
        BenchmarkError: It does not listen.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.compare.{module}", *arguments]
    process = start_detached(command, dict(os.environ), log)
    if not wait_until(lambda: accepts(port), _START_S):
        end_service(process)
        raise BenchmarkError(f"{module} does not listen on {LOOPBACK}:{port}: {log.read_text()}")
    return process


def end_service(process: ProcessId) -> None:
    """End it; it keeps nothing."""
    end(process, signal.SIGKILL, _END_S)
