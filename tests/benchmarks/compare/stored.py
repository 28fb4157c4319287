"""What stored records cost: the latency of writes, exports, memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import uvloop

from tests.benchmarks.compare.bench import Asked, Bench, Place, client
from tests.benchmarks.compare.peer import Usage
from tests.benchmarks.compare.plan import (
    EXPORT,
    EXPORTED_TIMES,
    FEW,
    GROWING,
    INSERT,
    LIST,
    PRESSED,
    PRESSED_GROWING,
    STEPS,
    STORED,
    UPDATE,
)
from tests.benchmarks.compare.replicad import COLLECTION, Replicad
from tests.benchmarks.compare.rounds import in_turns
from tests.benchmarks.system import BenchmarkError

_EXPORTS: Final = {
    EXPORT: f"{COLLECTION}/records:export",
    LIST: "/API/ObtenerTodosLosFormularios",
}
_FORM_BYTES_MIN: Final = 100


def run_stored(bench: Bench, pairs: int, many: int) -> None:
    """Two clusters, with FEW and with `many` records; one is idle while the other is pressed."""
    clusters = {FEW: Replicad(), many: Replicad()}
    with bench.running(clusters[FEW]), bench.running(clusters[many]):
        uvloop.run(_stored(bench, clusters, pairs, many))


async def _stored(bench: Bench, clusters: dict[int, Replicad], pairs: int, many: int) -> None:
    tag = bench.new_tag()
    await _grow(bench, clusters[FEW], tag, (FEW,))
    await _grow(bench, clusters[many], tag, [*(step for step in STEPS if step < many), many])
    for number in range(pairs):
        for records, peer in in_turns(tuple(clusters.items()), number):
            place = Place(STORED, peer.name, number + 1, records)
            await _press(bench, place, peer, tag, PRESSED)
    for number in range(EXPORTED_TIMES):
        await _export(bench, Place(STORED, clusters[many].name, number + 1, many), clusters[many])


async def _grow(bench: Bench, peer: Replicad, tag: str, sizes: Sequence[int]) -> None:
    """Bring it to these sizes, and press it a little at each."""
    there = 0
    for size in sizes:
        place = Place(STORED, GROWING, 1, size)
        await bench.load(place, peer, peer.loads[0], tag, range(there, size))
        await bench.rest(peer)
        await _press(bench, place, peer, tag, PRESSED_GROWING)
        there = size


async def _press(
    bench: Bench, place: Place, peer: Replicad, tag: str, wanted: Iterable[tuple[str, int]]
) -> None:
    for what, connections in wanted:
        if what == INSERT:
            asked = Asked(INSERT, peer.writes())
        else:
            asked = Asked(UPDATE, peer.updates(), tag, place.records)
        await bench.press(place, peer, asked, (connections,))


async def _export(bench: Bench, place: Place, peer: Replicad) -> None:
    """Once in each form.

    Raises:
        BenchmarkError: Records are missing.
    """
    lines = 0
    for what, path in _EXPORTS.items():
        usage, began, size, ends = Usage(peer.pids()), time.perf_counter(), 0, 0
        async with client() as session, session.get(f"{peer.url}{path}") as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
                ends += chunk.count(b"\n")
        seconds = time.perf_counter() - began
        lines = lines or ends  # The array has no line ends, and nobody writes.
        if answer.status != 200 or lines < place.records or size < lines * _FORM_BYTES_MIN:
            raise BenchmarkError(f"{path}: {answer.status}, {size} bytes, {lines} lines")
        bench.keep_flow(place, what, lines, seconds, usage)
