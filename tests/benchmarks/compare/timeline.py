"""The time line of a failover: what was acknowledged before and after the leader was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import uvloop

from tests.benchmarks.compare.bench import Bench, client
from tests.benchmarks.compare.plan import ETCD, FAILOVER, OURS
from tests.benchmarks.compare.samples import Timeline
from tests.benchmarks.etcd import Etcd
from tests.benchmarks.faults import FAULTS, await_level
from tests.benchmarks.load import Load
from tests.benchmarks.replicad_stack import Replicad
from tests.benchmarks.system import System

FAULT: Final = "kill -9 of the leader"
SYSTEMS: Final[dict[str, Callable[[], System]]] = {OURS: Replicad, ETCD: Etcd}
_WRITERS: Final = 16
_BEFORE_S: Final = 3.0
_AFTER_S: Final = 5.0
_SHOWN_MS: Final = (-1_000, 4_000)
_BIN_MS: Final = 50


def run_timelines(bench: Bench, systems: Sequence[str]) -> None:
    """One of each system; the load is that of `make bench-failover`."""
    for name in systems:
        if name in SYSTEMS:
            system = SYSTEMS[name]()
            with bench.running(system):
                counts = uvloop.run(_failover(system))
            bench.keep_timeline(FAILOVER, Timeline(name, FAULT, _BIN_MS, _SHOWN_MS[0], counts))


async def _failover(system: System) -> list[int]:
    async with client() as session:
        await await_level(system, session)
        async with Load.run(system, session, "timeline", _WRITERS) as load:
            await asyncio.sleep(_BEFORE_S)
            began = time.monotonic()
            await FAULTS[FAULT](system, session, Random(0))  # noqa: S311 - picks nothing here
            await asyncio.sleep(max(0.0, began + _AFTER_S - time.monotonic()))
    return binned([1_000 * (each - began) for each in load.acknowledged.values()])


def binned(times_ms: Iterable[float]) -> list[int]:
    """How many there are in each bin; the fault was at 0."""
    first, last = _SHOWN_MS
    counts = [0] * ((last - first) // _BIN_MS)
    for each in times_ms:
        if first <= each < last:
            counts[int((each - first) // _BIN_MS)] += 1
    return counts
