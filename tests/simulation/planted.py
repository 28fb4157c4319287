"""Mistakes of the protocol, planted into the production core one at a time.

A simulator that finds nothing proves nothing until it is shown to find what is there. Each mistake
here is one that a real system has shipped or that a rule of docs/protocol.md exists to prevent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.simulation.mistakes_failover import FAILOVER, NEEDLESS
from tests.simulation.mistakes_replication import REPLICATION
from tests.simulation.mistakes_writes import WRITES

MISTAKES = {plant.__name__: plant for plant in (*REPLICATION, *WRITES, *FAILOVER, *NEEDLESS)}
SEEN_IN_A_CALM = frozenset(plant.__name__ for plant in NEEDLESS)
"""The others are seen in storms."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The core makes this mistake until the context ends."""
    with pytest.MonkeyPatch.context() as patch:
        MISTAKES[name](patch)
        yield
