"""What is known about a write: by its keys, and by its request id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicad.core.entry import split_lines
from replicad.core.events import Earlier, Found
from replicad.core.write import DEFINITIONS, Operation
from replicad.errors import DiskFullError, ProtocolViolationError
from replicad.storage import records as module
from replicad.storage.records import Records
from replicad.storage.records_lookup import Stored, Written
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of
from tests.support.record_model import apply, values
from tests.support.record_stores import scan_all

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def records(path: Path) -> Iterator[Records]:
    opened = Records.open(path)
    yield opened
    opened.close()


def take(records: Records, log: LogBuilder, lines: bytes) -> None:
    """Take lines of the log that end where it ends."""
    records.take(split_lines(lines), log.index.last_point.digest)


def test_lookup_tells_keys_and_requests_apart(records: Records, log: LogBuilder) -> None:
    stored = write_of("a")
    elsewhere = write_of("b", collection="other")
    apply(records, log, log.open_epoch(1) + log.insert(stored) + log.insert(elsewhere))
    writes = [
        stored,
        write_of("a", request="another"),
        write_of("c", request=stored.request),
        write_of("b", request="third"),
        elsewhere,
        batch_of(*(Operation(key, b"{}") for key in "cab"), request="batch"),
        stored,
    ]
    earlier = Earlier(2, stored.fingerprint, "i")
    assert records.lookup(writes) == [
        Found((2,), earlier),
        Found((2,), None),
        Found((0,), earlier),
        Found((0,), None),
        Found((3,), Earlier(3, elsewhere.fingerprint, "i")),
        Found((0, 2, 0), None),
        Found((2,), earlier),
    ]
    assert records.lookup([]) == []


def test_lookup_tells_the_version_of_the_definition(records: Records, log: LogBuilder) -> None:
    definition = write_of("forms", b'{"key":"id"}', collection=DEFINITIONS)
    apply(records, log, log.open_epoch(1) + log.insert(definition) + log.insert(write_of("a")))
    found = records.lookup([write_of("b"), write_of("b", collection="other")])
    assert [each.definition for each in found] == [2, 0]
    apply(records, log, log.write(put_of("forms", request="put", collection=DEFINITIONS)))
    assert records.lookup([write_of("b")])[0].definition == 4


def test_lookup_counts_the_records_of_collections_that_must_be_empty(
    records: Records, log: LogBuilder
) -> None:
    apply(records, log, log.inserts(3) + log.insert(write_of("a", collection="other")))
    define = put_of("forms", request="put", collection=DEFINITIONS)
    forget = delete_of("forms", request="delete", collection=DEFINITIONS)
    both = batch_of(
        *(Operation(key, None) for key in ("forms", "other", "unknown")),
        collection=DEFINITIONS,
        request="batch",
    )
    define_empty = define._replace(if_empty=True)
    elsewhere = delete_of("forms", request="elsewhere")._replace(if_empty=True)
    found = records.lookup([define, define_empty, forget, both, elsewhere])
    assert [each.records for each in found] == [0, 3, 3, 4, 0]


def test_lookup_takes_more_writes_than_a_statement_takes_parameters(
    records: Records, log: LogBuilder
) -> None:
    apply(records, log, log.inserts(3))
    found = records.lookup([write_of(str(key)) for key in range(40_000)])
    assert [key for key, one in enumerate(found) if one.versions != (0,)] == [1, 2, 3]
    assert [key for key, one in enumerate(found) if one.earlier] == [1, 2, 3]


def test_a_batch_of_lookups_is_two_statements(records: Records, log: LogBuilder) -> None:
    definition = write_of("forms", collection=DEFINITIONS)
    apply(records, log, log.inserts(3) + log.insert(definition))
    statements: list[str] = []
    records._connection.set_trace_callback(statements.append)
    records.lookup([write_of(str(key)) for key in range(1000)])
    assert len(statements) == 2


def test_a_lookup_reads_no_values(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(3))
    statements: list[str] = []
    records._connection.set_trace_callback(statements.append)
    records.lookup([write_of("2")])
    plan = records._connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    read = "SEARCH versions USING COVERING INDEX versions_by_key (number=? AND key=? AND until=?)"
    assert [row[3] for row in plan] == [read]


def test_a_request_leads_to_what_it_has_stored(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.open_epoch(1) + log.insert(write_of("a")) + log.insert(write_of("b")))
    time = "1970-01-01T00:00:02.000Z"
    assert records.written_by("r-forms-b") == Written(3, "forms", "b", "i", time)
    assert records.written_by("b") is None


# -- what was taken, and is not in the file yet ---------------------------------------------------


def test_what_was_taken_is_known_and_written_later(path: Path, log: LogBuilder) -> None:
    records = Records.open(path)
    apply(records, log, log.insert(write_of("a")) + log.insert(write_of("gone")))
    new = write_of("b", collection="new")
    take(records, log, log.write(put_of("a", b'{"x":1}', request="put")) + log.insert(new))
    take(records, log, log.write(delete_of("gone", request="delete")))
    assert (records.applied, records.settled) == (log.index.last_point, log.index.point(2))
    known = [Stored(3, b'{"x":1}'), None, Stored(4, b"{}"), None]
    names = [("forms", "a"), ("forms", "gone"), ("new", "b"), ("new", "a")]
    assert records.get(names) == known
    found = records.lookup([new, write_of("a", request="1"), write_of("gone", request="2")])
    assert found == [
        Found((4,), Earlier(4, new.fingerprint, "i")),
        Found((3,), None),
        Found((0,), None),
    ]
    records.close()  # As if it was killed.
    again = Records.open(path)
    assert again.applied == log.index.point(2)
    assert again.get(names) == [Stored(1, b"{}"), Stored(2, b"{}"), None, None]
    again.close()


def test_a_record_that_came_and_went_meanwhile(records: Records, log: LogBuilder) -> None:
    take(records, log, log.insert(write_of("a")) + log.write(delete_of("a", request="delete")))
    assert values(records, "forms", "a") == [None]
    assert records.lookup([write_of("a", request="other")]) == [Found((0,), None)]


def test_a_taken_request_is_forgotten_with_the_time(records: Records, log: LogBuilder) -> None:
    first = write_of("a")
    take(records, log, log.write(first, time_ms=0))
    assert records.lookup([first])[0].earlier is not None
    take(records, log, log.write(write_of("b"), time_ms=DAY_MS + 1))
    assert records.settled.index == 0
    assert records.lookup([first]) == [Found((1,), None)]


@pytest.mark.parametrize("count", [1, 2, 255, 256, 600])
def test_what_was_taken_is_written_together(records: Records, log: LogBuilder, count: int) -> None:
    for _ in range(count):
        take(records, log, log.inserts(1))
    assert records.transactions == count // 256
    assert records.settled.index == count // 256 * 256
    records.settle()
    records.settle()
    assert records.transactions == -(-count // 256)
    assert records.settled == records.applied == log.index.last_point


def test_not_much_is_kept_in_memory(records: Records, log: LogBuilder) -> None:
    take(records, log, log.inserts(3, padding=100_000))
    assert records.settled.index == 3


def test_definitions_count_at_once(records: Records, log: LogBuilder) -> None:
    take(records, log, log.insert(write_of("forms", b'{"indexes":["x"]}', collection=DEFINITIONS)))
    assert records.settled.index == 1
    assert not records.indexes.idle


def test_what_was_taken_is_counted(records: Records, log: LogBuilder) -> None:
    """Without being written: a leader counts while it judges, room or no room."""
    take(records, log, log.inserts(1))
    assert records.count("forms") == 1
    definition = delete_of("forms", request="d", collection=DEFINITIONS)
    assert records.lookup([definition])[0].records == 1
    assert records.settled.index == 0


@pytest.mark.parametrize(
    "finds",
    [
        lambda records: scan_all(records, upto=1),
        lambda records: records.versions_of("forms", "1", limit=9, bytes_max=99),
        lambda records: records.version_at("forms", "1", 1),
        lambda records: records.written_by("r-forms-1"),
        lambda records: list(records.snapshot_lines(1, "")),
        lambda records: records.open_reader().execute("SELECT * FROM records").fetchall(),
        lambda records: not records.wrong_entries([LogBuilder().inserts(1)[:-1]], 1),
        lambda records: not records.mend_indexes(1, 1),
    ],
)
def test_whoever_reads_the_file_finds_what_was_taken(
    records: Records, log: LogBuilder, finds: Callable[[Records], object]
) -> None:
    take(records, log, log.inserts(1))
    assert records.settled.index == 0
    assert finds(records)
    assert records.settled == log.index.last_point


def test_what_cannot_be_taken_leaves_what_was_settled(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(1))
    take(records, log, log.insert(write_of("new", collection="new")))
    following = log.inserts(1)
    with pytest.raises(ProtocolViolationError, match="entry 3 to be applied as 4"):
        take(records, log, following + following)
    assert records.applied == records.settled == log.index.point(1)
    other = LogBuilder()
    other.inserts(1)
    apply(records, other, other.insert(write_of("a", collection="later")))
    assert (records.count("new"), records.count("later")) == (0, 1)


def test_without_room_it_is_still_taken(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 2**30)
    log = LogBuilder()
    records = Records.open(tiny_disk / "records.sqlite")
    take(records, log, log.inserts(100, padding=10_000))
    for _ in range(2):
        with pytest.raises(DiskFullError):
            records.settle()
    assert records.applied == log.index.last_point
    assert records.settled.index == 0
    assert values(records, "forms", "99") != [None]
    assert records.count("forms") == 100
    records.close()
