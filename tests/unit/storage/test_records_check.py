"""Rows that are not what the entries say are found and put back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.write import Operation
from replicad.errors import RecordsDamagedError
from replicad.storage.records import Records
from replicad.storage.records_load import load_records
from replicad.storage.snapshot import decode_line
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of
from tests.support.random_logs import Step, lines_of, steps
from tests.support.record_model import apply

_TABLES = ("collections", "versions", "requests")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(tmp_path / "records.sqlite")
    yield opened
    opened.close()


def lines_of_many() -> tuple[LogBuilder, list[bytes]]:
    """Entries 2 to 9: c is changed in 5 and 8, b deleted in 6, back in 7, and deleted in 8."""
    log = LogBuilder()
    changes = batch_of(Operation("b", None), Operation("c", b'{"n":3}'), request="r8")
    return log, [
        log.open_epoch(1),
        log.insert(write_of("a", b'{"genero":"F"}')),
        log.insert(write_of("b", b'{"n":1}')),
        log.insert(write_of("c", b'{"n":1}')),
        log.write(put_of("c", b'{"n":2}', request="r5")),
        log.write(delete_of("b", request="r6")),
        log.write(put_of("b", b'{"n":2}', request="r7")),
        log.write(changes),
        log.insert(write_of("z", collection="others")),
    ]


def content(records: Records) -> dict[str, list[tuple[object, ...]]]:
    query = "SELECT * FROM {} ORDER BY 1, 2, 3"
    execute = records._connection.execute
    return {table: execute(query.format(table)).fetchall() for table in _TABLES}


def check(records: Records, lines: list[bytes], at_once: int, *, restore: bool = False) -> set[int]:
    """One pass over all entries, so many at once; returns which are found to be wrong."""
    found: set[int] = set()
    for start in range(0, len(lines), at_once):
        some = [line[:-1] for line in lines[start : start + at_once]]
        wrong = records.wrong_entries(some, start + 1)
        if wrong and restore:
            records.restore(some, start + 1)
        found |= wrong
    return found


@pytest.mark.parametrize("at_once", [1, 3, 9])
@pytest.mark.parametrize(
    ("statement", "entries"),
    [
        # What is live.
        ("UPDATE versions SET value = '{}' WHERE at IN (SELECT at FROM records)", {2, 8}),
        ("UPDATE versions SET value = '{}' WHERE key = 'c'", {4, 5, 8}),
        ("UPDATE versions SET genero = 'x' WHERE key = 'a'", {2}),
        ("UPDATE versions SET key = 'x' WHERE key = 'a'", {2}),
        ("DELETE FROM versions WHERE key = 'a'", {2}),
        (
            "INSERT INTO versions SELECT at + 1, number, 'x', until, value, NULL FROM versions"
            " LIMIT 1",
            {2},
        ),
        ("UPDATE versions SET number = 2 WHERE key = 'a'", {2}),
        # What was replaced.
        ("UPDATE versions SET value = '{}' WHERE until = 6", {3}),
        ("DELETE FROM versions WHERE until = 5", {4, 5}),
        ("DELETE FROM versions WHERE until = 6", {3, 6}),
        ("UPDATE versions SET key = 'x' WHERE until = 6", {3, 6}),
        ("UPDATE versions SET number = 2 WHERE until = 6", {3, 6}),
        (
            "INSERT INTO versions SELECT at + 1, number, 'x', until, value, NULL FROM past"
            " WHERE until = 6",
            {3, 6},
        ),
        # What is remembered.
        ("DELETE FROM requests WHERE request = 'r5'", {5}),
        ("UPDATE requests SET done = 'i' WHERE request = 'r5'", {5}),
        ("UPDATE requests SET entry_index = 1 WHERE request = 'r5'", {1, 5}),
        ("INSERT INTO requests SELECT 1, time, '', '', '', '', '' FROM requests LIMIT 1", {1}),
    ],
)
def test_what_is_wrong_is_found_and_put_back(
    records: Records, statement: str, entries: set[int], at_once: int
) -> None:
    log, lines = lines_of_many()
    apply(records, log, b"".join(lines))
    before = content(records)
    assert check(records, lines, at_once) == set()
    records._connection.execute(statement)
    assert content(records) != before
    found = check(records, lines, at_once)
    assert found == entries if at_once == 1 else found and found <= entries
    passes = 0
    while check(records, lines, at_once, restore=True):
        passes += 1
        assert passes < 3
    assert content(records) == before


@pytest.mark.parametrize("at_once", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET until = 7 WHERE key = 'c' AND until = 5",
        "UPDATE versions SET until = 4 WHERE key = 'b' AND until = 6",
        "UPDATE versions SET until = 9 WHERE key = 'b' AND until = 8",
        "UPDATE versions SET until = 99 WHERE key = 'b' AND until = 8",
        "UPDATE versions SET until = (1 << 43) - 1 WHERE key = 'b' AND until = 8",  # Live again.
        "UPDATE versions SET until = 1 << 43 WHERE key = 'b' AND until = 8",
        "UPDATE versions SET until = 9 WHERE key = 'a'",
        "UPDATE versions SET until = -1 WHERE key = 'a'",
    ],
)
def test_a_version_that_ended_elsewhere_ends_where_it_did(
    records: Records, statement: str, at_once: int
) -> None:
    log, lines = lines_of_many()
    apply(records, log, b"".join(lines))
    before = content(records)
    records._connection.execute(statement)
    assert content(records) != before
    assert check(records, lines, at_once, restore=True)
    check(records, lines, at_once, restore=True)
    assert content(records) == before


def test_indexes_of_what_was_put_back_are_made_anew(records: Records, log: LogBuilder) -> None:
    definition = b'{"schema":null,"indexes":["n"],"search":[],"key":"id"}'
    lines = [log.insert(write_of("forms", definition, collection="_collections"))]
    lines.append(log.insert(write_of("a", b'{"n":1}')))
    apply(records, log, b"".join(lines))
    records._connection.execute("DELETE FROM versions WHERE key = 'a'")
    assert check(records, lines, 9, restore=True) == {2}
    while records.indexes.unfinished:
        with records.transaction():
            records.indexes.work(0.01)
    rows = records._connection.execute("SELECT key FROM fields").fetchall()
    assert rows == [("a",)]


def test_an_unknown_collection_is_damage(records: Records) -> None:
    log, lines = lines_of_many()
    apply(records, log, b"".join(lines))
    records._connection.execute("DELETE FROM collections WHERE name = 'others'")
    path = records._path
    records.close()
    again = Records.open(path)
    with pytest.raises(RecordsDamagedError, match="others"):
        check(again, lines, 3)
    again.close()


def test_what_a_snapshot_brought_has_no_past(tmp_path: Path, records: Records) -> None:
    """The log still has the entries by which it came about."""
    log, lines = lines_of_many()
    records.apply((line[:-1] for line in lines[:7]), log.index.digest_at(7))
    snapshot = map(decode_line, records.snapshot_lines(7, ""))
    load_records(tmp_path / "loaded", snapshot, log.index.point(7), records.time)
    records.replace_with(tmp_path / "loaded")
    records.apply((line[:-1] for line in lines[7:]), log.index.last_point.digest)
    for at_once in (1, 3, 9):
        assert check(records, lines, at_once) == set()
    records._connection.execute("UPDATE versions SET value = '{}' WHERE key = 'a'")
    assert check(records, lines, 3, restore=True) == {2}
    assert check(records, lines, 3) == set()


_WRECKS = (
    "DELETE FROM versions WHERE at IN (SELECT at FROM records ORDER BY at LIMIT 2 OFFSET {0})",
    "DELETE FROM versions WHERE until = (SELECT until FROM past ORDER BY until LIMIT 1 OFFSET {0})",
    "UPDATE versions SET until = until + 1 WHERE until % 3 = {0} % 3",
    "UPDATE versions SET until = until - 1 WHERE until % 3 = {0} % 3 AND until > 1",
    "UPDATE versions SET value = '[]' WHERE until % 2 = {0} % 2",
    "UPDATE OR IGNORE versions SET key = 'b' WHERE at % 3 = {0} % 3",
    "UPDATE OR IGNORE versions SET at = at + 1024 WHERE (at >> 10) % 3 = {0} % 3",
    "UPDATE OR IGNORE versions SET number = number + 1 WHERE (at >> 10) % 3 = {0} % 3",
    "UPDATE OR IGNORE versions SET until = (at >> 10 & 4095) + {0} WHERE at % 2 = {0} % 2",
    "UPDATE OR IGNORE versions SET until = (1 << 43) - 1 WHERE until % 2 = {0} % 2",
    "INSERT OR IGNORE INTO versions SELECT at + 1024, number, key, until - 1, value, NULL"
    " FROM versions",
    "DELETE FROM requests WHERE entry_index % 2 = {0} % 2",
)


@settings(max_examples=60, deadline=None)
@given(
    entries=steps(),
    wrecks=st.lists(st.tuples(st.sampled_from(_WRECKS), st.integers(0, 5)), min_size=1, max_size=2),
    at_once=st.integers(1, 20),
)
def test_whatever_is_wrong_is_right_after_some_passes(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[Step],
    wrecks: list[tuple[str, int]],
    at_once: int,
) -> None:
    log = LogBuilder()
    lines = lines_of(log, entries)
    records = Records.open(tmp_path_factory.mktemp("records") / "records.sqlite")
    for index, line in enumerate(lines, 1):
        records.apply([line[:-1]], log.index.digest_at(index))
    before = content(records)
    assert check(records, lines, at_once) == set()
    for statement, number in wrecks:
        with suppress(sqlite3.IntegrityError):  # What SQLite refuses, no damage brings about.
            records._connection.execute(statement.format(number))
    found = check(records, lines, at_once, restore=True)
    assert found or content(records) == before
    passes = 1
    while check(records, lines, at_once, restore=True):
        passes += 1
        assert passes < 5
    assert content(records) == before
    records.close()
