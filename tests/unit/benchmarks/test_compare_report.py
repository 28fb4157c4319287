"""Tables, goals, plots and the page, from samples that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.compare import document, plan, report
from tests.benchmarks.compare.plots import PLOTS
from tests.benchmarks.compare.samples import Results, Sample, Timeline, load

MACHINE = {"date": "today", "cpu": "2 x A", "busy before": "0.1", "commit": "abc"}


def sample(
    system: str,
    what: str,
    per_s: float,
    connections: int = 64,
    *,
    records: int = 0,
    number: int = 1,
) -> Sample:
    p50_ms = 1_000 * connections / per_s
    return Sample(
        system=system,
        what=what,
        connections=connections,
        records=records,
        round=number,
        per_s=per_s,
        p50_ms=p50_ms,
        p99_ms=2 * p50_ms,
        cpu_us={"leader": 100.0, "gateway": 50.5},
        memory_mib={"leader": 120.0, "gateway": 60.0},
    )


def results(part: str, *samples: Sample) -> Results:
    return Results(part, MACHINE, "python -m x", 5, list(samples))


def writes() -> Results:
    rates = {plan.OURS: 9_000, plan.ETCD: 5_000, plan.POSTGRESQL: 2_500}
    found = [
        sample(system, plan.WRITE, rate + 100 * number, connections, number=number)
        for number in range(3)
        for connections in plan.WRITE_CONNECTIONS
        for system, rate in rates.items()
    ]
    floors = [sample(name, plan.WRITE, 10_000, 1) for name in (plan.FLOOR, plan.LOWERED_FLOOR)]
    return results(plan.WRITES, *found, *floors)


def stored() -> Results:
    pairs = [
        sample(plan.OURS, what, rate, connections, records=records, number=number)
        for what, connections in plan.PRESSED
        for records, rate in ((10_000, 1_000), (1_000_000, 800))
        for number in (1, 2)
    ]
    growing = [
        sample(plan.GROWING, what, 500, connections, records=size)
        for what, connections in plan.PRESSED_GROWING
        for size in (10_000, 1_000_000)
    ]
    export = sample(plan.OURS, plan.EXPORT, 600_000, 0, records=1_000_000)
    return results(plan.STORED, *pairs, *growing, export)


def failover() -> Results:
    line = Timeline(plan.OURS, "kill -9", 50, -100, [5, 5, 0, 7])
    return replace(results(plan.FAILOVER), timelines=[line])


def test_cells_are_medians_with_lowest_highest_and_rounds() -> None:
    text = report.tables(writes())
    assert "| replicad | 9,100 (9,000 to 9,200, 3) |" in text
    assert "| replicad / etcd | 1.78 | 1.78 | 1.78 | 1.78 |" in text
    assert "| floor | 10,000 (10,000 to 10,000, 1) | - | - | - |" in text
    assert "| replicad | 150: leader 100, gateway 50 |" in text


def test_latencies_are_compared_as_well() -> None:
    text = report.tables(writes())
    assert "| etcd | 0.196, 0.392 | 3.14, 6.27 | 12.5, 25.1 | 50.2, 100 |" in text
    assert "| replicad / etcd | 0.56 | 0.56 | 0.56 | 0.56 |" in text


def test_goals_of_writes_are_ratios_of_medians() -> None:
    goals = {goal.text: goal for goal in report.goals({plan.WRITES: writes()})}
    assert goals["writes at 64 connections, ratio to etcd"].measured == 9_100 / 5_100
    assert goals["writes at 64 connections, ratio to postgresql"].is_met
    floor = goals["writes at 1 connection, p50, ratio to the floor"]
    assert floor.measured == pytest.approx(10_000 / 9_100)
    assert goals["writes at 64 connections, p99 over p50"].measured == 2


def test_only_what_was_measured_is_judged() -> None:
    alone = results(plan.WRITES, sample(plan.OURS, plan.WRITE, 9_000))
    assert [goal.text for goal in report.goals({plan.WRITES: alone})] == [
        "writes at 64 connections, p99 over p50"
    ]


def test_reads_have_a_goal_for_each_consistency() -> None:
    found = results(
        plan.READS,
        *(
            sample(system, plan.read(level), rate)
            for system, rate in ((plan.OURS, 9_000), (plan.ETCD, 4_000))
            for level in (plan.STRONG, plan.LOCAL)
        ),
    )
    goals = report.goals({plan.READS: found})
    assert [(goal.measured, goal.is_met) for goal in goals] == [(2.25, True), (2.25, False)]
    assert "| strong reads a second | 1 connection | 64 connections |" in report.tables(found)


def test_imports_are_compared_with_the_way_that_tells_as_much() -> None:
    found = results(
        plan.BULK,
        sample(plan.OURS, plan.loaded(plan.NDJSON), 40_000, 0),
        sample(plan.POSTGRESQL, plan.loaded(plan.INSERT_NEW), 80_000, 0),
        sample(plan.POSTGRESQL, plan.loaded(plan.COPY), 160_000, 0),
    )
    assert [goal.measured for goal in report.goals({plan.BULK: found})] == [0.5]
    assert "| postgresql | import: COPY | 160,000 (160,000 to 160,000, 1) | 0.25 |" in (
        report.tables(found)
    )


def test_latencies_with_many_and_few_records_are_compared_pair_by_pair() -> None:
    found = stored()
    assert report.pair_ratios(found, plan.UPDATE, 64) == [1.25, 1.25]
    goals = {goal.text: goal.measured for goal in report.goals({plan.STORED: found})}
    assert goals["insert, 1 connection, most records to few"] == 1.25
    assert goals["export: NDJSON, forms/s"] == 600_000
    assert goals["the leader's memory with most records, MiB, highest"] == 120


def test_the_longest_silence_of_a_failover_is_told() -> None:
    line = Timeline(plan.OURS, "kill -9", 50, -100, [5, 0, 7, 0, 0, 0, 1])
    found = replace(results(plan.FAILOVER), timelines=[line])
    assert "| replicad | 150 ms | 13 |" in report.tables(found)


def test_a_pair_without_its_other_half_does_not_count() -> None:
    lonely = sample(plan.OURS, plan.INSERT, 1_000, 1, records=10_000)
    assert report.pair_ratios(results(plan.STORED, lonely), plan.INSERT, 1) == []


@pytest.mark.parametrize("part", plan.PARTS)
def test_nothing_measured_is_no_error(part: str) -> None:
    assert report.goals({part: results(part)}) == []
    report.tables(results(part))


def test_several_machines_are_told_apart() -> None:
    here, there = writes(), replace(stored(), machine={**MACHINE, "cpu": "4 x B", "date": "now"})
    text = report.measured_on({plan.WRITES: here, plan.STORED: there})
    assert "| measured on | writes |" in text
    assert "| measured on | stored |" in text
    assert "| stored | now | 0.1 | abc | `python -m x` |" in text


def test_every_value_is_kept(tmp_path: Path) -> None:
    saved = {each.part: each for each in (writes(), stored(), failover())}
    for each in saved.values():
        each.save(tmp_path)
    assert load(tmp_path, plan.PARTS) == saved


@pytest.mark.parametrize("found", [writes(), stored(), failover()], ids=lambda found: found.part)
def test_the_same_figures_make_the_same_plot(found: Results, tmp_path: Path) -> None:
    for name in ("one", "two"):
        PLOTS[found.part](found, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "</svg>" in (tmp_path / "one.svg").read_text()


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- a: made by make bench -->\nold\n<!-- /a -->\nafter\n"
    new = document.put(page, "a", r"new \1")
    assert new == "before\n<!-- a: made by make bench -->\nnew \\1\n<!-- /a -->\nafter\n"
    with pytest.raises(ValueError, match="no marks of b"):
        document.put(page, "b", "new")


def test_the_page_has_a_place_for_every_part() -> None:
    page = (document.FIGURES.parent / "benchmarks.md").read_text()
    for name in (*plan.PARTS, "machine", "goals"):
        document.put(page, name, "")
