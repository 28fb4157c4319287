"""Pages of records, as of now and as of earlier entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.storage import records_scan as module
from replicad.storage.places import at_of, index_of
from replicad.storage.records import Records
from replicad.storage.records_scan import PAGE_BYTES
from replicad.storage.snapshot import REQUESTS, parse_line
from tests.support.entries import LogBuilder, delete_of, put_of, write_of
from tests.support.random_logs import Step, lines_of, steps
from tests.support.record_model import Model, apply
from tests.support.record_stores import scan_all
from tests.support.snapshots import Segments

ALL = "0"
"""A time before all entries."""


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.open(tmp_path / "records.sqlite")
    yield opened
    opened.close()


def indexes(records: Records, *, after: int = 0, upto: int = 99, limit: int = 99) -> list[int]:
    """Of the entries in one page of `forms`."""
    after = at_of(1, after, 1023) if after else 0
    page, _ = records.scan("forms", after=after, upto=upto, limit=limit)
    return [index_of(at) for at, _ in page]


def listing(records: Records, collection: str, upto: int, limit: int) -> list[bytes]:
    """All pages."""
    return [value for _, value in scan_all(records, collection, upto=upto, limit=limit)]


def record_lines(records: Records, upto: int) -> list[bytes]:
    lines = records.snapshot_lines(upto, ALL)
    return [line for line in lines if parse_line(line)[1] < REQUESTS]


def test_scan_goes_in_entry_order_page_by_page(records: Records, log: LogBuilder) -> None:
    keys = ["c", "a", "d", "b"]
    lines = log.open_epoch(1)
    for key in keys:
        lines += log.insert(write_of(key, orjson.dumps({"id": key})))
        lines += log.insert(write_of(key, b'{"id":"no"}', collection="other"))
    apply(records, log, lines)
    assert listing(records, "forms", 99, 3) == [orjson.dumps({"id": key}) for key in keys]
    assert indexes(records) == [2, 4, 6, 8]
    assert indexes(records, limit=3) == [2, 4, 6]
    assert indexes(records, after=6, limit=3) == [8]
    assert indexes(records, after=2, upto=6) == [4, 6]
    assert indexes(records, after=9) == []
    assert records.scan("unknown", after=0, upto=99, limit=9) == ([], None)


def test_genero_is_matched_ignoring_case(records: Records, log: LogBuilder) -> None:
    generos = ["Femenino", "FEMENINO", "Masculino", "Straße", "", None, 7, ["Femenino"], "ÑANDÚ"]
    forms = [orjson.dumps({"genero": genero}) for genero in generos]
    forms += [b"{}", b'{"g\\u0065nero":"E"}', b'{"a":{"genero":"deep"}}']
    apply(records, log, b"".join(log.insert(write_of(f"{n}", f)) for n, f in enumerate(forms)))

    def matching(genero: str) -> list[int]:
        page, _ = records.scan("forms", after=0, upto=99, limit=99, genero=genero)
        return [index_of(at) for at, _ in page]

    assert matching("femenino") == [1, 2]
    assert matching("STRASSE") == matching("straße") == [4]
    assert matching("ñandú") == [9]
    assert matching("") == [5]
    assert matching("7") == matching("deep") == []
    assert matching("e") == [11]


def test_records_of_a_genero_as_of_an_earlier_entry(records: Records, log: LogBuilder) -> None:
    f, m = b'{"genero":"F"}', b'{"genero":"M"}'
    lines = log.insert(write_of("a", f)) + log.insert(write_of("b", m))
    lines += log.write(put_of("a", m, request="r3")) + log.write(put_of("b", f, request="r4"))
    apply(records, log, lines)
    for upto, expected in enumerate([[], [1], [1], [], [4]]):
        page, _ = records.scan("forms", after=0, upto=upto, limit=9, genero="f")
        assert [index_of(at) for at, _ in page] == expected


@pytest.mark.parametrize(
    ("query", "parameters", "plan"),
    [
        (
            module._SCAN,
            (1, 0, 9, 9),
            "SEARCH versions USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
        ),
        (
            module._SCAN_GENERO,
            (1, 0, 9, 9, "m"),
            "SEARCH versions USING INDEX versions_by_genero "
            "(number=? AND genero=? AND at>? AND at<?)",
        ),
        (
            module._BY_KEY,
            (1, "", 0, 9, 9),
            "SEARCH versions USING INDEX versions_by_key (number=? AND (key,until)>(?,?))",
        ),
    ],
)
def test_pages_neither_sort_nor_walk_everything(
    records: Records, query: str, parameters: tuple[object, ...], plan: str
) -> None:
    rows = records._connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
    assert [row[3] for row in rows] == [plan]


def test_a_page_of_large_records_is_bounded_by_bytes(records: Records, log: LogBuilder) -> None:
    """Else every reader of a listing would hold hundreds of records of up to 1 MiB in memory."""
    value = b'{"x":"%b"}' % (b"x" * (PAGE_BYTES // 2))
    apply(records, log, b"".join(log.insert(write_of(key, value)) for key in "abcde"))
    assert indexes(records, upto=5, limit=500) == [1, 2]
    assert indexes(records, after=2, upto=5, limit=500) == [3, 4]


def test_a_listing_is_as_of_its_beginning_whatever_is_applied_meanwhile(
    records: Records, log: LogBuilder
) -> None:
    keys = [str(key) for key in range(1, 10)]
    apply(records, log, log.inserts(9))
    found: list[bytes] = []
    after: int | None = 0
    for step, key in enumerate(reversed(keys)):
        assert after is not None
        page, after = records.scan("forms", after=after, upto=9, limit=1)
        found += (value for _, value in page)
        write = delete_of if step % 2 else put_of
        apply(records, log, log.write(write(key, request=f"w{step}")))
    assert len(found) == 9
    assert after is None


def test_a_page_is_bounded_by_what_is_looked_at(
    records: Records, log: LogBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was replaced too early, or is of others in the lane, is passed over bit by bit."""
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    lines = b"".join(log.insert(write_of("0", collection=f"c{n}")) for n in range(1024))
    lines += b"".join(log.insert(write_of(f"{n}", collection="c0")) for n in range(1, 5))
    lines += log.insert(write_of("0", b"{}", collection="neighbour"))
    for step in range(5):
        lines += log.write(put_of("0", b"{}", request=f"w{step}", collection="c0"))
    apply(records, log, lines)
    last = log.index.last
    page, after = records.scan("neighbour", after=0, upto=last, limit=9)
    assert page == []
    assert after is not None
    assert index_of(after) < 1029
    assert [index_of(at) for at, _ in scan_all(records, "neighbour", upto=last)] == [1029]
    assert [index_of(at) for at, _ in scan_all(records, "c0", upto=last)] == [
        *range(1025, 1029),
        last,
    ]
    page, after = records.scan("c0", after=at_of(1, 1029), upto=last, limit=9)
    assert page == []
    assert after == at_of(1, 1031)


