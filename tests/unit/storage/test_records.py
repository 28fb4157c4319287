from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.core.messages import Point
from replicad.core.write import Operation, WriteRequest
from replicad.errors import (
    DiskFullError,
    MalformedEntryError,
    ProtocolViolationError,
    RecordsDamagedError,
)
from replicad.storage.records import NOTHING_APPLIED, Records
from replicad.storage.records_load import load_records
from replicad.storage.records_lookup import Stored, Written
from replicad.storage.records_versions import Version
from replicad.storage.snapshot import decode_line
from tests.support.crashes import crashes
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of
from tests.support.random_logs import Step, lines_of, steps
from tests.support.record_model import Model, apply, values
from tests.support.record_stores import scan_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def records(path: Path) -> Iterator[Records]:
    opened = Records.open(path)
    yield opened
    opened.close()


def count(records: Records) -> int:
    found = len(scan_all(records, upto=2**62))
    assert records.count("forms") == found
    return found


def test_a_new_file_is_private_and_empty(path: Path, records: Records) -> None:
    assert records.applied == NOTHING_APPLIED == Point(0, b"")
    assert count(records) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_values_are_given_back_byte_for_byte(records: Records, log: LogBuilder) -> None:
    value = '{"id":"a","n":1.0,"b":[1e5,"\\u00e1 é"],"value":{"value":1}}'.encode()
    apply(records, log, log.insert(write_of("a", value)))
    names = [("forms", "b"), ("forms", "a"), ("other", "a"), ("forms", "a")]
    assert records.get(names) == [None, Stored(1, value), None, Stored(1, value)]
    assert records.get([]) == []


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
    assert scan_all(records, upto=9) == []


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
    with pytest.raises(MalformedEntryError, match="purge"):
        apply(records, log, line)


def test_a_batch_is_applied_whole_or_not_at_all(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.inserts(1))
    with pytest.raises(ProtocolViolationError, match="repeats"):
        apply(records, log, log.insert(write_of("new")) + log.insert(write_of("1")))
    assert records.applied == log.index.point(1)
    assert values(records, "forms", "new") == [None]
    records.close()
    again = Records.open(path)
    assert (again.applied, count(again)) == (log.index.point(1), 1)
    again.close()


@pytest.mark.parametrize("member", [b"key", b"time", b"request", b"fingerprint", b"collection"])
def test_a_deletion_without_a_member_is_malformed(
    records: Records, log: LogBuilder, member: bytes
) -> None:
    apply(records, log, log.inserts(1))
    line = log.write(delete_of("1", request="r")).replace(b'"%b":' % member, b'"x":')
    with pytest.raises(MalformedEntryError, match=f"'{member.decode()}'"):
        apply(records, log, line)


def test_what_is_not_utf_8_is_malformed(records: Records, log: LogBuilder) -> None:
    with pytest.raises(MalformedEntryError, match="not UTF-8"):
        apply(records, log, log.insert(write_of("a", b'{"x":"\xff"}')))


def test_reset_begins_anew(records: Records, log: LogBuilder) -> None:
    generation = records.generation
    lines = log.inserts(3)
    apply(records, log, lines)
    records.reset()
    assert records.generation > generation
    assert (records.applied, records.since) == (NOTHING_APPLIED, 0)
    assert values(records, "forms", "1") == [None]
    apply(records, log, lines)
    assert count(records) == 3


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
        values(again, "forms", *map(str, range(2000)))
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
    small = LogBuilder()
    small.inserts(1)
    apply(records, small, small.inserts(10))
    assert count(records) == 11
    records.close()


