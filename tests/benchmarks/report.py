"""What `make bench-failover` prints and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

from tests.benchmarks.faults import FAULTS, FaultFigures
from tests.benchmarks.figures import Goal, Spread, cell, goal_table, table
from tests.benchmarks.load import ARRIVALS_PER_S, FORM_BYTES
from tests.benchmarks.recovery import CatchUpFigures, RestartFigures

_GAP_MS: Final = {
    "kill -9 of the leader": 400.0,
    "SIGTERM of the leader": 100.0,
    "transfer": 100.0,
    "kill -9 of a follower": 400.0,
}
_POLITE: Final = ("SIGTERM of the leader", "transfer")
_ETCD_SHARE: Final = 1 / 3
_CATCH_UP_PER_S: Final = 50_000.0
_READY_S: Final = 3.0


@dataclass(slots=True)
class Results:
    """Everything measured so far.

    Attributes:
        machine, command: On what, and by what.
        lost: Acknowledged writes that were missing at the end of a round, by system.
    """

    machine: dict[str, str]
    command: str
    writers: int
    faults: list[FaultFigures] = field(default_factory=list)
    catch_ups: list[CatchUpFigures] = field(default_factory=list)
    restarts: list[RestartFigures] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)

    def gaps(self, system: str, fault: str) -> list[float]:
        """The longest gaps, in milliseconds, round by round."""
        return [each.gap_ms for each in self._of(system, fault)]

    def failed(self, system: str, fault: str) -> int:
        """Failed requests of all rounds."""
        return sum(each.failed for each in self._of(system, fault))

    def _of(self, system: str, fault: str) -> list[FaultFigures]:
        return [each for each in self.faults if (each.system, each.fault) == (system, fault)]

    def goals(self) -> list[Goal]:
        """The goals whose figures were measured."""
        return [*self._fault_goals(), *self._recovery_goals()]

    def _fault_goals(self) -> list[Goal]:
        goals: list[Goal] = []
        for fault, limit in _GAP_MS.items():
            gaps = self.gaps("replicad", fault)
            if not gaps:
                continue
            median = Spread.of(gaps).median
            goals.append(Goal(f"{fault}: median of the longest gaps, ms", median, limit))
            if fault in _POLITE:
                failed = self.failed("replicad", fault)
                goals.append(Goal(f"{fault}: failed requests", failed, 0))
        fault = "kill -9 of the leader"
        ours, theirs = self.gaps("replicad", fault), self.gaps("etcd", fault)
        if ours and theirs:
            share = Spread.of(ours).median / Spread.of(theirs).median
            goals.append(Goal(f"{fault}: median gap, share of etcd's", share, _ETCD_SHARE))
        goals += [
            Goal(f"acknowledged writes lost by {system}", lost, 0)
            for system, lost in self.lost.items()
        ]
        return goals

    def _recovery_goals(self) -> list[Goal]:
        goals: list[Goal] = []
        if self.catch_ups:
            rate = Spread.of([each.entries_per_s for each in self.catch_ups]).median
            goals.append(Goal("catch-up: median, entries/s", rate, _CATCH_UP_PER_S, at_least=True))
        for ended_by in sorted({each.ended_by for each in self.restarts}):
            ready = [each.ready_s for each in self.restarts if each.ended_by == ended_by]
            text = f"restart after {ended_by}: median, s"
            goals.append(Goal(text, Spread.of(ready).median, _READY_S))
        return goals

    def markdown(self) -> str:
        """All tables."""
        about = [[name, value] for name, value in self.machine.items()]
        about += [["command", f"`{self.command}`"], ["load", self._load()]]
        parts = [table(("measured on", ""), about)]
        if self.faults:
            parts.append(self._fault_table())
            parts.append(self._client_table())
        if self.catch_ups or self.restarts:
            parts.append(self._recovery_table())
        parts.append(goal_table(self.goals()))
        return "\n\n".join(parts) + "\n"

    def _load(self) -> str:
        return (
            f"{self.writers} writers, each as fast as it is answered, and {ARRIVALS_PER_S} further "
            f"writes a second; forms of {FORM_BYTES} bytes"
        )

    def _fault_table(self) -> str:
        rows = []
        for fault in FAULTS:
            ours, theirs = self.gaps("replicad", fault), self.gaps("etcd", fault)
            if ours or theirs:
                rows.append((fault, cell(ours), cell(theirs), _ratio(ours, theirs)))
        head = ("longest gap between acknowledged writes, ms", "replicad", "etcd", "ratio")
        return table(head, rows)

    def _client_table(self) -> str:
        rows = []
        for fault in FAULTS:
            for system in ("replicad", "etcd"):
                rounds = self._of(system, fault)
                if rounds:
                    rows.append((fault, system, *_client_cells(rounds)))
        head = (
            "what clients saw",
            "system",
            "failed requests, all rounds",
            "acknowledged",
            "slowest write, ms",
            "writes/s before",
            "longest gap before, ms",
        )
        return table(head, rows)

    def _recovery_table(self) -> str:
        rows = []
        if self.catch_ups:
            missed = f"catch-up of {self.catch_ups[0].entries:,} entries"
            rates = [each.entries_per_s for each in self.catch_ups]
            rows.append((f"{missed}, entries/s", cell(rates)))
            starts = [each.start_s for each in self.catch_ups]
            rows.append(("from process start to the first of them, s", cell(starts)))
        for ended_by in sorted({each.ended_by for each in self.restarts}):
            of = [each for each in self.restarts if each.ended_by == ended_by]
            text = f"restart with {of[0].entries:,} entries after {ended_by}, s until ready"
            rows.append((text, cell([each.ready_s for each in of])))
        return table(("replicad", "median (lowest to highest, rounds)"), rows)

    def save(self, path: Path) -> None:
        """Write `path` with .json and .md as its suffix."""
        goals = [asdict(goal) | {"met": goal.is_met} for goal in self.goals()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_bytes(
            orjson.dumps(asdict(self) | {"goals": goals}, option=orjson.OPT_INDENT_2) + b"\n"
        )
        path.with_suffix(".md").write_text(self.markdown())


def _client_cells(rounds: Sequence[FaultFigures]) -> tuple[str, ...]:
    kinds: dict[str, int] = {}
    for each in rounds:
        for kind, count in each.failures.items():
            kinds[kind] = kinds.get(kind, 0) + count
    seen = ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items()))
    return (
        f"{sum(kinds.values())}{f' ({seen})' if seen else ''}",
        f"{sum(each.acknowledged for each in rounds):,}",
        cell([each.slowest_ms for each in rounds]),
        cell([each.writes_per_s for each in rounds]),
        cell([each.quiet_gap_ms for each in rounds]),
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    if not ours or not theirs:
        return "-"
    return f"{Spread.of(ours).median / Spread.of(theirs).median:.2f}"
