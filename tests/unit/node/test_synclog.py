"""sync.log: one JSON object a line, in files of bounded size."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from replicad.core.effects import Level
from replicad.node import synclog as module
from replicad.node.synclog import SyncLog
from tests.support.logs import sync_log


def test_a_line_says_when_how_bad_who_and_what(tmp_path: Path) -> None:
    log = SyncLog(tmp_path / "sync.log", "n1")
    log.write(Level.ERROR, "truncated", {"index": 7, "node": "n2", "digest": None})
    log.close()
    (line,) = sync_log(tmp_path)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    assert list(line.items()) == [
        ("level", "error"),
        ("replica", "n1"),
        ("event", "truncated"),
        ("index", 7),
        ("node", "n2"),
        ("digest", None),
    ]


def test_text_is_neither_broken_into_lines_nor_formatted(tmp_path: Path) -> None:
    log = SyncLog(tmp_path / "sync.log", "n1")
    log.write(Level.INFO, "100 %s\nof \x1b[31m", {})
    log.close()
    (line,) = sync_log(tmp_path)
    assert line["event"] == "100 %s\nof \x1b[31m"
    assert b"\x1b" not in (tmp_path / "sync.log").read_bytes()


def test_another_run_appends(tmp_path: Path) -> None:
    for event in ("first", "second"):
        log = SyncLog(tmp_path / "sync.log", "n1")
        log.write(Level.INFO, event, {})
        log.close()
    assert [line["event"] for line in sync_log(tmp_path)] == ["first", "second"]


def test_full_files_are_rotated_and_the_oldest_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FILE_BYTES_MAX", 1000)
    log = SyncLog(tmp_path / "sync.log", "n1")
    for number in range(100):
        log.write(Level.INFO, "matched", {"number": number})
    log.close()
    files = ["sync.log", *(f"sync.log.{number}" for number in range(1, 6))]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert max((tmp_path / name).stat().st_size for name in files) <= 1000
    kept = [
        json.loads(line)["number"]
        for name in reversed(files)
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == list(range(kept[0], 100))
