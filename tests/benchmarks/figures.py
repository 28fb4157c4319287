"""Medians, spreads and goals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal and what was measured. At most `limit`, or at least where `at_least` is set."""

    text: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goal_table(goals: Iterable[Goal]) -> str:
    """Each goal, and whether it is met."""
    rows = [
        (
            goal.text,
            f"{'>=' if goal.at_least else '<='} {number(goal.limit)}",
            number(goal.measured),
            "met" if goal.is_met else "**missed**",
        )
        for goal in goals
    ]
    return table(("goal", "limit", "measured", ""), rows)


def cell(values: Sequence[float]) -> str:
    """The median, and in parentheses the lowest and the highest of how many; - of none."""
    if not values:
        return "-"
    of = Spread.of(values)
    return f"{number(of.median)} ({number(of.lowest)} to {number(of.highest)}, {of.count})"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
