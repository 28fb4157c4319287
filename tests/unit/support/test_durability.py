"""The check of what was durable when finds each order that loses something."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.durability import Replica
from tests.support.syscalls import Call

PID = 7
LINE = b'{"index":2}\n'
SAID = re.compile(rb"holds (\d+)")


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    """With one entry on its disk before, and another one now."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.jsonl").write_bytes(LINE * 2)
    return Replica("n1", PID, tmp_path, len(LINE))


def run(replica: Replica, *steps: tuple[str, int, int], result: int = 0) -> None:
    """Check calls, given as names, begins and ends."""
    log = str(replica.data_dir / "log" / "1.jsonl")
    made = {
        "write": lambda *at: Call(PID, "write", log, LINE, len(LINE), *at),
        "sync": lambda *at: Call(PID + 1, "fdatasync", log, b"", result, *at),
        "sync of another file": lambda *at: Call(PID, "fdatasync", "/synced", b"", 0, *at),
        "send": lambda *at: Call(PID, "write", "socket:[1]", b"holds 2", 7, *at),
        "send of old": lambda *at: Call(PID, "write", "socket:[1]", b"holds 1", 7, *at),
    }
    traced = [made[name](began, ended) for name, began, ended in steps]
    said = replica.said(traced, SAID)
    assert said
    replica.assert_said_when_durable(traced, said)


def test_synced_before_it_was_said(replica: Replica) -> None:
    run(replica, ("send of old", 0, 0), ("write", 1, 1), ("sync", 2, 3), ("send", 4, 4))


@pytest.mark.parametrize(
    "steps",
    [
        [("write", 0, 0), ("send", 1, 1)],
        [("write", 0, 0), ("send", 1, 1), ("sync", 2, 2)],
        [("write", 0, 0), ("sync of another file", 1, 1), ("send", 2, 2)],
        [("write", 1, 2), ("sync", 0, 3), ("send", 4, 4)],
        [("write", 0, 0), ("send", 2, 2), ("sync", 1, 3)],
        [("sync", 0, 0), ("send", 1, 1)],
    ],
    ids=["never", "after", "another file", "written meanwhile", "not yet done", "not written"],
)
def test_said_before_it_was_synced(replica: Replica, steps: list[tuple[str, int, int]]) -> None:
    with pytest.raises(AssertionError, match="n1"):
        run(replica, *steps)


def test_a_sync_that_failed(replica: Replica) -> None:
    with pytest.raises(AssertionError, match="n1"):
        run(replica, ("write", 0, 0), ("sync", 1, 1), ("send", 2, 2), result=-1)
