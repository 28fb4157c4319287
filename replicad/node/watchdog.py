"""Ends the process when its event loop does not turn any more.

kazoo keeps the ZooKeeper session alive from a thread of its own, so a replica whose loop hangs, in
a sync of a dying disk for instance, would stay registered for ever and never be replaced.

What it cannot end: a process whose loop hangs in the kernel beyond any signal (state D). Its other
threads end at once, kazoo's among them, so that its session expires; the process itself, its ports
and its lock on the data directory are gone when the kernel lets go.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Final

import orjson

CHECK_S: Final = 0.25
_STDERR: Final = 2
_FRAMES: Final = 12


class Watchdog:
    """A thread that looks whether the event loop has turned since it looked last.

    It counts its own looks, not seconds: while the whole process is stopped (SIGSTOP, a suspended
    machine) it does not look either, so that a mere pause is no reason to end.
    """

    def __init__(self, patience_s: float) -> None:
        """End the process after `patience_s` seconds in which the loop did not turn."""
        self._looks = max(2, round(patience_s / CHECK_S))
        self._turns = 0
        self._over = threading.Event()
        self._watched = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop, from the loop's own thread, until `stop`."""
        self._watched = threading.get_ident()
        self._turn(asyncio.get_running_loop())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def progress(self) -> None:
        """Say from within long work on the loop's thread that it is not stuck."""
        self._turns += 1

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self.progress()
        self._timer = loop.call_later(CHECK_S, self._turn, loop)

    def _watch(self) -> None:
        seen, looks = -1, 0
        while not self._over.wait(CHECK_S):
            if self._turns != seen:
                seen, looks = self._turns, 0
                continue
            looks += 1
            if looks >= self._looks:
                _tell(looks * CHECK_S, self._watched)
                # Not an orderly end: whatever could be waited for may hang as well.
                os.kill(os.getpid(), signal.SIGKILL)


def _tell(seconds: float, thread: int) -> None:
    """Write one line to standard error if that is possible without waiting."""
    frames = traceback.extract_stack(sys._current_frames().get(thread), limit=_FRAMES)
    line = orjson.dumps(
        {
            "time": datetime.now(UTC),
            "level": "critical",
            "event": "event loop wedged: the process ends",
            "seconds": seconds,
            "at": [f"{f.filename}:{f.lineno} {f.name}" for f in frames],
        }
    )
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    # A pipe that is ready takes PIPE_BUF bytes at once; what is longer might have to wait.
    if any(event & select.POLLOUT for _, event in poll.poll(0)):
        os.write(_STDERR, line[: select.PIPE_BUF - 1] + b"\n")
