from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.core.feed import Cursor, LoggedChange, changes_in
from replicad.core.write import Operation
from replicad.errors import MalformedEntryError
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of

cursors = st.builds(
    Cursor,
    st.integers(min_value=1, max_value=10**18 - 1),
    st.none() | st.integers(min_value=0, max_value=999),
) | st.just(Cursor(0))


@given(cursors)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text", ["", "now", "-1", "1.", ".1", "1.12345", "1.2.3", " 1", "1\n", "\u0661", "1" * 19]
)
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="is no cursor"):
        Cursor.parse(text)


def test_zeros_in_front_and_a_position_before_everything_mean_nothing() -> None:
    assert Cursor.parse("007.03") == Cursor(7, 3)
    assert Cursor.parse("0.5") == Cursor(0)


@given(st.text(alphabet="0123456789.") | st.text())
def test_any_text_is_a_cursor_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert Cursor.parse(text).index >= 0


@given(cursors, cursors)
def test_a_cursor_is_before_what_comes_after_it(cursor: Cursor, other: Cursor) -> None:
    position = other.position or 0
    rank = (cursor.index, 1000 if cursor.position is None else cursor.position)
    assert cursor.is_before(other.index, position) == (rank < (other.index, position))


def feed_of(lines: bytes, collection: str | None = None) -> list[LoggedChange]:
    return [change for line in split_lines(lines) for change in changes_in(line, collection)]


def test_every_kind_of_change_is_told_as_it_stands_in_the_log() -> None:
    log = LogBuilder()
    value = '{"id":"a","x":1.0e0,"t":"\\"value\\":,\\u00e9ñ"}'.encode()
    lines = (
        log.open_epoch(3)
        + log.insert(write_of("a", value))
        + log.write(put_of("a", b'{"id":"a"}', request="r2"))
        + log.write(delete_of("a", request="r3"))
    )
    changes = feed_of(lines)
    assert [(c.index, c.position, c.is_last, c.operation, c.value) for c in changes] == [
        (2, 0, True, "insert", value),
        (3, 0, True, "update", b'{"id":"a"}'),
        (4, 0, True, "delete", None),
    ]
    assert [str(c.cursor) for c in changes] == ["2", "3", "4"]
    assert {(c.collection, c.key, c.epoch) for c in changes} == {("forms", "a", 3)}
    assert [c.digest for c in changes] == [log.index.digest_at(c.index).hex() for c in changes]


def test_a_batch_has_a_place_for_each_of_its_changes() -> None:
    log = LogBuilder()
    log.open_epoch(1)
    operations = (Operation("a", b'{"id":"a"}'), Operation("b", b'{"id":"b"}'))
    changes = feed_of(log.write(batch_of(*operations, request="r")))
    assert [str(change.cursor) for change in changes] == ["2.0", "2"]


def test_only_the_wanted_collection_is_told() -> None:
    log = LogBuilder()
    lines = log.insert(write_of("a", collection="one")) + log.insert(
        write_of("b", b'{"collection":"one"}', collection="two")
    )
    assert [change.key for change in feed_of(lines, "one")] == ["a"]
    assert [change.key for change in feed_of(lines, "two")] == ["b"]
    assert [change.key for change in feed_of(lines)] == ["a", "b"]
    assert feed_of(lines, "three") == []


def test_a_change_is_one_json_object_with_the_values_own_bytes() -> None:
    log = LogBuilder()
    value = b'{"id":"a","x":1.0e0}'
    (change,) = feed_of(log.insert(write_of("a", value)))
    line = change.encode()
    assert b'"value":%b,"digest"' % value in line
    assert json.loads(line) == {
        "index": 1,
        "position": 0,
        "time": "1970-01-01T00:00:00.000Z",
        "operation": "insert",
        "collection": "forms",
        "id": "a",
        "value": {"id": "a", "x": 1.0},
        "digest": log.index.digest_at(1).hex(),
    }
    (gone,) = feed_of(log.write(delete_of("a", request="r2")))
    assert json.loads(gone.encode())["value"] is None


@given(st.binary(max_size=200))
def test_garbage_is_no_entry(line: bytes) -> None:
    with pytest.raises(MalformedEntryError):
        list(changes_in(line, None))
