"""What a write costs each process, with one group and with two that share RabbitMQ and cores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Final, Self
from urllib.request import urlopen

from tests.benchmarks.compare import wrk
from tests.benchmarks.compare.forms import forms, prepared, request
from tests.benchmarks.scaling.processes import cpu_s
from tests.benchmarks.system import BenchmarkError

_CONNECTIONS: Final = 64
_PRESS_S: Final = 5.0
_ROUNDS: Final = 2
_SETTLE_S: Final = 0.5
_PATH: Final = b"/API/IngresarFormulario"


@dataclass(frozen=True, slots=True)
class Site:
    """One group's processes.

    Attributes:
        url: Of its gateway.
        gateway: The pid of that.
        replicas: The address and the pid of each replica.
    """

    url: str
    gateway: int
    replicas: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent while so many writes were done; all counters, so that they can be subtracted.

    Attributes:
        writes: Entries of the log, of all groups.
        syncs, size: The leaders' syncs, and bytes appended by each.
        gateway_s, leader_s, followers_s, rabbitmq_s: Processor time.
    """

    writes: float = 0.0
    syncs: float = 0.0
    size: float = 0.0
    gateway_s: float = 0.0
    leader_s: float = 0.0
    followers_s: float = 0.0
    rabbitmq_s: float = 0.0

    @classmethod
    def now(cls, sites: Sequence[Site], rabbitmq: int) -> Self:
        """Since the processes began."""
        total = [0.0] * 6
        for site in sites:
            shown = {url: _metrics(url) for url in site.replicas}
            leader = next((url for url in shown if shown[url]["replicad_leading"]), None)
            if leader is None:
                raise BenchmarkError("a group has no leader")
            followers = [pid for url, pid in site.replicas.items() if url != leader]
            own = (
                shown[leader]["replicad_log_last_index"],
                shown[leader]["replicad_log_sync_seconds_count"],
                shown[leader]["replicad_log_appended_bytes_total"],
                cpu_s([site.gateway]),
                cpu_s([site.replicas[leader]]),
                cpu_s(followers),
            )
            total = [before + more for before, more in zip(total, own, strict=True)]
        total.append(cpu_s([rabbitmq]))
        return cls(*total)

    def since(self, before: Spent) -> Spent:
        """What came after `before`."""
        names = [field.name for field in fields(self)]
        return Spent(*(getattr(self, name) - getattr(before, name) for name in names))

    @property
    def write_us(self) -> float:
        """Processor time of a write, all processes."""
        spent = self.gateway_s + self.leader_s + self.followers_s + self.rabbitmq_s
        return 1e6 * spent / self.writes


async def measure_load(sites: Sequence[Site], rabbitmq: int, directory: Path) -> dict[str, float]:
    """Figures of single writes; of `sites` the first one is also measured alone."""
    wrk.ensure()
    requests = directory / "requests"
    kinds = [request("POST", "gateway", (_PATH,), form, "application/json") for form in forms()]
    requests.write_bytes(prepared(kinds))
    tags = (f"{number:04d}" for number in range(10_000))

    async def pressed(some: Sequence[Site], connections: int, seconds: float) -> Spent:
        before = Spent.now(some, rabbitmq)
        async with asyncio.TaskGroup() as group:
            for site in some:
                group.create_task(wrk.press(site.url, requests, next(tags), connections, seconds))
        await asyncio.sleep(_SETTLE_S)
        return Spent.now(some, rabbitmq).since(before)

    await pressed(sites, _CONNECTIONS, 1.0)
    alone, full, thin = [], [], []
    for _ in range(_ROUNDS):
        alone.append(await pressed(sites[:1], _CONNECTIONS, _PRESS_S))
        full.append(await pressed(sites, _CONNECTIONS, _PRESS_S))
        thin.append(await pressed(sites, _CONNECTIONS // len(sites), _PRESS_S))
    return figures_of(alone, full, thin)


def figures_of(
    alone: Sequence[Spent], full: Sequence[Spent], thin: Sequence[Spent]
) -> dict[str, float]:
    """Medians over rounds."""
    one = median(each.write_us for each in alone)
    return {
        "gateway_us": median(1e6 * each.gateway_s / each.writes for each in alone),
        "leader_us": median(1e6 * each.leader_s / each.writes for each in alone),
        "follower_us": median(5e5 * each.followers_s / each.writes for each in alone),
        "rabbitmq_us": median(1e6 * each.rabbitmq_s / each.writes for each in alone),
        "batch_writes": median(each.writes / each.syncs for each in alone),
        "entry_bytes": median(each.size / each.writes for each in alone),
        "two_groups_full": median(each.write_us for each in full) / one,
        "two_groups_thin": median(each.write_us for each in thin) / one,
    }


def _metrics(url: str) -> dict[str, float]:
    with urlopen(f"{url}/metrics", timeout=5) as answer:  # noqa: S310 - a loopback address
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}
