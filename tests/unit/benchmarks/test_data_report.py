from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.data_report import (
    Cost,
    DataResults,
    ExportFigures,
    ImportFigures,
    QueryFigures,
)

COST = Cost({"gateway": 70.4, "leader": 120.0}, {"gateway": 0.5, "leader": 1.0})


def results() -> DataResults:
    return DataResults(
        machine={"cpu": "2 x A"},
        command="python -m x",
        form_bytes=300,
        imports=[ImportFigures(10_000, 10_000, 0.5, COST)],
        exports=[ExportFigures("text/csv", 10_000, 1, 0.1, COST)],
        queries=[
            QueryFigures("a page", 10_000, tuple(float(n) for n in range(1, 101))),
            QueryFigures("a page", 100_000, (), "query-too-broad"),
        ],
    )


def test_the_tables_say_rates_memory_time_and_latencies() -> None:
    text = results().markdown()
    assert "| import of 10,000, to 10,000 | 20,000 | 70 MiB, 50.0 µs | 120 MiB, 100.0 µs |" in text
    assert "| export of 10,000 as text/csv | 100,000 |" in text
    assert "| a page | 51 (100) | query-too-broad |" in text
    assert "| one client, p50 (p99), ms | 10,000 records | 100,000 records |" in text


def test_nothing_measured_is_no_error() -> None:
    assert "records/s" in DataResults({}, "", 300).markdown()


def test_every_value_is_kept(tmp_path: Path) -> None:
    results().save(tmp_path / "r")
    kept = json.loads((tmp_path / "r.json").read_bytes())
    assert kept["queries"][0]["took_ms"][:2] == [1.0, 2.0]
    assert (tmp_path / "r.md").read_text() == results().markdown()
