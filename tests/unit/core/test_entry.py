from __future__ import annotations

import json
from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import (
    BATCH,
    DELETE,
    DONE,
    INSERT,
    UPDATE,
    Change,
    Entry,
    Opening,
    chain,
    changes_of,
    cut_values,
    decode_entry,
    decode_head,
    encode_changes,
    encode_epoch,
    format_time,
    genesis_digest,
    kind_in,
    kind_of,
    split_lines,
    split_value,
    verify_line,
)
from replicad.errors import MalformedEntryError
from tests.support.json_values import OBJECTS, TEXT

STORED = st.builds(Change, st.sampled_from([INSERT, UPDATE]), TEXT, OBJECTS)
CHANGES = st.lists(STORED | st.builds(Change, st.just(DELETE), TEXT, st.none()), min_size=1)
TRICKY = Change(
    INSERT, 'a,"value":1', b'{"x":",\\"value\\":{}","value":{"digest":",\\"digest\\":\\""}}'
)
TRICKY_REQUEST = 'r",,"value":{"},"digest":"'
SIMPLE = Change(INSERT, "k", b'{"a":1}')
TIME = "2026-01-02T03:04:05.678Z"
GENESIS = genesis_digest("c1")


def encoded(
    *changes: Change,
    previous: bytes = GENESIS,
    collection: str = "c",
    request: str = "r",
    fingerprint: str = "f",
) -> tuple[bytes, bytes]:
    return encode_changes(
        changes,
        collection=collection,
        request=request,
        fingerprint=fingerprint,
        index=7,
        epoch=3,
        time=TIME,
        commit=5,
        previous=previous,
    )


@given(CHANGES, TEXT, TEXT, TEXT)
def test_what_is_written_is_read_back(
    changes: list[Change], collection: str, request: str, fingerprint: str
) -> None:
    line, digest = encoded(
        *changes, collection=collection, request=request, fingerprint=fingerprint
    )
    assert verify_line(line[:-1], GENESIS) == digest
    assert decode_head(line[:-1]) == (7, 3, TIME, 5)
    values = [b"null" if change.value is None else change.value for change in changes]
    first = changes[0]
    operation, key, value = (
        (first.operation, first.key, values[0])
        if len(changes) == 1
        else (BATCH, None, b"[%b]" % b",".join(values))
    )
    assert decode_entry(line[:-1]) == Entry(
        7, 3, TIME, 5, operation, collection, key, request, fingerprint, tuple(changes), value,
        digest,
    )  # fmt: skip
    assert changes_of(*split_value(line[:-1])) == tuple(changes)


@given(CHANGES)
def test_an_entry_is_one_line_of_json(changes: list[Change]) -> None:
    line, digest = encoded(*changes)
    assert line.count(b"\n") == 1
    decoded = json.loads(line)
    assert list(decoded)[-2:] == ["value", "digest"]
    assert decoded["digest"] == digest.hex()


def test_the_line_of_an_insert_is_as_it_always_was() -> None:
    line, digest = encoded(SIMPLE)
    assert line == (
        b'{"index":7,"epoch":3,"time":"2026-01-02T03:04:05.678Z","commit":5,"operation":"insert",'
        b'"collection":"c","key":"k","request":"r","fingerprint":"f","value":{"a":1},"digest":"%b"}'
        b"\n" % digest.hex().encode()
    )


def test_a_batch_names_what_it_did_before_the_values() -> None:
    line, _ = encoded(SIMPLE, Change(DELETE, "b", None), Change(UPDATE, "c", b"{}"))
    assert (
        b'"operation":"batch","collection":"c","key":null,"request":"r","fingerprint":"f",'
        b'"changes":[["insert","k",7],["delete","b",4],["update","c",2]],'
        b'"value":[{"a":1},null,{}],"digest"'
    ) in line


@pytest.mark.parametrize("others", [(), (Change(DELETE, "b", None), TRICKY)])
def test_text_that_looks_like_members_is_no_member(others: tuple[Change, ...]) -> None:
    line, digest = encoded(TRICKY, *others, request=TRICKY_REQUEST, collection='forms"')
    entry = decode_entry(line[:-1])
    assert (entry.request, entry.collection) == (TRICKY_REQUEST, 'forms"')
    assert entry.changes == (TRICKY, *others)
    assert verify_line(line[:-1], GENESIS) == digest


@given(CHANGES, TEXT)
def test_the_kind_of_an_entry_is_found(changes: list[Change], collection: str) -> None:
    line, _ = encoded(*changes, collection=collection, request=TRICKY_REQUEST)
    done = changes[0].operation if len(changes) == 1 else BATCH
    assert kind_in(line[:-1]) == kind_of(collection, done)
    assert kind_in(line[:-1]) not in {kind_of(collection, "other"), kind_of(collection + "x", done)}


@pytest.mark.parametrize("others", [(), (Change(DELETE, "b", None),)])
def test_values_keep_their_bytes(others: tuple[Change, ...]) -> None:
    value = '{"n":1.0,"e":1.0e0,"ñ":"\\u00f1","a":["ñ",[1E5,{}],"],["]}'.encode()
    line, _ = encoded(Change(UPDATE, "k", value), *others)
    assert decode_entry(line[:-1]).changes == (Change(UPDATE, "k", value), *others)


