"""How a system is measured: made anew, alone on the machine, warmed up, pressed, ended."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import click

from tests.benchmarks.compare.forms import Template, prepared
from tests.benchmarks.compare.peer import Loader, Peer, Startable, Usage
from tests.benchmarks.compare.plan import loaded
from tests.benchmarks.compare.samples import Results, Sample, Timeline
from tests.benchmarks.compare.wrk import Answered, press

_WARM_UP_S: Final = 1.0
_REST_S: Final = 120.0
_LOOK_S: Final = 1.0
_RESTING_SHARE: Final = 0.15
"""Of one processor, for all processes together: heartbeats alone take half of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sample belongs.

    Attributes:
        part: The results that it is added to.
        system: What is measured, for tables.
        round: From 1.
        records: How many forms are stored, where that matters.
    """

    part: str
    system: str
    round: int
    records: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What wrk is to send.

    Attributes:
        what: For tables.
        requests: Prepared ones.
        tag: Of the ids that are meant; None: each request has a new id.
        draw_from: So many ids there are with that tag.
    """

    what: str
    requests: list[Template]
    tag: str | None = None
    draw_from: int = 0


@dataclass(slots=True)
class Bench:
    """Measures, and keeps what it found.

    Attributes:
        beside: Where the systems' data are while they run.
        seconds: How long wrk presses each time.
        results: By part.
        save: Called after each measurement.
    """

    beside: Path
    seconds: float
    results: dict[str, Results]
    save: Callable[[Results], None]
    _tags: int = field(default=0)

    @contextmanager
    def running(self, peer: Startable) -> Iterator[None]:
        """A new system; its directory is kept for a look if the measurement fails."""
        directory = Path(tempfile.mkdtemp(prefix=f"bench-{peer.name}-", dir=self.beside)).absolute()
        directory.chmod(0o755)  # PostgreSQL is another user's.
        try:
            peer.up(directory)
            yield
        except BaseException:
            click.echo(f"what {peer.name} left is in {directory}", err=True)
            raise
        finally:
            peer.down()
        shutil.rmtree(directory)

    def new_tag(self) -> str:
        """The beginning of ids that nobody has had."""
        self._tags += 1
        return f"{self._tags:04d}"

    async def press(
        self, place: Place, peer: Peer, asked: Asked, connections: Iterable[int]
    ) -> None:
        """Send as fast as it is answered, with each of these numbers of connections in turn."""
        with tempfile.NamedTemporaryFile(prefix="requests-", dir=self.beside) as file:
            file.write(prepared(asked.requests))
            file.flush()
            for count in connections:
                await self._once(asked, Path(file.name), peer, count, _WARM_UP_S)
                usage = Usage(peer.pids())
                answered = await self._once(asked, Path(file.name), peer, count, self.seconds)
                self._keep(place, asked.what, count, answered, usage)

    async def _once(
        self, asked: Asked, file: Path, peer: Peer, connections: int, seconds: float
    ) -> Answered:
        tag = asked.tag or self.new_tag()
        return await press(peer.url, file, tag, connections, seconds, draw_from=asked.draw_from)

    async def load(self, place: Place, peer: Loader, way: str, tag: str, numbers: range) -> None:
        """Store many forms at once, in one of the peer's ways."""
        async with client() as session:
            usage = Usage(peer.pids())
            seconds = await peer.load(session, way, tag, numbers)
        self.keep_flow(place, loaded(way), len(numbers), seconds, usage)

    async def rest(self, peer: Peer) -> None:
        """Wait until what a system does afterwards by itself, as after an import, is done."""
        deadline = time.monotonic() + _REST_S
        while time.monotonic() < deadline:
            usage = Usage(peer.pids())
            await asyncio.sleep(_LOOK_S)
            if sum(usage.cpu_s().values()) < _RESTING_SHARE * _LOOK_S:
                return
        click.echo(f"{peer.name} did not come to rest: measured all the same", err=True)

    def keep_flow(self, place: Place, what: str, count: int, seconds: float, usage: Usage) -> None:
        """Keep what was measured of so many forms that went in or out as a stream."""
        self._keep(place, what, 0, Answered(count, seconds, 0.0, 0.0, 0.0), usage)

    def keep_timeline(self, part: str, timeline: Timeline) -> None:
        """Keep one."""
        self.results[part].timelines.append(timeline)
        self.save(self.results[part])

    def _keep(
        self, place: Place, what: str, connections: int, answered: Answered, usage: Usage
    ) -> None:
        cpu_s = usage.cpu_s()
        sample = Sample(
            system=place.system,
            what=what,
            connections=connections,
            records=place.records,
            round=place.round,
            per_s=answered.requests / answered.seconds,
            p50_ms=answered.p50_ms,
            p99_ms=answered.p99_ms,
            cpu_us={name: round(1e6 * s / answered.requests, 2) for name, s in cpu_s.items()},
            memory_mib={name: round(mib, 1) for name, mib in usage.memory_mib().items()},
        )
        self.results[place.part].samples.append(sample)
        self.save(self.results[place.part])
        click.echo(sample.line(), err=True)


def client() -> aiohttp.ClientSession:
    """One that waits for as long as it takes."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
