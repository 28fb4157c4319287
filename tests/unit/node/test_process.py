"""What follows when one run of a replica has ended; the runs themselves: test_daemon.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from replicad.errors import CorruptLogError, DiskSuspectError
from replicad.node import process
from replicad.node.daemon import NodeSettings

SETTINGS = NodeSettings("n1", "test", Path("x"), "", "", "127.0.0.1", 1, "http://n1")


class Runs:
    """Stands in for the runs: how each ends, in order."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.left = list(ends)

    async def run_once(self, _: NodeSettings, told_to_end: asyncio.Event) -> None:
        end = self.left.pop(0)
        if isinstance(end, KeyboardInterrupt):
            told_to_end.set()
            raise CorruptLogError("found while it ended")
        if end is not None:
            raise end


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runs]:
    def run(*ends: BaseException | None) -> Runs:
        runs = Runs(*ends)
        monkeypatch.setattr(process, "_run_once", runs.run_once)
        process.run_node(SETTINGS)
        return runs

    return run


def test_damage_that_is_found_while_running_begins_a_new_run(run: Callable[..., Runs]) -> None:
    assert run(CorruptLogError("x"), None).left == []


def test_damage_that_comes_back_at_once_ends_the_process(run: Callable[..., Runs]) -> None:
    with pytest.raises(CorruptLogError, match="second"):
        run(CorruptLogError("first"), CorruptLogError("second"), None)


def test_damage_that_comes_back_much_later_is_repaired_again(
    run: Callable[..., Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_RESTART_S", 0.0)
    assert run(CorruptLogError("first"), CorruptLogError("second"), None).left == []


def test_a_replica_that_was_told_to_end_does_not_begin_again(run: Callable[..., Runs]) -> None:
    with pytest.raises(CorruptLogError):
        run(KeyboardInterrupt(), None)


def test_other_errors_end_the_process(run: Callable[..., Runs]) -> None:
    with pytest.raises(DiskSuspectError):
        run(DiskSuspectError("EIO"), None)
