from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from replicad.core.entry import WriteRequest, split_lines
from replicad.core.events import Found
from replicad.core.messages import Point
from replicad.errors import (
    DiskFullError,
    MalformedEntryError,
    ProtocolViolationError,
    RecordsDamagedError,
)
from replicad.storage import records as module
from replicad.storage.records import NOTHING_APPLIED, PAGE_BYTES, Records, Written, load_records
from replicad.storage.snapshot import Record, decode_record, parse_line
from tests.support.crashes import crashes
from tests.support.entries import LogBuilder, write_of
from tests.support.snapshots import Segments


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def records(path: Path) -> Iterator[Records]:
    opened = Records.open(path)
    yield opened
    opened.close()


def apply(records: Records, log: LogBuilder, lines: bytes) -> None:
    records.apply(split_lines(lines), log.index.last_point.digest)


def count(records: Records) -> int:
    found, after = 0, 0
    while page := records.scan("forms", after=after, upto=2**62, limit=1000):
        found, after = found + len(page), page[-1][0]
    return found


def form(genero: object) -> bytes:
    return orjson.dumps({"genero": genero})


def test_a_new_file_is_private_and_empty(path: Path, records: Records) -> None:
    assert records.applied == NOTHING_APPLIED == Point(0, b"")
    assert count(records) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_values_are_given_back_byte_for_byte(records: Records, log: LogBuilder) -> None:
    value = '{"id":"a","n":1.0,"b":[1e5,"\\u00e1 é"],"value":{"value":1}}'.encode()
    apply(records, log, log.insert(write_of("a", value)))
    assert records.get("forms", ["b", "a", "a"]) == [None, value, value]
    assert records.get("other", ["a"]) == [None]
    assert records.get("forms", []) == []


def test_what_is_applied_is_found_again(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.open_epoch(1) + log.inserts(3))
    records.close()
    again = Records.open(path)
    assert again.applied == log.index.last_point
    assert count(again) == 3
    again.close()


def test_control_entries_only_move_what_is_applied(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.open_epoch(1) + log.open_epoch(2))
    assert records.applied == log.index.last_point
    assert records.scan("forms", after=0, upto=9, limit=9) == []


def test_only_the_entries_that_follow_can_be_applied(records: Records, log: LogBuilder) -> None:
    lines = log.inserts(2)
    apply(records, log, lines)
    with pytest.raises(ProtocolViolationError, match="entry 1 to be applied as 3"):
        apply(records, log, lines)
    log.inserts(1)
    with pytest.raises(ProtocolViolationError, match="entry 4 to be applied as 3"):
        apply(records, log, log.inserts(1))
    assert records.applied == log.index.point(2)


def test_an_entry_without_a_member_is_malformed(records: Records, log: LogBuilder) -> None:
    line = log.inserts(1).replace(b'"request"', b'"requesT"')
    with pytest.raises(MalformedEntryError, match="entry 1 lacks 'request'"):
        apply(records, log, line)
    assert records.applied.index == 0


def test_an_unknown_operation_is_not_passed_over(records: Records, log: LogBuilder) -> None:
    line = log.insert(write_of("a")).replace(b'"operation":"insert"', b'"operation":"purge"')
    with pytest.raises(ProtocolViolationError, match="purge"):
        apply(records, log, line)


def test_a_batch_is_applied_whole_or_not_at_all(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(1))
    with pytest.raises(ProtocolViolationError, match="repeats"):
        apply(records, log, log.insert(write_of("new")) + log.insert(write_of("1")))
    assert records.applied == log.index.point(1)
    assert records.get("forms", ["new"]) == [None]
    records.close()
    again = Records.open(path)
    assert (again.applied, count(again)) == (log.index.point(1), 1)
    again.close()


