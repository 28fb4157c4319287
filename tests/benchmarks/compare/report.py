"""Tables and goals from samples. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Final

from tests.benchmarks.compare import plan
from tests.benchmarks.compare.samples import Results, Sample
from tests.benchmarks.figures import Goal, cell, number, table

_OF_ONE_RUN: Final = ("date", "busy before", "commit")
_SHOWN_AT: Final = 64


def tables(results: Results) -> str:
    """All tables of one part."""
    match results.part:
        case plan.WRITES:
            parts = _load_tables(results, plan.WRITE, plan.WRITE_CONNECTIONS)
        case plan.READS:
            levels = map(plan.read, (plan.STRONG, plan.LOCAL))
            each = (_load_tables(results, what, plan.READ_CONNECTIONS) for what in levels)
            parts = [one for some in each for one in some]
        case plan.BULK:
            parts = [_bulk_table(results)]
        case plan.REPLICAS:
            parts = _load_tables(results, plan.WRITE, plan.GROUP_CONNECTIONS)
        case plan.STORED:
            parts = [_pairs_table(results), _growth_table(results), _flow_table(results)]
        case _:
            parts = [_timeline_table(results)]
    return "\n\n".join(parts)


def measured_on(parts: Mapping[str, Results]) -> str:
    """The machine (each, if there were several), and when what was measured by which command."""
    machines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for part, results in parts.items():
        lasting = ((n, v) for n, v in results.machine.items() if n not in _OF_ONE_RUN)
        machines.setdefault(tuple(lasting), []).append(part)
    found = [table(("measured on", ", ".join(names)), rows) for rows, names in machines.items()]
    runs: dict[tuple[str, ...], list[str]] = {}
    for part, results in parts.items():
        run = (*(results.machine[name] for name in _OF_ONE_RUN), f"`{results.command}`")
        runs.setdefault(run, []).append(part)
    rows = [(", ".join(names), *run) for run, names in runs.items()]
    return "\n\n".join([*found, table(("parts", *_OF_ONE_RUN, "command"), rows)])


def goals(parts: Mapping[str, Results]) -> list[Goal]:
    """Those whose figures were measured."""
    found: list[Goal] = []
    for part, make in _GOALS.items():
        if part in parts:
            found += make(parts[part])
    return found


def _load_tables(results: Results, what: str, connections: Sequence[int]) -> list[str]:
    """Requests a second, latencies, and processor time."""
    systems = results.systems()

    def cells(system: str, show: Callable[[list[Sample]], str]) -> list[str]:
        return [show(results.select(system, what, count)) for count in connections]

    heads = [plan.connections(count) for count in connections]
    rates = [[system, *cells(system, _rates)] for system in systems]
    latencies = [[system, *cells(system, _latencies)] for system in systems]
    if plan.OURS in systems:
        for other in systems:
            if other != plan.OURS:
                by_rate, by_p50 = _ratios(results, what, connections, other)
                rates.append([f"{plan.OURS} / {other}", *by_rate])
                latencies.append([f"{plan.OURS} / {other}", *by_p50])
    costs = [[system, *cells(system, _processor_time)] for system in systems]
    return [
        table((f"{what}s a second", *heads), rates),
        table((f"{what}s, p50 and p99, ms", *heads), latencies),
        table((f"processor time of a {what}, us", *heads), costs),
    ]


def _rates(samples: list[Sample]) -> str:
    return cell([each.per_s for each in samples])


def _latencies(samples: list[Sample]) -> str:
    if not samples:
        return "-"
    p50, p99 = (median(getattr(s, name) for s in samples) for name in ("p50_ms", "p99_ms"))
    return f"{number(p50)}, {number(p99)}"


def _processor_time(samples: list[Sample]) -> str:
    """The sum, and what each process takes."""
    if not samples:
        return "-"
    each = {name: median(s.cpu_us[name] for s in samples) for name in samples[0].cpu_us}
    told = ", ".join(f"{name} {us:.0f}" for name, us in each.items())
    return f"{sum(each.values()):.0f}: {told}"


def _ratios(
    results: Results, what: str, connections: Sequence[int], other: str
) -> tuple[list[str], list[str]]:
    by_rate, by_p50 = [], []
    for count in connections:
        ours, theirs = results.select(plan.OURS, what, count), results.select(other, what, count)
        rate, p50 = _ratio(ours, theirs, "per_s"), _ratio(ours, theirs, "p50_ms")
        by_rate.append("-" if rate is None else f"{rate:.2f}")
        by_p50.append("-" if p50 is None else f"{p50:.2f}")
    return by_rate, by_p50


def _ratio(ours: Sequence[Sample], theirs: Sequence[Sample], name: str) -> float | None:
    """Of the medians."""
    if not ours or not theirs:
        return None
    mine, others = (median(getattr(s, name) for s in each) for each in (ours, theirs))
    return float(mine / others)


def _bulk_table(results: Results) -> str:
    kinds = list(dict.fromkeys((each.system, each.what) for each in results.samples))
    ours = results.select(plan.OURS, plan.loaded(plan.NDJSON))
    rows = []
    for system, what in kinds:
        samples = results.select(system, what)
        ratio = _ratio(ours, samples, "per_s")
        shown = "-" if ratio is None else f"{ratio:.2f}"
        rows.append((system, what, _rates(samples), shown, _processor_time(samples)))
    head = ("100,000 forms", "", "forms/s", "replicad to it", "processor time of a form, us")
    return table(head, rows)


def pair_ratios(results: Results, what: str, connections: int) -> list[float]:
    """The p50 with many records over that with few, pair by pair."""
    by_round: dict[int, dict[int, float]] = {}
    for each in results.select(plan.OURS, what, connections):
        by_round.setdefault(each.round, {})[each.records] = each.p50_ms
    return [p50[max(p50)] / p50[min(p50)] for p50 in by_round.values() if len(p50) == 2]


def _pairs_table(results: Results) -> str:
    rows = []
    many = max((each.records for each in results.samples), default=0)
    for what, count in plan.PRESSED:
        few_ms, many_ms = (
            cell([s.p50_ms for s in results.select(plan.OURS, what, count, records)])
            for records in (plan.FEW, many)
        )
        ratios = cell(pair_ratios(results, what, count))
        rows.append((f"{what}, {plan.connections(count)}", few_ms, many_ms, ratios))
    head = ("p50, ms", f"{plan.FEW:,} records", f"{many:,} records", "ratio in a pair")
    return table(head, rows)


def _growth_table(results: Results) -> str:
    sizes = sorted({each.records for each in results.samples if each.system == plan.GROWING})
    rows = [
        (
            f"{what}, {plan.connections(count)}",
            *(_latencies(results.select(plan.GROWING, what, count, size)) for size in sizes),
        )
        for what, count in plan.PRESSED_GROWING
    ]
    head = ("while it is filled: p50 and p99, ms", *(f"{size:,} records" for size in sizes))
    return table(head, rows)


def _flow_table(results: Results) -> str:
    """Imports and exports with the memory afterwards."""
    rows = []
    flows = [each for each in results.samples if not each.connections]
    for system, what, records in dict.fromkeys((s.system, s.what, s.records) for s in flows):
        samples = results.select(system, what, 0, records)
        memory = (
            cell([s.memory_mib[name] for s in samples if name in s.memory_mib])
            for name in ("gateway", "leader", "follower 1")
        )
        rows.append((f"{what}, {records:,} records", _rates(samples), *memory))
    head = ("one stream", "forms/s", "gateway, MiB", "leader, MiB", "a follower, MiB")
    return table(head, rows)


def _timeline_table(results: Results) -> str:
    """The longest silence, as far as bins show it."""
    rows = []
    for line in results.timelines:
        silences = [len(list(bins)) for full, bins in groupby(line.acknowledged, bool) if not full]
        silent = f"{max(silences, default=0) * line.bin_ms} ms"
        rows.append((line.system, silent, f"{sum(line.acknowledged):,}"))
    return table(("", "longest time without a write", "acknowledged in all"), rows)


def _write_goals(results: Results) -> list[Goal]:
    found = []
    for other, count, limit in (
        (plan.ETCD, 64, 1.5),
        (plan.POSTGRESQL, 64, 3),
        (plan.POSTGRESQL_RESET, 64, 3),
        (plan.ETCD, 256, 1.3),
    ):
        ratio = _ratio(*_both(results, plan.WRITE, count, other), "per_s")
        if ratio is not None:
            text = f"writes at {count} connections, ratio to {other}"
            found.append(Goal(text, ratio, limit, at_least=True))
    for floor in (plan.FLOOR, plan.LOWERED_FLOOR):
        ratio = _ratio(*_both(results, plan.WRITE, 1, floor), "p50_ms")
        if ratio is not None:
            found.append(Goal(f"writes at 1 connection, p50, ratio to the {floor}", ratio, 1.3))
    ours = results.select(plan.OURS, plan.WRITE, _SHOWN_AT)
    if ours:
        ratio = median(each.p99_ms / each.p50_ms for each in ours)
        found.append(Goal(f"writes at {_SHOWN_AT} connections, p99 over p50", ratio, 3))
    return found


def _read_goals(results: Results) -> list[Goal]:
    found = []
    for level, limit in ((plan.STRONG, 2), (plan.LOCAL, 3)):
        ratio = _ratio(*_both(results, plan.read(level), _SHOWN_AT, plan.ETCD), "per_s")
        if ratio is not None:
            text = f"{level} reads at {_SHOWN_AT} connections, ratio to etcd"
            found.append(Goal(text, ratio, limit, at_least=True))
    return found


def _bulk_goals(results: Results) -> list[Goal]:
    found = []
    ours = results.select(plan.OURS, plan.loaded(plan.NDJSON))
    for other, way, limit in (
        (plan.ETCD, plan.TRANSACTIONS, 1.5),
        (plan.POSTGRESQL, plan.INSERT_NEW, 0.8),
    ):
        ratio = _ratio(ours, results.select(other, plan.loaded(way)), "per_s")
        if ratio is not None:
            text = f"import, ratio to {other} ({way})"
            found.append(Goal(text, ratio, limit, at_least=True))
    return found


def _stored_goals(results: Results) -> list[Goal]:
    found = []
    for what, count in plan.PRESSED:
        ratios = pair_ratios(results, what, count)
        if ratios:
            text = f"{what}, {plan.connections(count)}, most records to few"
            found.append(Goal(text, median(ratios), 1.1))
    for what in (plan.EXPORT, plan.LIST):
        rates = [each.per_s for each in results.samples if each.what == what]
        if rates:
            found.append(Goal(f"{what}, forms/s", median(rates), 200_000, at_least=True))
    memory = [
        each.memory_mib["leader"]
        for each in results.samples
        if each.records == max(s.records for s in results.samples)
    ]
    if memory:
        found.append(Goal("the leader's memory with most records, MiB, highest", max(memory), 250))
    return found


def _both(results: Results, what: str, count: int, other: str) -> tuple[list[Sample], list[Sample]]:
    return results.select(plan.OURS, what, count), results.select(other, what, count)


_GOALS: Final[dict[str, Callable[[Results], list[Goal]]]] = {
    plan.WRITES: _write_goals,
    plan.READS: _read_goals,
    plan.BULK: _bulk_goals,
    plan.STORED: _stored_goals,
}
