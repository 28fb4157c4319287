"""What was measured, and how it is kept. Pure but for files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one system, alone on the machine.

    Attributes:
        system: Its name.
        what: What was asked of it.
        connections: Of wrk; 0 where there was one stream.
        records: How many forms were stored, where that matters.
        round: From 1.
        per_s: Requests, or forms of a stream, a second.
        p50_ms, p99_ms: Of requests; 0 for a stream.
        cpu_us: Processor time of each process, in microseconds a request, or a form.
        memory_mib: Resident memory of each process afterwards.
    """

    system: str
    what: str
    connections: int
    records: int
    round: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    memory_mib: dict[str, float]

    def line(self) -> str:
        """All in a line, for whoever watches."""
        cpu = ", ".join(f"{name} {each:.0f}" for name, each in self.cpu_us.items())
        return (
            f"{self.system:>12} {self.what:<16} {self.connections:>4} connections "
            f"{self.per_s:>9,.0f}/s  p50 {self.p50_ms:.2f} p99 {self.p99_ms:.2f} ms  "
            f"{sum(self.cpu_us.values()):.0f} us: {cpu}"
        )


@dataclass(frozen=True, slots=True)
class Timeline:
    """What was acknowledged around one fault.

    Attributes:
        system: Its name.
        fault: Which.
        bin_ms: How long a bin is.
        first_ms: When the first one begins; the fault was at 0.
        acknowledged: Writes in each bin.
    """

    system: str
    fault: str
    bin_ms: int
    first_ms: int
    acknowledged: list[int]


@dataclass(slots=True)
class Results:
    """All that was measured of one part.

    Attributes:
        part: Its name.
        machine, command: On what, and by what.
        seconds: How long wrk pressed each time.
    """

    part: str
    machine: dict[str, str]
    command: str
    seconds: float
    samples: list[Sample] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)

    def select(
        self, system: str, what: str, connections: int = 0, records: int | None = None
    ) -> list[Sample]:
        """The rounds of one measurement; without `records` with any number of them."""
        return [
            each
            for each in self.samples
            if (each.system, each.what, each.connections) == (system, what, connections)
            and records in (None, each.records)
        ]

    def systems(self) -> list[str]:
        """Those that were measured."""
        return list(dict.fromkeys(each.system for each in self.samples))

    def save(self, directory: Path) -> None:
        """Write `<part>.json`."""
        directory.mkdir(parents=True, exist_ok=True)
        text = orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n"
        (directory / f"{self.part}.json").write_bytes(text)


def load(directory: Path, parts: Iterable[str]) -> dict[str, Results]:
    """Those parts that were saved, in that order."""
    paths = {part: directory / f"{part}.json" for part in parts}
    return {
        part: _results(orjson.loads(path.read_bytes()))
        for part, path in paths.items()
        if path.exists()
    }


def _results(told: dict[str, Any]) -> Results:
    samples = [Sample(**each) for each in told.pop("samples")]
    timelines = [Timeline(**each) for each in told.pop("timelines")]
    return Results(**told, samples=samples, timelines=timelines)