def test_a_crash_while_the_file_is_replaced(
    tmp_path: Path, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record store is the old one, empty, or the new one, and never a mixture."""
    path, loaded, kept = tmp_path / "records.sqlite", tmp_path / "loaded", tmp_path / "kept"
    old, new = log.inserts(3), log.inserts(4)
    middle = log.index.point(3)
    everything = Records.open(tmp_path / "everything")
    apply(everything, log, old + new)
    lines = map(decode_line, everything.snapshot_lines(7, ""))
    load_records(kept, lines, log.index.last_point, everything.time)
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


# -- what entries do ----------------------------------------------------------------------------


def test_records_are_changed_and_deleted_and_come_back(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.insert(write_of("a", b'{"n":1}')) + log.insert(write_of("b")))
    apply(records, log, log.write(put_of("a", b'{"n":2}', request="put")))
    assert records.get([("forms", "a")]) == [Stored(3, b'{"n":2}')]
    apply(records, log, log.write(delete_of("a", request="delete")))
    assert (values(records, "forms", "a"), records.count("forms")) == ([None], 1)
    apply(records, log, log.write(put_of("a", b'{"n":5}', request="again")))
    assert records.get([("forms", "a")]) == [Stored(5, b'{"n":5}')]
    assert records.versions_of("forms", "a", limit=9, bytes_max=99) == [
        Version(1, 0, 3, b'{"n":1}'),
        Version(3, 0, 4, b'{"n":2}'),
        Version(5, 0, None, b'{"n":5}'),
    ]
    assert records.versions_of("forms", "a", after=1, limit=1, bytes_max=99) == [
        Version(3, 0, 4, b'{"n":2}')
    ]
    assert records.versions_of("unknown", "a", limit=9, bytes_max=99) == []


def test_versions_are_read_until_they_reach_a_size(records: Records, log: LogBuilder) -> None:
    """A thousand of them may be a GiB."""
    lines = (log.write(put_of("a", b'{"n":%d}' % n, request=f"w{n}")) for n in range(1, 6))
    apply(records, log, b"".join(lines))
    for bytes_max, count in [(1, 1), (7, 1), (8, 2), (21, 3), (22, 4), (99, 5)]:
        found = records.versions_of("forms", "a", limit=9, bytes_max=bytes_max)
        assert [version.entry for version in found] == list(range(1, count + 1))


def test_a_batch_is_one_entry(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.insert(write_of("old")) + log.insert(write_of("gone")))
    operations = Operation("new", b'{"n":1}'), Operation("gone", None), Operation("old", b'{"n":3}')
    apply(records, log, log.write(batch_of(*operations, request="batch")))
    names = [("forms", key) for key in ("new", "gone", "old")]
    assert records.get(names) == [Stored(3, b'{"n":1}'), None, Stored(3, b'{"n":3}')]
    assert records.written_by("batch") == Written(
        3, "forms", None, "idu", "1970-01-01T00:00:02.000Z"
    )
    assert records.versions_of("forms", "old", limit=9, bytes_max=99)[-1].position == 2


@pytest.mark.parametrize("write", [put_of("b", request="w"), delete_of("b", request="w")])
@pytest.mark.parametrize("together", [True, False])
def test_what_is_not_there_cannot_be_changed(
    records: Records, log: LogBuilder, write: WriteRequest, together: bool
) -> None:
    """Whether that follows from the entries applied together or from those before."""
    lines = log.insert(write_of("b")) + log.write(delete_of("b", request="d"))
    log.insert(write_of("b", request="back"))
    there = log.write(write)  # Without the entry before it, it is not.
    impossible = there.replace(b'"index":4', b'"index":3')
    if not together:
        records.apply(split_lines(lines), log.index.digest_at(2))
        lines = b""
    with pytest.raises(ProtocolViolationError):
        apply(records, log, lines + impossible)
    assert records.applied.index == (0 if together else 2)


@pytest.mark.parametrize("together", [True, False])
def test_what_is_there_cannot_be_inserted(
    records: Records, log: LogBuilder, together: bool
) -> None:
    lines = log.insert(write_of("a")) + log.write(put_of("a", request="put"))
    again = LogBuilder()
    again.inserts(2)
    impossible = again.insert(write_of("a", request="again"))
    if not together:
        records.apply(split_lines(lines), log.index.digest_at(2))
        lines = b""
    with pytest.raises(ProtocolViolationError):
        apply(records, log, lines + impossible)


@settings(max_examples=40, deadline=None)
@given(entries=steps(), cuts=st.sets(st.integers(0, 45)), taken=st.sets(st.integers(0, 45)))
def test_entries_applied_in_any_pieces_give_what_they_say(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[Step],
    cuts: set[int],
    taken: set[int],
) -> None:
    """Some of them are only taken, to be written with later ones."""
    log = LogBuilder()
    lines = lines_of(log, entries)
    model = Model(lines)
    records = Records.open(tmp_path_factory.mktemp("records") / "records.sqlite")
    ends = sorted({cut for cut in cuts if 0 < cut < len(lines)} | {len(lines)})
    for start, end in zip([0, *ends], ends, strict=False):
        pieces = split_lines(b"".join(lines[start:end]))
        add = records.take if end in taken else records.apply
        add(pieces, log.index.digest_at(end))
        assert records.applied == log.index.point(end)
        state = model.states[end]
        names = [*model.states[-1], ("forms", "never"), *state]
        wanted = [kept and Stored(kept.entry, kept.value) for kept in map(state.get, names)]
        assert records.get(names) == wanted
        found = records.lookup([write_of(key, collection=name) for name, key in names])
        assert [each.versions for each in found] == [
            (each.version if each else 0,) for each in wanted
        ]
    for name in {(c, key) for c in ("forms", "Zones") for key in ("a", "a.b", "b")}:
        assert records.versions_of(*name, limit=99, bytes_max=2**20) == model.versions(name)
        assert records.count(name[0]) == sum(each == name[0] for each, _ in model.states[-1])
    records.close()


# -- other connections --------------------------------------------------------------------------


def test_a_reader_sees_whole_transactions_and_changes_nothing(
    records: Records, log: LogBuilder
) -> None:
    apply(records, log, log.inserts(2))
    reader = records.open_reader()
    reader.execute("BEGIN")
    query = "SELECT count(*) FROM records"
    assert reader.execute(query).fetchone() == (2,)
    apply(records, log, log.inserts(1))
    assert reader.execute(query).fetchone() == (2,)
    reader.execute("COMMIT")
    assert reader.execute(query).fetchone() == (3,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM versions")
    reader.close()


def test_a_reader_from_before_a_reset_harms_nothing(
    path: Path, records: Records, log: LogBuilder
) -> None:
    apply(records, log, log.inserts(2))
    reader = records.open_reader()
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (2,)
    records.reset()
    lines = LogBuilder().inserts(3)
    records.apply(split_lines(lines), b"x" * 32)
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (2,)
    reader.close()
    records.close()
    again = Records.open(path)
    assert count(again) == 3
    again.close()
