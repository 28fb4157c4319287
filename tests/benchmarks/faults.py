"""One fault under load: how long nothing is acknowledged, and what clients see of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import aiohttp

from tests.benchmarks.load import Load, longest_gap
from tests.benchmarks.system import BenchmarkError, System
from tests.support.waiting import until

BEFORE_S: Final = 3.0
"""Load before the fault. Its first second warms up; the rest shows the gaps of a quiet time."""
AFTER_S: Final = 4.0
"""Load after the fault, at least."""
_WARM_S: Final = 1.0
_RESUME_S: Final = 30.0
LEVEL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """What one round measured.

    Attributes:
        system, fault, round: Which.
        gap_ms: The longest time without an acknowledgement that ended after the fault began.
        quiet_gap_ms: The longest one in the two seconds before the fault.
        acknowledged: Writes of the whole round.
        writes_per_s: Before the fault.
        failed: Attempts that a client saw fail; it sent each again.
        failures: The same by what was seen.
        slowest_ms: The longest that one write took, all its attempts together.
        level_s: After the load, until all replicas were back, in sync and level.
    """

    system: str
    fault: str
    round: int
    gap_ms: float
    quiet_gap_ms: float
    acknowledged: int
    writes_per_s: float
    failed: int
    failures: dict[str, int]
    slowest_ms: float
    level_s: float


Inject = Callable[[System, aiohttp.ClientSession, Random], Awaitable[str | None]]
"""Does the harm; returns the name of the replica to be started again, if any."""


async def _end_leader(
    system: System, session: aiohttp.ClientSession, number: signal.Signals
) -> str:
    leader = await system.leader(session)
    await system.stop(leader, number)
    return leader


async def kill_leader(system: System, session: aiohttp.ClientSession, _random: Random) -> str:
    return await _end_leader(system, session, signal.SIGKILL)


async def stop_leader(system: System, session: aiohttp.ClientSession, _random: Random) -> str:
    return await _end_leader(system, session, signal.SIGTERM)


async def kill_follower(system: System, session: aiohttp.ClientSession, random: Random) -> str:
    leader = await system.leader(session)
    victim = random.choice([name for name in system.names if name != leader])
    await system.stop(victim, signal.SIGKILL)
    return victim


async def transfer(system: System, session: aiohttp.ClientSession, random: Random) -> None:
    leader = await system.leader(session)
    target = random.choice([name for name in system.names if name != leader])
    await system.transfer(session, target)
    await until(lambda: _leads(system, session, target), _RESUME_S, lambda: f"{target} leads not")


async def _leads(system: System, session: aiohttp.ClientSession, name: str) -> bool:
    try:
        return await system.leader(session) == name
    except BenchmarkError:  # Nobody does just now.
        return False


FAULTS: Final[dict[str, Inject]] = {
    "kill -9 of the leader": kill_leader,
    "SIGTERM of the leader": stop_leader,
    "transfer": transfer,
    "kill -9 of a follower": kill_follower,
}


async def measure_fault(
    system: System,
    session: aiohttp.ClientSession,
    fault: str,
    number: int,
    writers: int,
    random: Random,
) -> tuple[FaultFigures, set[str]]:
    """One round; the keys that were acknowledged come with its figures.

    Raises:
        BenchmarkError, AssertionError: No write was acknowledged any more, or the replicas did
            not become level.
    """
    await await_level(system, session)
    prefix = f"{fault.replace(' ', '')}-{number}"
    async with Load.run(system, session, prefix, writers) as load:
        await asyncio.sleep(BEFORE_S)
        began = time.monotonic()
        victim = await FAULTS[fault](system, session, random)
        await asyncio.sleep(max(0.0, began + AFTER_S - time.monotonic()))
        done = time.monotonic()
        await until(lambda: _resumed(load, done), _RESUME_S, lambda: load.failures)
        ended = time.monotonic()
    times = list(load.acknowledged.values())
    warm = began - BEFORE_S + _WARM_S
    restarted = time.monotonic()
    if victim is not None:
        await system.start(victim)
    await await_level(system, session)
    figures = FaultFigures(
        system=system.name,
        fault=fault,
        round=number,
        gap_ms=1000 * longest_gap(times, began, ended),
        quiet_gap_ms=1000 * longest_gap(times, warm, began),
        acknowledged=len(times),
        writes_per_s=sum(warm < moment <= began for moment in times) / (began - warm),
        failed=load.failures.total(),
        failures=dict(load.failures),
        slowest_ms=1000 * load.slowest_s,
        level_s=time.monotonic() - restarted,
    )
    return figures, set(load.acknowledged)


async def await_level(system: System, session: aiohttp.ClientSession) -> None:
    """Wait until all replicas are there, in sync and level."""
    await until(lambda: system.is_level(session), LEVEL_S, lambda: f"{system.name} is not level")


async def _resumed(load: Load, since: float) -> bool:
    return load.last > since
