"""Checkpoints of the record store beside everything else."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.core.entry import split_lines
from replicad.errors import DiskFailedError, DiskFullError, RecordsDamagedError
from replicad.storage import records_wal as module
from replicad.storage.records import Records
from replicad.storage.records_wal import Checkpointer
from tests.support.entries import LogBuilder
from tests.support.record_model import apply


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row makes a checkpoint due, whose steps are all short."""
    monkeypatch.setattr(module, "_ROWS", 1)
    monkeypatch.setattr(module, "_SHORT_S", 3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def records(path: Path) -> Iterator[Records]:
    opened = Records.open(path)
    yield opened
    opened.close()


def finished(records: Records) -> None:
    """Wait for what the checkpointer is at."""
    at_work = records._checkpointer._most or records._checkpointer._rest
    assert at_work is not None
    at_work.result(10)


def is_ending(records: Records) -> bool:
    return records._checkpointer.ending


def test_the_write_ahead_log_begins_anew_again_and_again(records: Records, log: LogBuilder) -> None:
    for _ in range(4):
        apply(records, log, log.inserts(100))
        finished(records)
    most = records.journal_bytes
    for _ in range(20):
        apply(records, log, log.inserts(100))
        finished(records)
    assert records.journal_bytes <= 2 * most
    assert records.count("forms") == 2400


def test_what_was_moved_is_in_the_file(path: Path, records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(5))
    finished(records)
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())  # Without the write-ahead log.
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (5,)
    connection.close()


class Moving:
    """In the place of the checkpointer's connection: goes on when it is let."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.at_work = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def execute(self, statement: str) -> Moving:
        assert statement == "PRAGMA wal_checkpoint(PASSIVE)"
        self.at_work.release()
        assert self.go.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return self

    def fetchall(self) -> list[tuple[int, int, int]]:
        return [(0, 0, 0)]

    def close(self) -> None:
        pass


@pytest.fixture
def moving(records: Records, monkeypatch: pytest.MonkeyPatch) -> Moving:
    stand_in = Moving()
    records._checkpointer._connection.close()
    monkeypatch.setattr(records._checkpointer, "_connection", stand_in)
    return stand_in


def test_what_is_taken_waits_for_the_end_of_a_checkpoint(
    records: Records, log: LogBuilder, moving: Moving
) -> None:
    def take(count: int) -> None:
        for _ in range(count):
            records.take(split_lines(log.inserts(1)), log.index.last_point.digest)

    take(256)
    assert moving.at_work.acquire(timeout=10)
    take(256)
    assert records.settled.index == 512  # Most of it is moved while writing goes on.
    assert not is_ending(records)
    moving.go.release()
    finished(records)
    assert not is_ending(records)
    take(256)
    assert is_ending(records)
    take(767)
    assert records.settled.index == 768
    take(1)
    assert records.settled.index == 1536  # But not for ever.
    moving.go.release()
    finished(records)
    assert not is_ending(records)
    moving.go.release()
    take(256)
    assert records.settled.index == 1792
    finished(records)


def test_one_at_a_time(records: Records, log: LogBuilder, moving: Moving) -> None:
    for _ in range(5):
        apply(records, log, log.inserts(1))
    moving.go.release()
    finished(records)
    assert moving.at_work.acquire(blocking=False)
    assert not moving.at_work.acquire(blocking=False)


def test_what_takes_long_is_followed_by_another_step(
    records: Records, log: LogBuilder, moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHORT_S", 0.0)
    apply(records, log, log.inserts(1))
    for _ in range(module._STEPS_MAX):
        assert moving.at_work.acquire(timeout=10)
        moving.go.release()
    finished(records)
    assert not moving.at_work.acquire(blocking=False)


def error_of(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("failed")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_IOERR, DiskFailedError),
        (sqlite3.SQLITE_CORRUPT, RecordsDamagedError),
    ],
)
def test_what_a_checkpoint_has_met_is_told_when_more_is_written(
    records: Records, log: LogBuilder, moving: Moving, code: int, kind: type[Exception]
) -> None:
    moving.error = error_of(code)
    moving.go.release()
    apply(records, log, log.inserts(1))
    with pytest.raises(kind):
        finished(records)
    with pytest.raises(kind):
        apply(records, log, log.inserts(1))


def test_without_room_the_next_one_tries_again(
    records: Records, log: LogBuilder, moving: Moving
) -> None:
    moving.error = error_of(sqlite3.SQLITE_FULL)
    for _ in range(2):
        moving.go.release()
        apply(records, log, log.inserts(1))
        finished(records)
    assert records.count("forms") == 2


def test_closing_waits_for_what_is_at_work(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    checkpointer = records._checkpointer
    apply(records, log, log.inserts(500))
    records.close()
    assert checkpointer._most is not None
    assert checkpointer._most.exception(0) is None
    again = Records.open(path)
    assert again.applied == log.index.last_point
    again.close()


def test_a_file_that_is_not_there_is_typed(path: Path) -> None:
    with pytest.raises(DiskFailedError) as refused:
        Checkpointer(path)
    assert not isinstance(refused.value, DiskFullError)
