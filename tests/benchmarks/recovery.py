"""How fast a replica of replicad comes back: far behind the others, or with a long log."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from api_gateway.cluster.leader import Committed, LeaderClient
from api_gateway.cluster.watch import Leader
from api_gateway.errors import LeaderError
from api_gateway.records.definitions import FORMS
from replicad.core.write import Operation, Wanted, WriteRequest, encode_write, fingerprint_of
from tests.benchmarks.faults import await_level
from tests.benchmarks.load import form
from tests.benchmarks.replicad_stack import Replicad
from tests.benchmarks.system import BenchmarkError

_BATCH: Final = 1_000
_BATCHES_AT_ONCE: Final = 4
_ATTEMPTS: Final = 200
_PAUSE_S: Final = 0.05
_POLL_S: Final = 0.02
_READY_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class CatchUpFigures:
    """A follower that was killed, missed entries, and was started again. Nobody else writes.

    Attributes:
        round: Which.
        entries: How many it missed.
        catch_up_s: From the last answer that showed its old end to the first that showed all
            entries appended, committed and applied.
        start_s: From its process's start to the beginning of that.
        entries_per_s: Entries over catch_up_s.
    """

    round: int
    entries: int
    catch_up_s: float
    start_s: float
    entries_per_s: float


@dataclass(frozen=True, slots=True)
class RestartFigures:
    """A follower that ended and was started again, missing nothing.

    Attributes:
        round: Which.
        ended_by: SIGTERM or SIGKILL.
        entries: In its log.
        ready_s: From its process's start until it said that it follows the leader and has
            committed and applied everything that the leader has.
    """

    round: int
    ended_by: str
    entries: int
    ready_s: float


async def fill(stack: Replicad, session: aiohttp.ClientSession, prefix: str, count: int) -> None:
    """Store forms in large batches at the leader, as a busy gateway would.

    Raises:
        BenchmarkError: A batch was not stored after many attempts.
    """
    view = await stack.view(session)
    name = view["leader"]
    url = next(each["url"] for each in view["replicas"] if each["name"] == name)
    leader = Leader(name, "", url, view["epoch"])
    client = LeaderClient()
    starts = iter(range(0, count, _BATCH))

    async def work() -> None:
        for start in starts:
            numbers = range(start, min(start + _BATCH, count))
            await _store(client, leader, [_line(f"{prefix}-{number}") for number in numbers])

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(_BATCHES_AT_ONCE):
                workers.create_task(work())
    finally:
        await client.close()


def _line(key: str) -> bytes:
    value = form(key)
    fingerprint = fingerprint_of(FORMS, [(key, value)])
    operation = Operation(key, value, Wanted.ABSENT)
    return encode_write(WriteRequest(key, fingerprint, FORMS, 0, (operation,), "0"))


async def _store(client: LeaderClient, leader: Leader, lines: list[bytes]) -> None:
    trouble: object = None
    for _ in range(_ATTEMPTS):
        try:
            outcomes = await client.write(leader, lines)
        except LeaderError as error:
            trouble = error
        else:
            lines = [
                line
                for line, outcome in zip(lines, outcomes, strict=True)
                if not isinstance(outcome, Committed)
            ]
            if not lines:
                return
            trouble = outcomes[0]
        await asyncio.sleep(_PAUSE_S)
    raise BenchmarkError(f"{len(lines)} forms were not stored: {trouble}")


async def measure_catch_up(
    stack: Replicad, session: aiohttp.ClientSession, number: int, entries: int
) -> CatchUpFigures:
    """Kill a follower, store entries without it, start it, and watch it catch up."""
    await await_level(stack, session)
    leader = await stack.leader(session)
    victim = _follower(stack, leader, number)
    await stack.stop(victim, signal.SIGKILL)
    await fill(stack, session, f"catch-up-{number}", entries)
    target = (await stack.status(session, leader))["last_index"]
    watch = await _start_and_watch(stack, session, victim, leader, target)
    seconds = watch.level - watch.moved
    return CatchUpFigures(
        round=number,
        entries=target - watch.first_index,
        catch_up_s=seconds,
        start_s=watch.moved - watch.started,
        entries_per_s=(target - watch.first_index) / seconds,
    )


async def measure_restart(
    stack: Replicad, session: aiohttp.ClientSession, number: int, ended_by: signal.Signals
) -> RestartFigures:
    """End a follower that is level, and start it again."""
    await await_level(stack, session)
    leader = await stack.leader(session)
    victim = _follower(stack, leader, number)
    target = (await stack.status(session, leader))["last_index"]
    await stack.stop(victim, ended_by)
    watch = await _start_and_watch(stack, session, victim, leader, target)
    return RestartFigures(
        round=number,
        ended_by=ended_by.name,
        entries=target,
        ready_s=watch.level - watch.started,
    )


def _follower(stack: Replicad, leader: str, number: int) -> str:
    followers = [name for name in stack.names if name != leader]
    return followers[number % len(followers)]


@dataclass(slots=True)
class _Watch:
    """Moments of time.monotonic(): just before the process was started; when the last question
    was sent whose answer showed the index it began with; when the first answer came that showed
    it level."""

    started: float
    moved: float = 0.0
    level: float = 0.0
    first_index: int = -1


async def _start_and_watch(
    stack: Replicad, session: aiohttp.ClientSession, name: str, leader: str, target: int
) -> _Watch:
    watch = _Watch(started=time.monotonic())
    starting = asyncio.create_task(stack.start(name))
    while True:
        asked = time.monotonic()
        status = await _status(stack, session, name)
        if status is not None and status["role"] == "follower":
            if watch.first_index in (-1, status["last_index"]):
                watch.first_index, watch.moved = status["last_index"], asked
            if _is_level(status, leader, target):
                watch.level = time.monotonic()
                await starting
                return watch
        if asked - watch.started > _READY_S:
            raise BenchmarkError(f"{name} is not level after {_READY_S:.0f} s: {status}")
        await asyncio.sleep(_POLL_S)


async def _status(
    stack: Replicad, session: aiohttp.ClientSession, name: str
) -> dict[str, Any] | None:
    """What a replica says of itself; None while it does not answer."""
    try:
        return await stack.status(session, name)
    except (aiohttp.ClientError, OSError):
        return None


def _is_level(status: dict[str, Any], leader: str, target: int) -> bool:
    positions = {status["last_index"], status["commit_index"], status["applied_index"]}
    return status["leader"] == leader and positions == {target}
