"""What entries amount to, before anything is written."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import split_lines
from replicad.core.write import Operation
from replicad.errors import ProtocolViolationError
from replicad.storage.places import LIVE, at_of
from replicad.storage.records_changes import Changes, genero_of
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of

NUMBERS = {"forms": 1, "others": 2}


def changes_of(lines: bytes, after: int = 0) -> Changes:
    changes = Changes(after, NUMBERS.__getitem__)
    changes.add(split_lines(lines))
    return changes


def test_inserts_are_live(log: LogBuilder) -> None:
    lines = log.open_epoch(1) + log.insert(write_of("a", b'{"genero":"\xc3\x81"}'))
    changes = changes_of(lines + log.insert(write_of("a", collection="others")))
    assert list(changes.live) == [
        (at_of(1, 2), 1, "a", LIVE, b'{"genero":"\xc3\x81"}', "á"),
        (at_of(2, 3), 2, "a", LIVE, b"{}", None),
    ]
    assert (changes.gone, changes.past) == ({}, [])
    assert changes.counts == {1: 1, 2: 1}
    assert set(changes.numbers) == {1, 2}
    assert (changes.last, changes.time) == (3, "1970-01-01T00:00:02.000Z")


def test_what_was_there_before_is_gone(log: LogBuilder) -> None:
    log.insert(write_of("a"))
    log.insert(write_of("b"))
    lines = log.write(put_of("a", request="r3")) + log.write(delete_of("b", request="r4"))
    changes = changes_of(lines + log.write(put_of("a", request="r5")), after=2)
    assert changes.gone == {(1, "a"): 3, (1, "b"): 4}
    assert changes.past == [(at_of(1, 3), 1, "a", 5, b"{}", None)]
    assert list(changes.rows) == [(1, "a")]
    assert changes.counts == {1: -1}


def test_what_came_and_went_is_past(log: LogBuilder) -> None:
    lines = log.insert(write_of("a")) + log.write(delete_of("a", request="d"))
    changes = changes_of(lines)
    assert (list(changes.live), changes.gone) == ([], {})
    assert changes.past == [(at_of(1, 1), 1, "a", 2, b"{}", None)]
    assert (+changes.counts, set(changes.numbers)) == ({}, {1})


def test_a_batch_has_positions_and_is_remembered_as_letters(log: LogBuilder) -> None:
    log.insert(write_of("b"))
    operations = Operation("a", b"{}"), Operation("b", None), Operation("c", b"{}")
    write = batch_of(*operations, request="batch")
    changes = changes_of(log.write(write), after=1)
    assert [row[0] for row in changes.live] == [at_of(1, 2, 0), at_of(1, 2, 2)]
    time = "1970-01-01T00:00:01.000Z"
    remembered = (2, time, "forms", None, "idi", "batch", write.fingerprint)
    assert changes.requests == {"batch": remembered}


def test_a_second_insert_of_a_record_is_a_contradiction(log: LogBuilder) -> None:
    lines = log.insert(write_of("a"))
    other = LogBuilder()
    other.open_epoch(1)
    changes = changes_of(lines + other.insert(write_of("a", request="r")))
    with pytest.raises(ProtocolViolationError, match="entry 2 inserts a, which is there"):
        _ = changes.rows


def test_a_second_deletion_of_a_record_is_a_contradiction(log: LogBuilder) -> None:
    changes = changes_of(log.insert(write_of("a")) + log.write(delete_of("a", request="d")))
    other = LogBuilder()
    other.inserts(1)
    other.insert(write_of("b"))
    changes.add(split_lines(other.write(delete_of("b", request="r"))))
    deletion = other.write(delete_of("b", request="again"))
    with pytest.raises(ProtocolViolationError, match="entry 4 changes b, which is deleted"):
        changes.add(split_lines(deletion))


_KEYS = st.sampled_from(["genero", "género", "x", 'a"genero"', "{"])
_VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(["F", "Straße", '"genero":"x"', "\\u"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=3), st.booleans())
def test_genero_is_the_member_of_that_name(form: dict[str, object], escaped: bool) -> None:
    value = orjson.dumps(form)
    if escaped:
        value = value.replace(b'"genero":', b'"g\\u0065nero":')
    genero = orjson.loads(value).get("genero")
    assert genero_of(value) == (genero.casefold() if isinstance(genero, str) else None)
