"""`make chaos MINUTES=10 SEED=n`: random faults, one over the other, then the same judgement.

The seed decides which faults are thrown at whom, in which order, and how long each lasts. It does
not decide how the processes race, so the same seed is the same plan, not the same run.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Final

import aiohttp
import click
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from replicad.errors import StackError
from tests.support import tools
from tests.support.faults.cluster import REPLICAS, FaultCluster
from tests.support.faults.menu import DAMAGE, REPLICA_FAULTS, SERVER_FAULTS, Fault, Missed, Scene
from tests.support.history import History
from tests.support.isolation import isolated
from tests.support.waiting import until

_NO_EFFECT: Final = (
    AssertionError,
    StackError,
    aiohttp.ClientError,
    KazooException,
    KazooTimeoutError,
    TimeoutError,
)
_REPAIR_S: Final = 120.0
"""Under other faults a damaged disk may take this long to be back in sync."""


class Chaos:
    """Throws faults at a cluster until its time is up, and tells of each."""

    def __init__(self, cluster: FaultCluster, seed: int, scratch: Path) -> None:
        """Nothing is broken yet."""
        self._cluster = cluster
        self._seed = seed
        self._scratch = scratch
        self._replicas = {replica: asyncio.Lock() for replica in REPLICAS}
        self._began = asyncio.get_running_loop().time()
        self.thrown = 0

    async def run(self, seconds: float) -> None:
        """Break things for so long, then wait until every fault has ended."""
        end = self._began + seconds
        async with asyncio.TaskGroup() as tasks:
            for replica in REPLICAS:
                tasks.create_task(self._keep_on(replica, REPLICA_FAULTS, end, pause_s=12.0))
            tasks.create_task(self._keep_on("servers", SERVER_FAULTS, end, pause_s=25.0))
            tasks.create_task(self._keep_on("disks", DAMAGE, end, pause_s=45.0))

    async def _keep_on(
        self, place: str, faults: tuple[Fault, ...], end: float, pause_s: float
    ) -> None:
        rng = Random(f"{self._seed}-{place}")  # noqa: S311 - reproducible
        clock = asyncio.get_running_loop().time
        while clock() < end:
            await asyncio.sleep(rng.uniform(0.0, pause_s))
            fault = rng.choice(faults)
            victim = place if place in REPLICAS else rng.choice(REPLICAS)
            choices = Random(rng.random())  # noqa: S311 - however many the fault takes
            scene = Scene(self._cluster, victim, choices, self._scratch)
            if faults is SERVER_FAULTS:
                await self._throw(fault, scene)
                continue
            async with self._replicas[victim]:
                await self._start(victim)
                if faults is DAMAGE:
                    await self._damage(fault, scene)
                else:
                    await self._throw(fault, scene)

    async def _start(self, replica: str) -> None:
        """Start a replica that could not be started before, as its servers were away."""
        if self._cluster.record.pid(replica) is None:
            try:
                await self._cluster.start(replica)
            except StackError as error:
                self._say(f"{replica} does not start yet: {error}")

    async def _damage(self, fault: Fault, scene: Scene) -> None:
        """Only while no other disk is behind, and until this one is back."""
        async with self._cluster.client() as client:
            if len((await client.view())["isr"]) < len(REPLICAS):
                self._say(f"{fault.__name__} {scene.victim}: left out, not all are in sync")
                return
        await self._throw(fault, scene)
        await until(lambda: self._is_in_sync(scene.victim), _REPAIR_S)
        self._say(f"{fault.__name__} {scene.victim}: repaired")

    async def _is_in_sync(self, replica: str) -> bool:
        """Whether a replica is in sync; one that does not run is started again."""
        await self._start(replica)
        if self._cluster.record.pid(replica) is None:
            return False
        async with self._cluster.client() as client:
            return replica in (await client.view())["isr"]

    async def _throw(self, fault: Fault, scene: Scene) -> None:
        what = f"{fault.__name__} {scene.victim if fault not in SERVER_FAULTS else ''}".strip()
        self._say(what)
        try:
            await fault(scene)
        except (Missed, ProcessLookupError):
            self._say(f"{what}: nothing to break")
        except _NO_EFFECT as error:
            # It had no effect under the other faults, or what it broke cannot start yet.
            self._say(f"{what}: {str(error)[:200] or type(error).__name__}")
        else:
            self.thrown += 1
            self._say(f"{what}: over")

    def _say(self, what: str) -> None:
        after = asyncio.get_running_loop().time() - self._began
        click.echo(f"{after:8.2f} s  {what}")


async def play(cluster: FaultCluster, seed: int, seconds: float, scratch: Path) -> None:
    """Run chaos under load, then heal and judge."""
    async with cluster.load(seed=seed) as history:
        chaos = Chaos(cluster, seed, scratch)
        await chaos.run(seconds)
        click.echo("healing")
        cluster.heal()
        await cluster.start_all()
        for replica in REPLICAS:
            await cluster.joined_isr(replica)
        await history.progress()
    await cluster.assert_equal_records()
    _tell(history, chaos)


def _tell(history: History, chaos: Chaos) -> None:
    kinds = ", ".join(f"{count} x {status}" for status, count in sorted(history.statuses.items()))
    click.echo(f"{chaos.thrown} faults; answers: {kinds} (0: none)")
    click.echo(f"{len(history.acknowledged)} acknowledged, {len(history.operations)} operations")
    click.echo(f"longest time without an acknowledgement: {history.longest_gap_s():.2f} s")
    click.echo("verdict: linearizable; logs and records equal; nothing acknowledged is missing")


@click.command()
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--seed", type=int, help="Of an earlier run; another one each time if not given.")
def main(minutes: float, seed: int | None) -> None:
    """Break a native stack at random under load, and judge what it did."""
    tools.require()
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    directory = Path(mkdtemp(prefix="replicad-chaos-"))
    click.echo(f"seed {seed}, {minutes} minutes, in {directory}")
    with ExitStack() as stack:
        stack.enter_context(isolated())
        cluster = stack.enter_context(FaultCluster.running(directory))
        try:
            asyncio.run(play(cluster, seed, minutes * 60, directory))
        except BaseException:
            click.echo(f"verdict: FAILED. The same plan: make chaos MINUTES={minutes} SEED={seed}")
            _keep_logs(cluster, directory)
            raise
    sys.exit(0)


def _keep_logs(cluster: FaultCluster, directory: Path) -> None:
    """The replicas' disks go with the run; what they held is kept beside it."""
    for name, disk in cluster.disks.items():
        kept = directory / "kept" / name
        kept.mkdir(parents=True)
        for path in (*disk.segments(), disk.path / "sync.log"):
            if path.exists():
                (kept / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
