"""What clients ask for, on its way from a gateway to the leader."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import ENTRY_BYTES_MAX, Change, encode_changes, format_time
from replicad.core.write import (
    DEFINITIONS,
    OPERATIONS_MAX,
    WRITE_BYTES_MAX,
    Condition,
    Objection,
    Operation,
    Wanted,
    WriteRequest,
    decode_write,
    encode_write,
    fingerprint_of,
    patch_fingerprint_of,
)
from replicad.errors import MalformedEntryError
from tests.support.entries import batch_of, write_of
from tests.support.json_values import OBJECTS

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
HEX = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
CONDITIONS = st.sampled_from(Wanted) | st.lists(st.integers(0, 2**53), max_size=3).map(tuple)
OPERATIONS = st.lists(
    st.builds(Operation, NAMES, st.none() | OBJECTS, CONDITIONS),
    min_size=1,
    max_size=5,
    unique_by=lambda operation: operation.key,
).map(tuple)
WRITES = st.builds(
    WriteRequest,
    request=st.from_regex(r"[!-~]{1,128}", fullmatch=True),
    fingerprint=HEX,
    collection=NAMES | st.just(DEFINITIONS),
    definition=st.integers(0, 2**53),
    operations=OPERATIONS,
    call=HEX,
    attempt=st.integers(1, 99),
    if_empty=st.booleans(),
)
ONE = write_of("k", b'{"a":1}')
LINE = encode_write(ONE)[:-1]
VERSION, OTHER = 7, 8
EXISTS, MISSING, CHANGED = Objection.EXISTS, Objection.MISSING, Objection.CHANGED


@pytest.mark.parametrize(
    ("condition", "put_new", "put_over", "delete_new", "delete_there"),
    [
        (Wanted.ANYTHING, None, None, MISSING, None),
        (Wanted.ABSENT, None, EXISTS, MISSING, EXISTS),
        (Wanted.PRESENT, MISSING, None, MISSING, None),
        ((VERSION,), MISSING, None, MISSING, None),
        ((OTHER, VERSION), MISSING, None, MISSING, None),
        ((OTHER,), MISSING, CHANGED, MISSING, CHANGED),
        ((), MISSING, CHANGED, MISSING, CHANGED),
    ],
)
def test_a_condition_and_a_version_decide(
    condition: Condition,
    put_new: Objection | None,
    put_over: Objection | None,
    delete_new: Objection | None,
    delete_there: Objection | None,
) -> None:
    put, delete = Operation("k", b"{}", condition), Operation("k", None, condition)
    assert (put.objection(0), put.objection(VERSION)) == (put_new, put_over)
    assert (delete.objection(0), delete.objection(VERSION)) == (delete_new, delete_there)


@given(WRITES)
def test_a_forwarded_write_is_read_back(write: WriteRequest) -> None:
    line = encode_write(write)
    assert line.count(b"\n") == 1
    assert decode_write(line[:-1]) == write


def test_values_that_look_like_members_keep_their_bytes() -> None:
    values = [
        b'{"x":",\\"value\\":{}","value":{"digest":",\\"digest\\":\\""}}',
        '{"n":1.0,"e":1.0e0,"ñ":"\\u00f1","a":[["ñ",[]],{"b":[1,[2]]}]}'.encode(),
        b"{}",
    ]
    operations = [Operation(key, value) for key, value in zip("abc", values, strict=True)]
    write = batch_of(*operations, Operation("d", None), request='r",,"value":{"}')
    assert decode_write(encode_write(write)[:-1]) == write


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        LINE[:-1],
        LINE + b" ",
        LINE[: LINE.index(b',"value"')] + b"}",
        LINE.replace(b'{"a":1}]}', b"[1,2,3]]}"),
        LINE.replace(b'{"a":1}]}', b"1234567]}"),
        LINE.replace(b'"anything",7', b'"anything",6').replace(b'"absent",7', b'"absent",6'),
        LINE.replace(b'"absent"', b'"present!"'),
        LINE.replace(b'"absent"', b'["7"]'),
        LINE.replace(b'"absent"', b"[true]"),
        LINE.replace(b'"absent"', b"{}"),
        LINE.replace(b'"k"', b"1"),
        LINE.replace(b'"k"', b"[]"),
        LINE.replace(b'"k"', b'""'),
        LINE.replace(b'"k"', b'"_k"'),
        LINE.replace(b'"k"', b'"k\\nk"'),
        LINE.replace(b'"k"', b'"k\\n"'),
        LINE.replace(b'"request":"r-forms-k"', b'"request":""'),
        LINE.replace(b'"request":"r-forms-k"', b'"request":"a b"'),
        LINE.replace(b'"request":"r-forms-k"', b'"more":1'),
        LINE.replace(b'"collection":"forms"', b'"collection":"_forms"'),
        LINE.replace(b'"definition":0', b'"definition":-1'),
        LINE.replace(b'"definition":0', b'"definition":0.0'),
        LINE.replace(b'"attempt":1', b'"attempt":0'),
        LINE.replace(b'"attempt":1', b'"attempt":true'),
        LINE.replace(b'"if_empty":false', b'"if_empty":0'),
        LINE.replace(b'"call":"c0"', b'"call":"C0"'),
        LINE.replace(ONE.fingerprint.encode(), b"f"),
    ],
)
def test_what_is_no_write_is_refused(line: bytes) -> None:
    assert line != LINE
    with pytest.raises(MalformedEntryError):
        decode_write(line)


def test_sizes_that_cut_a_value_in_two_are_refused() -> None:
    """Joined by commas the pieces are the very same bytes."""
    line = encode_write(
        batch_of(Operation("a", b'{"a":1,"b":2}'), Operation("b", b"{}"), request="r")
    )
    assert b'["a","anything",13],["b","anything",2]' in line
    wrong = line.replace(b'"anything",13]', b'"anything",6]').replace(
        b'"anything",2]', b'"anything",9]'
    )
    with pytest.raises(MalformedEntryError):
        decode_write(wrong[:-1])


def test_a_write_has_at_least_one_operation_and_one_for_each_key() -> None:
    twice = (Operation("a", b"{}"), Operation("a", None))
    for operations in ((), twice, tuple(Operation(f"k{n}", None) for n in range(1001))):
        line = encode_write(ONE._replace(operations=operations))
        with pytest.raises(MalformedEntryError):
            decode_write(line[:-1])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(MalformedEntryError):
        decode_write(garbage)


@given(st.data())
def test_a_damaged_write_is_refused_or_another_write(data: st.DataObject) -> None:
    line = encode_write(data.draw(WRITES))[:-1]
    at = data.draw(st.integers(0, len(line) - 1))
    piece = data.draw(st.binary(max_size=3) | st.sampled_from([b"", b"[", b"{}", b"null", b"1e9"]))
    damaged = line[:at] + piece + line[at + data.draw(st.integers(0, 3)) :]
    try:
        write = decode_write(damaged)
    except MalformedEntryError:
        return
    assert all(o.value is None or orjson.loads(o.value).__class__ is dict for o in write.operations)
    assert decode_write(encode_write(write)[:-1]) == write


def test_the_entry_of_the_longest_write_fits() -> None:
    """Conditions may be shorter to say than what was done."""
    keys = [f"{number:0128}" for number in range(OPERATIONS_MAX)]
    deletes = [Operation(key, None, ()) for key in keys[1:]]
    empty = batch_of(Operation(keys[0], b'{"x":""}', ()), *deletes, request="~" * 128)
    room = WRITE_BYTES_MAX - len(encode_write(empty)) + 1 - 8
    value = b'{"x":"%b"}' % (b"x" * room)
    write = batch_of(Operation(keys[0], value, ()), *deletes, request="~" * 128)
    assert WRITE_BYTES_MAX - 8 <= len(encode_write(write)) - 1 <= WRITE_BYTES_MAX
    decode_write(encode_write(write)[:-1])
    line, _ = encode_changes(
        [
            Change("delete" if o.value is None else "update", o.key, o.value)
            for o in write.operations
        ],
        collection=write.collection,
        request=write.request,
        fingerprint=write.fingerprint,
        index=10**19,
        epoch=10**19,
        time=format_time(0),
        commit=10**19,
        previous=b"",
    )
    assert len(line) <= ENTRY_BYTES_MAX


def test_a_longer_write_is_refused() -> None:
    line = encode_write(write_of("a", b'{"x":"%b"}' % (b"x" * WRITE_BYTES_MAX)))
    with pytest.raises(MalformedEntryError):
        decode_write(line[:-1])


def test_a_fingerprint_tells_writes_apart() -> None:
    writes: list[tuple[str, list[tuple[str, bytes | None]]]] = [
        ("c", [("k", b"{}")]),
        ("d", [("k", b"{}")]),
        ("c", [("l", b"{}")]),
        ("c", [("k", b'{"a":1}')]),
        ("c", [("k", None)]),
        ("c", [("k", b"{}"), ("l", b"{}")]),
        ("c", [("l", b"{}"), ("k", b"{}")]),
        ("c", [("k", b"{}"), ("l", None)]),
        ("c", [("k", b'{"a":1}'), ("l", b"{}")]),
        ("c", [("k", b"{}"), ("l", b'{"a":1}')]),
    ]
    prints = [fingerprint_of(*write) for write in writes]
    prints += [patch_fingerprint_of("c", "k", b"{}"), patch_fingerprint_of("c", "l", b"{}")]
    assert len(set(prints)) == len(prints)
    assert prints[:-2] == [fingerprint_of(*write) for write in writes]
    assert {len(each) for each in prints} == {32}


def test_conditions_are_no_part_of_a_fingerprint() -> None:
    """So an entry shows whether it is as it was sent; and of inserts it is as it always was."""
    assert write_of("k", condition=(7,)).fingerprint == write_of("k").fingerprint
    assert fingerprint_of("forms", [("a", b"{}")]) == "1848ff1304de785f1023d1fadc72469d"