@pytest.mark.parametrize(
    ("array", "sizes"),
    [
        (b"[]", [1]),
        (b"[{}]", []),
        (b"[{}]", [1]),
        (b"[{}]", [3]),
        (b"[{},{}]", [2]),
        (b"[{},{}]", [2, 2, 2]),
        (b"[{},{}]", [3, 1]),
        (b"{},{}", [2, 2]),
        (b"", []),
    ],
)
def test_values_of_other_sizes_are_not_cut(array: bytes, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        cut_values(array, sizes)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"operation": None},
        {"operation": "upsert", "key": "k"},
        {"operation": "insert"},
        {"operation": "delete"},
        {"operation": "batch"},
        {"operation": "batch", "changes": None},
        {"operation": "batch", "changes": 7},
        {"operation": "batch", "changes": []},
        {"operation": "batch", "changes": [[]]},
        {"operation": "batch", "changes": [["insert", "a"]]},
        {"operation": "batch", "changes": [["insert", "a", 2.5]]},
        {"operation": "batch", "changes": [["insert", "a", 1]]},
        {"operation": "batch", "changes": [["insert", "a", 2], ["insert", "b", 2]]},
        {"operation": "batch", "changes": [["epoch", "a", 2]]},
        {"operation": "batch", "changes": [[["insert"], "a", 2]]},
    ],
)
def test_members_that_are_no_entrys_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(MalformedEntryError):
        changes_of(members, b"[{}]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"operation": st.sampled_from([*DONE.values(), BATCH, "epoch", "other"]) | JSON},
        optional={"key": JSON, "changes": JSON | st.lists(st.tuples(JSON, JSON, JSON))},
    ),
    st.binary(max_size=40),
)
def test_whatever_the_members_are_they_are_understood_or_refused(
    members: dict[str, object], value: bytes
) -> None:
    try:
        changes = changes_of(members, value)
    except MalformedEntryError:
        return
    assert all(operation in DONE.values() for operation, _, _ in changes)


@given(st.data())
def test_a_damaged_line_is_decoded_or_refused(data: st.DataObject) -> None:
    """Its digest would show it; lines of lost+found are decoded without."""
    line = encoded(*data.draw(CHANGES))[0][:-1]
    at = data.draw(st.integers(0, len(line) - 1))
    piece = data.draw(st.binary(max_size=3) | st.sampled_from([b"", b"[", b"{}", b"null", b"1e9"]))
    damaged = line[:at] + piece + line[at + data.draw(st.integers(0, 3)) :]
    try:
        decode_entry(damaged)
    except MalformedEntryError:
        return


def test_the_digest_follows_the_documented_recipe() -> None:
    """Rule 7's chain, as docs/log-format.md checks it with sha256sum."""
    line, digest = encoded(TRICKY)
    before = line[: line.rindex(b',"digest"')]
    assert digest == sha256(GENESIS.hex().encode() + before).digest() == chain(GENESIS, before)


def test_logs_of_two_clusters_never_match() -> None:
    assert genesis_digest("c1") != genesis_digest("c2")
    line, _ = encoded(TRICKY, previous=genesis_digest("c2"))
    with pytest.raises(MalformedEntryError):
        verify_line(line[:-1], GENESIS)


def test_any_changed_byte_is_found() -> None:
    line = encoded(SIMPLE)[0][:-1]
    for at in range(len(line)):
        damaged = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        with pytest.raises(MalformedEntryError):
            verify_line(damaged, GENESIS)


def test_any_cut_is_found() -> None:
    line = encoded(SIMPLE)[0][:-1]
    for length in range(len(line)):
        with pytest.raises(MalformedEntryError):
            verify_line(line[:length], GENESIS)


def test_the_entry_that_opens_an_epoch() -> None:
    opening = Opening("n1", "run", "handed over", "n2", 1, ("n1", "n2"), ("n1",), 17)
    line, digest = encode_epoch(opening, index=1, epoch=2, time=TIME, commit=0, previous=GENESIS)
    entry = decode_entry(line[:-1])
    assert verify_line(line[:-1], GENESIS) == entry.digest == digest
    assert (entry.operation, entry.collection, entry.key, entry.request) == (
        "epoch", None, None, None,
    )  # fmt: skip
    assert orjson.loads(entry.value) == {
        "leader": "n1",
        "incarnation": "run",
        "reason": "handed over",
        "previous_leader": "n2",
        "previous_epoch": 1,
        "isr_before": ["n1", "n2"],
        "isr_after": ["n1"],
        "leaderless_ms": 17,
    }


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"null",
        b'{"index":1}',
        b'{"index":x,"epoch":1,"time":"t","commit":0,"operation":"insert"}',
        b'{"epoch":1,"index":1,"time":"t","commit":0,"operation":"insert"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedEntryError):
        decode_head(line)
    with pytest.raises(MalformedEntryError):
        decode_entry(line)


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_text_order_of_times_is_time_order(first: int, second: int) -> None:
    assert (format_time(first) < format_time(second)) == (first < second)


def test_times_count_milliseconds() -> None:
    assert format_time(1_700_000_000_042) == "2023-11-14T22:13:20.042Z"


def test_lines_are_split_at_newlines_only() -> None:
    assert split_lines(b"") == []
    assert split_lines(b"a\nb\r\x85\n") == [b"a", b"b\r\x85"]
