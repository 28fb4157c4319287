"""Clients that write as fast as they are answered, and a record of what they saw."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from typing import Final, Self

import aiohttp

from tests.benchmarks.system import BenchmarkError, System, Write

FORM_BYTES: Final = 300
_RETRY_PAUSE_S: Final = 0.02
"""Between two attempts of one write: the same for every system."""
ARRIVALS_PER_S: Final = 100
_GIVE_UP_S: Final = 60.0


def form(key: str) -> bytes:
    """A form of FORM_BYTES bytes, without white space between its tokens."""
    fields = {"id": key, "nombres": "María", "genero": "Femenino", "observaciones": ""}
    empty = len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
    fields["observaciones"] = "x" * (FORM_BYTES - empty)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def longest_gap(times: Sequence[float], since: float, until: float) -> float:
    """The longest interval between neighbouring times that ends after `since`.

    Args:
        times: When writes were acknowledged, in any order; seconds.
        since: The fault. An interval may begin before it and end after it.
        until: The end of the measurement; what comes later is ignored.

    Raises:
        BenchmarkError: There is nothing on one side of `since`.
    """
    within = sorted(moment for moment in times if moment <= until)
    if not within or within[0] > since or within[-1] <= since:
        raise BenchmarkError("no write was acknowledged before, or none after the fault")
    return max(later - earlier for earlier, later in pairwise(within) if later > since)


@dataclass(slots=True)
class Load:
    """Writers that each store one form after the other, and forms that arrive at a steady rate.

    The writers press as hard as they are answered. Those that arrive do not wait for others: when
    all writers hang on answers that will never come, they still find out at once that writes are
    taken again. A write that fails is sent again, unchanged, to the next endpoint, until it is
    acknowledged. Where nobody listened, nothing is sent any more: no victim comes back under load.

    Attributes:
        acknowledged: When each form was acknowledged, by its key; time.monotonic().
        failures: Attempts that did not end in 200, by what the client saw.
        slowest_s: The longest that one form took from its first attempt to its acknowledgement.
    """

    system: System
    session: aiohttp.ClientSession
    prefix: str
    acknowledged: dict[str, float] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    last: float = 0.0
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _down: set[int] = field(default_factory=set)
    _stopping: bool = False

    @classmethod
    @asynccontextmanager
    async def run(
        cls, system: System, session: aiohttp.ClientSession, prefix: str, writers: int
    ) -> AsyncIterator[Self]:
        """Write for as long as the block runs, then wait for the last answers."""
        load = cls(system, session, prefix)
        async with asyncio.TaskGroup() as tasks:
            for number in range(writers):
                # Evenly over the endpoints: one that dies takes no more than its share along.
                tasks.create_task(load._work(number % len(system.endpoints)))
            tasks.create_task(load._arrive(tasks))
            try:
                yield load
            finally:
                load._stopping = True

    async def _work(self, endpoint: int) -> None:
        while not self._stopping:
            endpoint = await self._store(endpoint)

    async def _arrive(self, tasks: asyncio.TaskGroup) -> None:
        endpoint = 0
        while not self._stopping:
            tasks.create_task(self._store(endpoint))
            endpoint = self._after(endpoint)
            await asyncio.sleep(1 / ARRIVALS_PER_S)

    async def _store(self, endpoint: int) -> int:
        """Store one form, first tried at an endpoint; returns the one that acknowledged it."""
        key = f"{self.prefix}-{next(self._numbers)}"
        write = self.system.write(key, form(key))
        began = time.monotonic()
        while (trouble := await self._attempt(endpoint, write)) is not None:
            self.failures[trouble] += 1
            if time.monotonic() - began > _GIVE_UP_S:
                raise BenchmarkError(f"{key} was not stored: {trouble}")
            endpoint = self._after(endpoint)
            await asyncio.sleep(_RETRY_PAUSE_S)
        self.last = self.acknowledged[key] = time.monotonic()
        self.slowest_s = max(self.slowest_s, self.last - began)
        return endpoint

    def _after(self, endpoint: int) -> int:
        """The next endpoint, in a ring, where somebody listened."""
        count = len(self.system.endpoints)
        ring = [(endpoint + step) % count for step in range(1, count + 1)]
        return next((each for each in ring if each not in self._down), ring[0])

    async def _attempt(self, endpoint: int, write: Write) -> str | None:
        """Send it once; what went wrong, or None."""
        url = f"{self.system.endpoints[endpoint]}{write.path}"
        timeout = aiohttp.ClientTimeout(total=self.system.attempt_s)
        data = BytesIO(write.body)
        try:
            async with self.session.post(
                url, data=data, headers=write.headers, timeout=timeout
            ) as answer:
                await answer.read()
                return None if answer.status == 200 else str(answer.status)
        except aiohttp.ClientConnectorError as error:
            self._down.add(endpoint)
            return type(error).__name__
        except (aiohttp.ClientError, OSError) as error:  # A TimeoutError is an OSError.
            return type(error).__name__
