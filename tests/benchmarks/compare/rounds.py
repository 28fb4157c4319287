"""The parts in which systems are measured in turns, each made anew for each round."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

import uvloop

from tests.benchmarks.compare.bench import Asked, Bench, Place, client
from tests.benchmarks.compare.ceiling import Ceiling
from tests.benchmarks.compare.etcd import Etcd
from tests.benchmarks.compare.floor import Floor
from tests.benchmarks.compare.peer import Loader, Peer, Store
from tests.benchmarks.compare.plan import (
    BULK,
    CEILING,
    ETCD,
    FLOOR,
    GROUP_CONNECTIONS,
    GROUPS,
    LOADED,
    LOWERED_FLOOR,
    ONLY_CONNECTIONS,
    OURS,
    POSTGRESQL,
    POSTGRESQL_RESET,
    READ_CONNECTIONS,
    READ_FROM,
    READS,
    REPLICAS,
    WRITE,
    WRITE_CONNECTIONS,
    WRITES,
    read,
)
from tests.benchmarks.compare.postgresql import PostgreSQL
from tests.benchmarks.compare.replicad import Replicad

SYSTEMS: Final[dict[str, Callable[[], Peer]]] = {
    OURS: Replicad,
    ETCD: Etcd,
    POSTGRESQL: lambda: PostgreSQL(POSTGRESQL),
    POSTGRESQL_RESET: lambda: PostgreSQL(POSTGRESQL_RESET),
    FLOOR: lambda: Floor(FLOOR),
    LOWERED_FLOOR: lambda: Floor(LOWERED_FLOOR),
    CEILING: Ceiling,
}
_T = TypeVar("_T")


def takes_part(peer: Peer, part: str) -> bool:
    """Whether a system can do what a part asks for."""
    if part == WRITES or peer.name in ONLY_CONNECTIONS:
        return part == WRITES
    return isinstance(peer, Store if part == READS else Loader)


def in_turns(items: Sequence[_T], number: int) -> list[_T]:
    """Another one first in each round: whatever drifts touches all alike."""
    at = number % len(items)
    return [*items[at:], *items[:at]]


def run_rounds(bench: Bench, rounds: int, systems: Sequence[str], parts: Collection[str]) -> None:
    """Writes, reads and imports of whole systems."""
    for number in range(rounds):
        for name in in_turns(systems, number):
            peer = SYSTEMS[name]()
            wanted = [part for part in parts if takes_part(peer, part)]
            if wanted:
                with bench.running(peer):
                    uvloop.run(_round(bench, peer, wanted, number + 1))


async def _round(bench: Bench, peer: Peer, parts: Collection[str], number: int) -> None:
    if READS in parts and isinstance(peer, Store):
        tag = bench.new_tag()
        async with client() as session:
            await peer.load(session, peer.loads[0], tag, range(READ_FROM))
        await bench.rest(peer)
        for level, requests in peer.reads().items():
            asked = Asked(read(level), requests, tag, READ_FROM)
            await bench.press(Place(READS, peer.name, number), peer, asked, READ_CONNECTIONS)
    if WRITES in parts:
        connections = ONLY_CONNECTIONS.get(peer.name, WRITE_CONNECTIONS)
        asked = Asked(WRITE, peer.writes())
        await bench.press(Place(WRITES, peer.name, number), peer, asked, connections)
    if BULK in parts and isinstance(peer, Loader):
        for way in peer.loads:
            place = Place(BULK, peer.name, number)
            await bench.load(place, peer, way, bench.new_tag(), range(LOADED))


def run_groups(bench: Bench, rounds: int) -> None:
    """Writes with more replicas."""
    for number in range(rounds):
        for replicas in in_turns(GROUPS, number):
            peer = Replicad(replicas)
            place = Place(REPLICAS, f"{replicas} replicas", number + 1)
            with bench.running(peer):
                asked = Asked(WRITE, peer.writes())
                uvloop.run(bench.press(place, peer, asked, GROUP_CONNECTIONS))
