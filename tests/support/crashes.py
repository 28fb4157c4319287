"""Ends a piece of work before any one of its steps on the disk, as a killed process would end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
T = TypeVar("T")

# Every system call of ours that changes what a disk holds.
_STEPS = (
    "fdatasync", "fsync", "ftruncate", "mkdir", "pwrite", "rename", "replace", "rmdir", "unlink",
    "write",
)  # fmt: skip


class Crash(BaseException):
    """The process is gone. Nothing may catch this by accident."""


@contextmanager
def crash_before(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """Raise Crash instead of taking the step with this number, counted from 0, and any later one.

    A killed process does not clean up after itself: nothing that runs while the Crash passes can
    change the disk any more.
    """
    left = step

    def counted(real: Callable[P, T]) -> Callable[P, T]:
        def call(*arguments: P.args, **options: P.kwargs) -> T:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in _STEPS:
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


def crashes(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], before: Callable[[], object]
) -> Iterator[int]:
    """Do the work again and again, ending it one step later each time, until it comes through.

    Yields the number of steps that were taken, after each crash; `before` prepares each attempt.
    """
    for step in range(10_000):
        before()
        with crash_before(monkeypatch, step):
            try:
                work()
            except Crash:
                pass
            else:
                return
        yield step