def test_lookup_tells_keys_and_requests_apart(records: Records, log: LogBuilder) -> None:
    stored = write_of("a")
    elsewhere = write_of("b", collection="other")
    apply(records, log, log.open_epoch(1) + log.insert(stored) + log.insert(elsewhere))
    same_key = WriteRequest("another", "f", "forms", "a", b"{}")
    same_request = WriteRequest(stored.request, "f", "forms", "c", b"{}")
    other_collection = WriteRequest("third", "f", "forms", "b", b"{}")
    assert records.lookup(
        [stored, same_key, same_request, other_collection, elsewhere, stored]
    ) == [
        Found(True, (2, stored.fingerprint)),
        Found(True, None),
        Found(False, (2, stored.fingerprint)),
        Found(False, None),
        Found(True, (3, elsewhere.fingerprint)),
        Found(True, (2, stored.fingerprint)),
    ]
    assert records.lookup([]) == []


def test_lookup_takes_more_writes_than_a_statement_takes_parameters(
    records: Records, log: LogBuilder
) -> None:
    apply(records, log, log.inserts(3))
    found = records.lookup([write_of(str(key)) for key in range(40_000)])
    assert [key for key, one in enumerate(found) if one.exists] == [1, 2, 3]
    assert [key for key, one in enumerate(found) if one.request] == [1, 2, 3]


def test_a_batch_of_lookups_is_two_statements(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(3))
    statements: list[str] = []
    records._connection.set_trace_callback(statements.append)
    records.lookup([write_of(str(key)) for key in range(1000)])
    assert len(statements) == 2


def test_a_request_leads_to_what_it_has_stored(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.open_epoch(1) + log.insert(write_of("a")) + log.insert(write_of("b")))
    assert records.written_by("r-forms-b") == Written(3, "forms", "b")
    assert records.written_by("b") is None


def test_scan_goes_in_entry_order_page_by_page(records: Records, log: LogBuilder) -> None:
    keys = ["c", "a", "d", "b"]
    lines = log.open_epoch(1)
    for key in keys:
        lines += log.insert(write_of(key, orjson.dumps({"id": key})))
        lines += log.insert(write_of(key, b'{"id":"no"}', collection="other"))
    apply(records, log, lines)
    everything = [(2 + 2 * at, orjson.dumps({"id": key})) for at, key in enumerate(keys)]
    assert records.scan("forms", after=0, upto=99, limit=99) == everything
    assert records.scan("forms", after=0, upto=99, limit=3) == everything[:3]
    assert records.scan("forms", after=6, upto=99, limit=3) == everything[3:]
    assert records.scan("forms", after=2, upto=6, limit=99) == everything[1:3]
    assert records.scan("forms", after=9, upto=99, limit=99) == []
    assert count(records) == 4


def test_genero_is_matched_ignoring_case(records: Records, log: LogBuilder) -> None:
    generos = ["Femenino", "FEMENINO", "Masculino", "Straße", "", None, 7, ["Femenino"], "ÑANDÚ"]
    lines = b"".join(log.insert(write_of(str(n), form(g))) for n, g in enumerate(generos))
    apply(records, log, lines + log.insert(write_of("none", b"{}")))

    def matching(genero: str) -> list[int]:
        return [at for at, _ in records.scan("forms", after=0, upto=99, limit=99, genero=genero)]

    assert matching("femenino") == [1, 2]
    assert matching("STRASSE") == matching("straße") == [4]
    assert matching("ñandú") == [9]
    assert matching("") == [5]
    assert matching("7") == []
    assert records.scan("forms", after=1, upto=2, limit=1, genero="femenino")[0][0] == 2


@pytest.mark.parametrize(
    ("query", "parameters", "plan"),
    [
        (module._SCAN, ("forms", 0, 9, 9), "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (
            module._SCAN_GENERO,
            ("forms", "m", 0, 9, 9),
            "USING INDEX records_by_genero "
            "(collection=? AND genero=? AND entry_index>? AND entry_index<?)",
        ),
    ],
)
def test_scans_neither_sort_nor_walk_everything(
    records: Records, query: str, parameters: tuple[object, ...], plan: str
) -> None:
    rows = records._connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
    assert [row[3] for row in rows] == [f"SEARCH records {plan}"]


