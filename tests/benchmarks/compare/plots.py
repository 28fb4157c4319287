"""Plots as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from tests.benchmarks.compare import plan
from tests.benchmarks.compare.samples import Results, Sample

# Text stays text, and the same figures make the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "replicad", "font.size": 9})
_COLOURS: Final = {
    plan.OURS: "#c0392b",
    plan.ETCD: "#2471a3",
    plan.POSTGRESQL: "#1e8449",
    plan.FLOOR: "#7d6608",
    plan.LOWERED_FLOOR: "#b7950b",
    plan.CEILING: "#999999",
}
_SIZE: Final = (8.0, 3.4)


def writes(results: Results, path: Path) -> None:
    """Throughput and latency over connections; the bars span all rounds."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    for system in results.systems():
        if system not in plan.ONLY_CONNECTIONS:
            _over_connections(left, results, system, lambda sample: sample.per_s)
        if system not in (plan.CEILING, plan.POSTGRESQL_RESET):
            _over_connections(right, results, system, lambda sample: sample.p50_ms)
    left.set_ylabel("writes a second")
    right.set_ylabel("p50, ms")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(plan.WRITE_CONNECTIONS, map(str, plan.WRITE_CONNECTIONS))
        _finish(axes, "connections")
    _save(figure, path)


def _over_connections(
    axes: Axes, results: Results, system: str, value: Callable[[Sample], float]
) -> None:
    points = [
        (count, [value(each) for each in results.select(system, plan.WRITE, count)])
        for count in plan.WRITE_CONNECTIONS
    ]
    _draw(axes, system, points)


def stored(results: Results, path: Path) -> None:
    """Latency over stored records, while a cluster is filled."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    grown = [each for each in results.samples if each.system == plan.GROWING]
    sizes = sorted({each.records for each in grown})
    for axes, (what, count) in zip(figure.subplots(1, 2), plan.PRESSED_GROWING, strict=True):
        for name in ("p50_ms", "p99_ms"):
            points = [
                (
                    size,
                    [getattr(s, name) for s in results.select(plan.GROWING, what, count, size)],
                )
                for size in sizes
            ]
            _draw(axes, name.removesuffix("_ms"), points)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"{what}, {plan.connections(count)}, ms")
        _finish(axes, "records")
    _save(figure, path)


def failover(results: Results, path: Path) -> None:
    """Acknowledged writes over time."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for line in results.timelines:
        times = [line.first_ms + number * line.bin_ms for number in range(len(line.acknowledged))]
        rates = [count * 1_000 / line.bin_ms for count in line.acknowledged]
        axes.step(times, rates, where="post", label=line.system, color=_COLOURS[line.system])
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("writes acknowledged a second")
    _finish(axes, "ms after kill -9 of the leader")
    _save(figure, path)


def _draw(axes: Axes, name: str, points: Iterable[tuple[int, list[float]]]) -> None:
    """Medians, with bars from the lowest to the highest."""
    there = [(x, values) for x, values in points if values]
    middles = [median(values) for _, values in there]
    below = [middle - min(values) for middle, (_, values) in zip(middles, there, strict=True)]
    above = [max(values) - middle for middle, (_, values) in zip(middles, there, strict=True)]
    axes.errorbar(
        [x for x, _ in there],
        middles,
        yerr=[below, above],
        label=name,
        color=_COLOURS.get(name),
        marker="o",
        markersize=4,
        capsize=2,
    )


def _finish(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    axes.legend()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


PLOTS: Final[dict[str, Callable[[Results, Path], None]]] = {
    plan.WRITES: writes,
    plan.STORED: stored,
    plan.FAILOVER: failover,
}
"""By part; the file has its name."""
