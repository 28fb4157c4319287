"""Loopback ports for a stack."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from replicad.errors import StackError

LOOPBACK = "127.0.0.1"
# Below the kernel's ephemeral range: while a daemon is down, no outgoing connection of anybody
# can be given its port, and it comes back under the same address.
_FIRST, _LAST = 18_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        # As servers do: connections that linger in TIME_WAIT do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: Collection[int]) -> int:
    """A free loopback port that is not among `taken`.

    Chosen at random, so that stacks that start at the same moment hardly ever collide.

    Raises:
        StackError: No port was found.
    """
    for port in random.sample(range(_FIRST, _LAST), 500):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {_FIRST} and {_LAST}")


def accepts(port: int, timeout_s: float = 1.0) -> bool:
    """Whether somebody listens on the loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout_s).close()
    except OSError:
        return False
    return True