def test_reset_begins_anew(records: Records, log: LogBuilder) -> None:
    lines = log.inserts(3)
    apply(records, log, lines)
    records.reset()
    assert records.applied == NOTHING_APPLIED
    assert records.get("forms", ["1"]) == [None]
    apply(records, log, lines)
    assert count(records) == 3


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
    assert (again.applied, count(again)) == (NOTHING_APPLIED, 0)
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
            again.scan("forms", after=0, upto=2000, limit=2000)
        again.reset()
    assert again.applied == NOTHING_APPLIED
    again.close()


def test_damage_found_at_runtime_is_typed_and_reset_repairs_it(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    lines = log.inserts(2000, padding=100)
    apply(records, log, lines)
    records.close()
    content = path.read_bytes()
    part = len(content) // 4  # The first and the last pages are read when the file is opened.
    path.write_bytes(content[:part] + b"\xee" * part + content[2 * part :])
    again = Records.open(path)
    assert again.applied == log.index.last_point
    with pytest.raises(RecordsDamagedError):
        again.get("forms", [str(key) for key in range(2000)])
    again.reset()
    apply(again, log, lines)
    assert count(again) == 2000
    again.close()


def test_a_file_deleted_while_in_use_is_rebuilt_at_the_latest_on_the_next_open(
    path: Path, log: LogBuilder
) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(2))
    for file in path.parent.glob("records.sqlite*"):
        file.unlink()
    try:
        apply(records, log, log.inserts(1))
    except RecordsDamagedError:
        records.reset()
    records.close()
    again = Records.open(path)
    assert again.applied == NOTHING_APPLIED
    again.close()


def test_no_room_is_typed_and_what_was_applied_stays(tiny_disk: Path) -> None:
    log = LogBuilder()
    records = Records.open(tiny_disk / "records.sqlite")
    apply(records, log, log.inserts(1))
    lines = log.inserts(1000, padding=1000)
    with pytest.raises(DiskFullError):
        apply(records, log, lines)
    assert records.applied == log.index.point(1)
    assert count(records) == 1
    log.index.truncate(2)
    apply(records, log, log.inserts(10))
    assert count(records) == 11
    records.close()


