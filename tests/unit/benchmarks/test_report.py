"""Goals and tables of the failover benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.faults import FaultFigures
from tests.benchmarks.figures import Goal, Spread
from tests.benchmarks.recovery import CatchUpFigures, RestartFigures
from tests.benchmarks.report import Results

KILL, TERM = "kill -9 of the leader", "SIGTERM of the leader"


def figures(system: str, fault: str, gap_ms: float, **failures: int) -> FaultFigures:
    return FaultFigures(
        system=system,
        fault=fault,
        round=0,
        gap_ms=gap_ms,
        quiet_gap_ms=10.0,
        acknowledged=1000,
        writes_per_s=500.0,
        failed=sum(failures.values()),
        failures=failures,
        slowest_ms=gap_ms + 1,
        level_s=1.0,
    )


def results(*faults: FaultFigures) -> Results:
    return Results({"cpu": "2 x some"}, "python -m ...", 16, faults=list(faults))


def goal(of: Results, text: str) -> Goal:
    return next(each for each in of.goals() if text in each.text)


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([5.0, 1.0, 2.0]) == Spread(2.0, 1.0, 5.0, 3)


def test_the_leaders_death_is_judged_by_its_median_and_beside_etcd() -> None:
    ours = [figures("replicad", KILL, gap) for gap in (300.0, 350.0, 9000.0)]
    assert goal(results(*ours), "kill -9 of the leader: median of").is_met
    near = results(*ours, figures("etcd", KILL, 1000.0))
    far = results(*ours, figures("etcd", KILL, 2000.0))
    assert not goal(near, "share of etcd's").is_met
    assert goal(far, "share of etcd's").is_met
    assert not any("share" in each.text for each in results(*ours).goals())


def test_one_failed_request_misses_the_goal_of_a_polite_stop() -> None:
    of = results(figures("replicad", TERM, 50.0), figures("replicad", TERM, 50.0, ClientOSError=1))
    assert goal(of, "SIGTERM of the leader: median").is_met
    assert not goal(of, "SIGTERM of the leader: failed requests").is_met


def test_recoveries_are_judged_by_rate_and_time() -> None:
    of = results()
    of.catch_ups.append(CatchUpFigures(0, 300_000, 7.5, 0.6, 40_000.0))
    of.restarts.append(RestartFigures(0, "SIGKILL", 1_000_000, 2.5))
    of.restarts.append(RestartFigures(0, "SIGTERM", 1_000_000, 3.5))
    assert not goal(of, "catch-up").is_met
    assert goal(of, "restart after SIGKILL").is_met
    assert not goal(of, "restart after SIGTERM").is_met


def test_what_was_lost_misses_its_goal() -> None:
    of = results()
    of.lost = {"replicad": 1, "etcd": 0}
    assert not goal(of, "lost by replicad").is_met
    assert goal(of, "lost by etcd").is_met


def test_the_files_hold_the_same_figures(tmp_path: Path) -> None:
    of = results(
        figures("replicad", KILL, 250.0), figures("etcd", KILL, 1500.0, ServerDisconnectedError=2)
    )
    of.save(tmp_path / "out")
    text = (tmp_path / "out.md").read_text()
    assert (
        "| kill -9 of the leader | 250 (250 to 250, 1) | 1,500 (1,500 to 1,500, 1) | 0.17 |" in text
    )
    assert "2 (ServerDisconnectedError: 2)" in text
    stored = json.loads((tmp_path / "out.json").read_bytes())
    assert [each["gap_ms"] for each in stored["faults"]] == [250.0, 1500.0]
    assert all(each["met"] for each in stored["goals"])
