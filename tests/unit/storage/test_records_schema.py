"""Files that cannot be a record store of this version are made anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from replicad.errors import RecordsDamagedError
from replicad.storage import records_schema
from replicad.storage.records import NOTHING_APPLIED, Records
from tests.support.entries import LogBuilder
from tests.support.record_model import apply
from tests.support.record_stores import scan_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.mark.parametrize(
    "content", [b"not a database, and long enough to be one" * 100, b"x", b"\0" * 8192]
)
def test_a_file_that_is_no_database_is_replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    records = Records.open(path)
    assert records.applied == NOTHING_APPLIED
    records.close()


def test_a_file_of_another_schema_is_replaced(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(1))
    records.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    again = Records.open(path)
    assert (again.applied, again.count("forms")) == (NOTHING_APPLIED, 0)
    again.close()


def test_rows_beyond_what_is_applied_are_damage(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(3))
    records.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE applied SET entry_index = 2")
    connection.close()
    again = Records.open(path)
    assert again.applied == NOTHING_APPLIED
    again.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_the_journal_has_grown_to_while_somebody_read_is_given_back(
    path: Path, log: LogBuilder, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    pages = 8
    monkeypatch.setattr(records_schema, "_CHECKPOINT_PAGES", pages)
    records = Records.open(path)
    reader = records.open_reader()
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM applied").fetchall()
    for _ in range(5):
        apply(records, log, log.inserts(100))
    grown = records.journal_bytes
    assert grown > 5 * pages * 4096
    records.empty_journal()  # Of no use yet, and no harm.
    assert records.journal_bytes == grown
    reader.close()
    if at_once:
        records.empty_journal()
        assert records.journal_bytes == 0
    apply(records, log, log.inserts(1))
    apply(records, log, log.inserts(1))
    assert records.journal_bytes < 2 * pages * 4096
    assert records.count("forms") == 502
    records.close()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_file_cut_short_is_noticed_at_the_latest_when_read(
    path: Path, log: LogBuilder, share: float
) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(2000, padding=100))
    records.close()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    again = Records.open(path)
    if again.applied != NOTHING_APPLIED:
        with pytest.raises(RecordsDamagedError):
            scan_all(again, upto=2000)
        again.reset()
    assert again.applied == NOTHING_APPLIED
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE applied SET entry_index = CAST(entry_index AS BLOB)",
        "UPDATE applied SET since = 1",
        "UPDATE applied SET time = x'00'",
        "DELETE FROM applied",
        "DROP TABLE applied",
        "DROP TABLE versions",
    ],
)
def test_what_cannot_be_read_as_a_record_store_is_made_anew(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "records.sqlite"
    Records.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    records = Records.open(path)
    assert records.applied.index == 0
    records.close()


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 339, 1000])
def test_rows_are_inserted_in_order_however_many_they_are(tmp_path: Path, count: int) -> None:
    connection = sqlite3.connect(tmp_path / "file")
    connection.execute("CREATE TABLE numbers (number, twice)")
    rows = [(number, 2 * number) for number in range(count)]
    statements = records_schema._inserts("numbers", "?", "?")
    records_schema.insert(connection, statements, iter(rows))
    assert connection.execute("SELECT * FROM numbers ORDER BY rowid").fetchall() == rows
    connection.close()


def test_a_text_that_is_no_utf_8_is_damage(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(3))
    records._connection.execute("UPDATE versions SET key = CAST(x'ff' AS TEXT) WHERE key = '2'")
    with pytest.raises(RecordsDamagedError, match="UTF-8"):
        list(records.snapshot_lines(3, ""))
    records.close()
