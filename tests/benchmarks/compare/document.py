"""docs/benchmarks.md: its tables are written anew, the words between them are a person's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.benchmarks.compare import plots, report
from tests.benchmarks.compare.samples import Results
from tests.benchmarks.figures import goal_table

_DOCS: Final = Path(__file__).parents[3] / "docs"
FIGURES: Final = _DOCS / "benchmarks"
_PAGE: Final = _DOCS / "benchmarks.md"


def write(parts: Mapping[str, Results]) -> None:
    """Tables and plots of these parts, and of all of them together."""
    text = _PAGE.read_text()
    for part, results in parts.items():
        if part in plots.PLOTS:
            plots.PLOTS[part](results, FIGURES / f"{part}.svg")
        text = put(text, part, report.tables(results))
    text = put(text, "machine", report.measured_on(parts))
    text = put(text, "goals", goal_table(report.goals(parts)))
    _PAGE.write_text(text)


def put(text: str, name: str, content: str) -> str:
    """Replace what stands between the two marks of that name.

    Raises:
        ValueError: The marks are not there.
    """
    marks = re.compile(rf"(<!-- {name}: made by make bench -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if marks.search(text) is None:
        raise ValueError(f"no marks of {name}")
    return marks.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)
