"""The watchdog in a process of its own: it ends the whole process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from replicad.node.watchdog import CHECK_S

PATIENCE_S = 1.0
PRELUDE = f"""
import asyncio, sys, time
from replicad.node.watchdog import Watchdog

dog = Watchdog({PATIENCE_S})

async def watched():
    dog.start()
    print("watched", flush=True)
    await asyncio.sleep(2 * {CHECK_S})
    await main()

def spin():
    while True:
        pass
"""
RUN = "\nasyncio.run(watched())\n"


@contextmanager
def child(main: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose loop runs `main` under a watchdog."""
    script = f"{PRELUDE}\nasync def main():\n    {main}\n{RUN}"
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=stderr
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"watched\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("block", ["time.sleep(60)", "spin()"])
def test_a_wedged_loop_ends_the_process_and_says_where(block: str) -> None:
    with child(block) as process:
        assert process.wait(30) == -signal.SIGKILL
        assert process.stderr is not None
        (line,) = process.stderr.read().splitlines()
    told = json.loads(line)
    assert told["event"].startswith("event loop wedged")
    assert told["seconds"] == PATIENCE_S
    assert any(" main" in frame for frame in told["at"])


def test_a_blocked_stderr_does_not_keep_it_alive() -> None:
    read_end, write_end = os.pipe()
    try:
        os.set_blocking(write_end, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write_end, bytes(65536))
        os.set_blocking(write_end, True)
        with child("time.sleep(60)", stderr=write_end) as process:
            assert process.wait(30) == -signal.SIGKILL
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_stopped_process_is_not_a_wedged_loop() -> None:
    with child("await asyncio.sleep(0.5); print('still here', flush=True)") as process:
        process.send_signal(signal.SIGSTOP)
        # The pause is what is tested: longer than the watchdog's patience.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2 * PATIENCE_S)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"still here\n"
        assert process.wait(30) == 0


def test_long_work_that_tells_of_its_progress_is_no_hang() -> None:
    work = (
        f"[(time.sleep({CHECK_S}), dog.progress()) for _ in range({int(3 * PATIENCE_S / CHECK_S)})]"
    )
    started = time.monotonic()
    with child(work) as process:
        assert process.wait(30) == 0
    assert time.monotonic() - started > 2 * PATIENCE_S  # It did outlast the patience.


def test_after_a_stop_nobody_watches() -> None:
    with child(f"dog.stop(); time.sleep({2 * PATIENCE_S})") as process:
        assert process.wait(30) == 0