def test_a_page_of_large_records_is_bounded_by_bytes(records: Records, log: LogBuilder) -> None:
    """Else every reader of a listing would hold hundreds of records of up to 1 MiB in memory."""
    value = b'{"x":"%b"}' % (b"x" * (PAGE_BYTES // 2))
    for key in "abcde":
        apply(records, log, log.insert(write_of(key, value)))
    page = records.scan("forms", after=0, upto=5, limit=500)
    assert [index for index, _ in page] == [1, 2]
    assert [i for i, _ in records.scan("forms", after=2, upto=5, limit=500)] == [3, 4]


def snapshot_of(records: Records, upto: int = 2**62) -> list[bytes]:
    return list(records.snapshot_lines(upto))


def test_records_are_given_as_the_lines_of_a_snapshot(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    records = Records.open(tmp_path / "records.sqlite")
    segments.add_records(["b", "a", "Z", "9.-", "0"])
    segments.add(segments.log.insert(write_of("a", b'{"n":1.0}', collection="others")))
    apply(records, segments.log, b"".join(segments.lines))
    for index in (5, 6):
        assert snapshot_of(records, index) == segments.expected(index).splitlines(keepends=True)[1:]
    assert snapshot_of(records, 0) == []
    records.close()


def test_the_lines_of_a_snapshot_come_page_by_page(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(9, padding=PAGE_BYTES // 2))
    lines = records.snapshot_lines(9)
    assert parse_line(next(lines))[0] == 1
    apply(records, log, log.insert(write_of("0")) + log.insert(write_of("99")))
    assert [parse_line(line)[0] for line in lines] == list(range(2, 10))
    assert len(snapshot_of(records)) == 11


def test_the_lines_of_a_snapshot_are_not_sorted_by_sqlite(records: Records) -> None:
    statements: list[str] = []
    records._connection.set_trace_callback(statements.append)
    snapshot_of(records)
    plan = records._connection.execute("EXPLAIN QUERY PLAN " + statements[0]).fetchall()
    assert [row[3].split("(")[0] for row in plan] == ["SEARCH records USING INDEX records_by_key "]


def test_loading_a_snapshot_is_as_good_as_applying(tmp_path: Path, log: LogBuilder) -> None:
    lines = log.open_epoch(1) + log.inserts(20)
    lines += log.insert(write_of("x", form("ÁRBOL"))) + log.insert(write_of("y", form(1)))
    applied = Records.open(tmp_path / "applied")
    apply(applied, log, lines)
    snapshot = snapshot_of(applied)
    load_records(tmp_path / "loaded", map(decode_record, snapshot), log.index.last_point)

    records = Records.open(tmp_path / "replaced")
    apply(records, LogBuilder("other"), LogBuilder("other").inserts(3))
    records.replace_with(tmp_path / "loaded")
    assert not (tmp_path / "loaded").exists()
    assert records.applied == log.index.last_point
    tables = ("records", "requests", "applied")
    for table in tables:
        wanted = applied._connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        found = records._connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
        assert found == wanted
    apply(records, log, log.inserts(1))
    records.close()
    again = Records.open(tmp_path / "replaced")
    assert again.applied == log.index.last_point
    assert stat.S_IMODE((tmp_path / "replaced").stat().st_mode) == 0o600
    again.close()
    applied.close()


def test_a_snapshot_that_repeats_itself_is_not_loaded(tmp_path: Path, log: LogBuilder) -> None:
    one = Record(1, "forms", "a", "r1", "f", b"{}")
    for other in (replace(one, index=2, key="b"), replace(one, index=2, request="r2")):
        path = tmp_path / other.key
        with pytest.raises(ProtocolViolationError):
            load_records(path, iter((one, other)), log.index.last_point)


def test_no_room_to_load(tiny_disk: Path, log: LogBuilder) -> None:
    big = (
        Record(index, "forms", f"{index}", f"r{index}", "f", b'{"x":"%b"}' % (b"x" * 9999))
        for index in range(1, 100)
    )
    with pytest.raises(DiskFullError):
        load_records(tiny_disk / "loaded", big, log.index.last_point)


def test_a_crash_while_the_file_is_replaced(
    tmp_path: Path, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record store is the old one, empty, or the new one, and never a mixture."""
    path, loaded, kept = tmp_path / "records.sqlite", tmp_path / "loaded", tmp_path / "kept"
    old, new = log.inserts(3), log.inserts(4)
    middle = log.index.point(3)
    everything = Records.open(tmp_path / "everything")
    apply(everything, log, old + new)
    load_records(kept, map(decode_record, snapshot_of(everything)), log.index.last_point)
    everything.close()
    seen: set[int] = set()
    records = Records.open(path)

    def prepare() -> None:
        nonlocal records
        records.close()
        again = Records.open(path)
        assert again.applied.index == count(again)
        seen.add(again.applied.index)
        again.reset()
        again.apply(split_lines(old), middle.digest)
        records = again
        shutil.copy(kept, loaded)

    steps = list(crashes(monkeypatch, lambda: records.replace_with(loaded), before=prepare))
    assert len(steps) >= 3
    assert seen <= {0, 3, 7}
    assert records.applied.index == count(records) == 7
    records.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE applied SET entry_index = CAST(entry_index AS BLOB)",
        "DELETE FROM applied",
        "DROP TABLE applied",
        "DROP TABLE records",
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