def test_records_are_given_as_the_lines_of_a_snapshot(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    records = Records.open(tmp_path / "records.sqlite")
    segments.add_records(["b", "a", "Z", "9.-", "0"])
    segments.add(segments.log.insert(write_of("a", b'{"n":1.0}', collection="others")))
    segments.add(segments.log.write(put_of("Z", b"{}", request="put")))
    segments.add(segments.log.write(delete_of("b", request="delete")))
    apply(records, segments.log, b"".join(segments.lines))
    for index in (5, 6, 7, 8):
        expected = segments.expected(index).splitlines(keepends=True)[1:]
        assert list(records.snapshot_lines(index, ALL)) == expected
    assert list(records.snapshot_lines(0, ALL)) == []
    records.close()


def test_the_lines_of_a_snapshot_come_page_by_page(records: Records, log: LogBuilder) -> None:
    apply(records, log, log.inserts(9, padding=PAGE_BYTES // 2))
    lines = records.snapshot_lines(9, "~")
    assert parse_line(next(lines))[0] == 1
    meanwhile = log.insert(write_of("0")) + log.insert(write_of("99"))
    meanwhile += log.write(put_of("5", request="put")) + log.write(delete_of("7", request="gone"))
    apply(records, log, meanwhile)
    assert [parse_line(line)[0] for line in lines] == list(range(2, 10))
    assert len(record_lines(records, log.index.last)) == 10


def test_requests_are_told_from_a_time_on(records: Records, log: LogBuilder) -> None:
    """Entries of LogBuilder are a second apart, from 1970 on."""
    apply(records, log, log.inserts(1200))
    lines = [*records.snapshot_lines(1100, "1970-01-01T00:00:10.000Z")]
    remembered = [parse_line(line)[0] for line in lines if parse_line(line)[1] >= REQUESTS]
    assert remembered == list(range(11, 1101))


@settings(max_examples=40, deadline=None)
@given(entries=steps(), limit=st.integers(1, 5), at_once=st.sampled_from([1, 2, 1000]))
def test_every_state_can_be_read_after_all_was_applied(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Step], limit: int, at_once: int
) -> None:
    log = LogBuilder()
    lines = lines_of(log, entries)
    model = Model(lines)
    records = Records.open(tmp_path_factory.mktemp("records") / "records.sqlite")
    apply(records, log, b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS_AT_ONCE", at_once)
        for upto in range(len(lines) + 1):
            assert record_lines(records, upto) == model.record_lines(upto)
            for collection in ("forms", "Zones"):
                expected = model.listing(collection, upto)
                assert listing(records, collection, upto, limit) == expected
    records.close()
