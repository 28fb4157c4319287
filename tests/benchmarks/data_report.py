"""What `make bench-data` prints and writes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from tests.benchmarks.figures import table


@dataclass(frozen=True, slots=True)
class Cost:
    """What processes took, by name.

    Attributes:
        memory: The most resident memory, in MiB.
        cpu_s: Seconds of processor time.
    """

    memory: dict[str, float]
    cpu_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class ImportFigures:
    """One import.

    Attributes:
        records: How many it stored.
        total: How many there were afterwards.
        seconds: From the first byte sent to the last one of the answer.
        cost: Of it.
    """

    records: int
    total: int
    seconds: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class ExportFigures:
    """One export of all records; see ImportFigures.

    Attributes:
        kind: Its media type.
        size: In bytes.
    """

    kind: str
    records: int
    size: int
    seconds: float
    cost: Cost


@dataclass(frozen=True, slots=True)
class QueryFigures:
    """One query, asked again and again by one client.

    Attributes:
        what: Which.
        records: How many there were.
        took_ms: One value each time.
        refusal: The kind of problem that was the answer instead.
    """

    what: str
    records: int
    took_ms: tuple[float, ...]
    refusal: str = ""

    def cell(self) -> str:
        """Median and 99th percentile, in milliseconds."""
        if self.refusal:
            return self.refusal
        ordered = sorted(self.took_ms)
        high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return f"{ordered[len(ordered) // 2]:.3g} ({high:.3g})"


@dataclass(slots=True)
class DataResults:
    """Everything measured so far.

    Attributes:
        machine, command: On what, and by what.
        form_bytes: Length of a record.
    """

    machine: dict[str, str]
    command: str
    form_bytes: int
    imports: list[ImportFigures] = field(default_factory=list)
    exports: list[ExportFigures] = field(default_factory=list)
    queries: list[QueryFigures] = field(default_factory=list)

    def markdown(self) -> str:
        """All tables."""
        about = [[name, value] for name, value in self.machine.items()]
        about += [["command", f"`{self.command}`"], ["records", f"of {self.form_bytes} bytes"]]
        parts = (table(("measured on", ""), about), self._flows(), self._latencies())
        return "\n\n".join(parts) + "\n"

    def _flows(self) -> str:
        flows = [
            (
                f"import of {each.records:,}, to {each.total:,}",
                each.records,
                each.seconds,
                each.cost,
            )
            for each in self.imports
        ]
        flows += [
            (f"export of {each.records:,} as {each.kind}", each.records, each.seconds, each.cost)
            for each in self.exports
        ]
        names = list(flows[0][3].memory) if flows else []
        rows = [
            (what, f"{records / seconds:,.0f}", *(_cell(cost, name, records) for name in names))
            for what, records, seconds, cost in flows
        ]
        return table(("one client; MiB, and processor time a record", "records/s", *names), rows)

    def _latencies(self) -> str:
        sizes = sorted({each.records for each in self.queries})
        cells = {(each.what, each.records): each.cell() for each in self.queries}
        rows = [
            (what, *(cells[what, size] for size in sizes))
            for what in dict.fromkeys(each.what for each in self.queries)
        ]
        head = ("one client, p50 (p99), ms", *(f"{size:,} records" for size in sizes))
        return table(head, rows)

    def save(self, path: Path) -> None:
        """Write `path` with .json and .md as its suffix."""
        path.with_suffix(".json").write_bytes(
            orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n"
        )
        path.with_suffix(".md").write_text(self.markdown())


def _cell(cost: Cost, name: str, records: int) -> str:
    return f"{cost.memory[name]:.0f} MiB, {1e6 * cost.cpu_s[name] / records:.1f} µs"
