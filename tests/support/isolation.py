"""A network and a table of mounts of one's own, for this thread and all that it starts.

Faults cut links by rules of the packet filter, and break file systems that are mounted for it. In
namespaces of their own they can touch nothing else on the machine, and whatever ends the tests,
the kernel takes rules and mounts away with the last process in there.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import run

_NEW_MOUNTS = 0x00020000
_NEW_NETWORK = 0x40000000
_SELF = Path("/proc/thread-self/ns")


@contextmanager
def isolated() -> Iterator[None]:
    """Live in new namespaces for as long as the block runs. Threads begun before stay outside."""
    libc = ctypes.CDLL(None, use_errno=True)
    directory = Path.cwd()
    outside = [os.open(_SELF / name, os.O_RDONLY | os.O_CLOEXEC) for name in ("net", "mnt")]
    _check(libc.unshare(_NEW_NETWORK | _NEW_MOUNTS), "unshare")
    try:
        run("mount", "--make-rprivate", "/")
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        for namespace in outside:
            _check(libc.setns(namespace, 0), "setns")
            os.close(namespace)
        os.chdir(directory)  # Entering a namespace of mounts led to its root.


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
