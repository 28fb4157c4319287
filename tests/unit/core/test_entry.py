from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.entry import (
    INSERT,
    Entry,
    Opening,
    WriteRequest,
    chain,
    decode_entry,
    decode_head,
    decode_write,
    encode_epoch,
    encode_insert,
    encode_write,
    fingerprint_of,
    format_time,
    genesis_digest,
    split_lines,
    verify_line,
)
from replicad.errors import MalformedEntryError

# Everything but lone surrogates, which no UTF-8 holds.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
WRITES = st.builds(
    WriteRequest,
    request=TEXT,
    fingerprint=TEXT,
    collection=TEXT,
    key=TEXT,
    value=JSON.map(orjson.dumps),
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
FORWARDED = st.builds(
    WriteRequest,
    request=st.from_regex(r"[!-~]{1,128}", fullmatch=True),
    fingerprint=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    collection=NAMES,
    key=NAMES,
    value=JSON.map(orjson.dumps),
)
TRICKY = WriteRequest(
    request='r",,"value":{"},"digest":"',
    fingerprint="f,",
    collection='forms"',
    key='a,"value":1',
    value=b'{"x":",\\"value\\":{}","value":{"digest":",\\"digest\\":\\""}}',
)
FINGERPRINT = b"f" * 32
TIME = "2026-01-02T03:04:05.678Z"
GENESIS = genesis_digest("c1")


def insert(write: WriteRequest, previous: bytes = GENESIS) -> tuple[bytes, bytes]:
    return encode_insert(write, index=7, epoch=3, time=TIME, commit=5, previous=previous)


@given(WRITES)
def test_what_is_written_is_read_back(write: WriteRequest) -> None:
    line, digest = insert(write)
    assert verify_line(line[:-1], GENESIS) == digest
    assert decode_head(line[:-1]) == (7, 3, TIME, 5)
    assert decode_entry(line[:-1]) == Entry(
        7, 3, TIME, 5, INSERT, write.collection, write.key, write.request, write.fingerprint,
        write.value, digest,
    )  # fmt: skip


@given(WRITES)
def test_an_entry_is_one_line_of_json(write: WriteRequest) -> None:
    line, digest = insert(write)
    assert line.count(b"\n") == 1
    decoded = json.loads(line)
    assert list(decoded)[-2:] == ["value", "digest"]
    assert decoded["digest"] == digest.hex()


@given(FORWARDED)
def test_a_forwarded_write_is_read_back(write: WriteRequest) -> None:
    line = encode_write(write)
    assert line.count(b"\n") == 1
    assert decode_write(line[:-1]) == write


def test_text_that_looks_like_members_is_no_member() -> None:
    line, digest = insert(TRICKY)
    entry = decode_entry(line[:-1])
    assert (entry.request, entry.key, entry.value) == (TRICKY.request, TRICKY.key, TRICKY.value)
    assert verify_line(line[:-1], GENESIS) == digest
    forwarded = replace(TRICKY, fingerprint="f" * 32, collection="forms", key="a")
    assert decode_write(encode_write(forwarded)[:-1]) == forwarded


def test_the_value_keeps_its_bytes() -> None:
    value = '{"n":1.0,"e":1E5,"ñ":"\\u00f1","a":"ñ"}'.encode()
    line, _ = insert(WriteRequest("r", "f", "c", "k", value))
    assert decode_entry(line[:-1]).value == value


def test_the_digest_follows_the_documented_recipe() -> None:
    """Rule 7's chain, as docs/log-format.md checks it with sha256sum."""
    line, digest = insert(TRICKY)
    before = line[: line.rindex(b',"digest"')]
    assert digest == sha256(GENESIS.hex().encode() + before).digest() == chain(GENESIS, before)


def test_logs_of_two_clusters_never_match() -> None:
    assert genesis_digest("c1") != genesis_digest("c2")
    line, _ = insert(TRICKY, genesis_digest("c2"))
    with pytest.raises(MalformedEntryError):
        verify_line(line[:-1], GENESIS)


def test_any_changed_byte_is_found() -> None:
    line = insert(WriteRequest("r", "f", "c", "k", b'{"a":1}'))[0][:-1]
    for at in range(len(line)):
        damaged = line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :]
        with pytest.raises(MalformedEntryError):
            verify_line(damaged, GENESIS)


def test_any_cut_is_found() -> None:
    line = insert(WriteRequest("r", "f", "c", "k", b'{"a":1}'))[0][:-1]
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


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'{"request":"r","fingerprint":"%b","collection":"c","key":"k"}' % FINGERPRINT,
        b'{"request":"r","fingerprint":"%b","collection":"c","key":"k","value":[]}' % FINGERPRINT,
        b'{"request":"r","fingerprint":"%b","collection":"c","key":"k","value":{}' % FINGERPRINT,
        b'{"request":"r","fingerprint":"%b","collection":"c","key":1,"value":{}}' % FINGERPRINT,
        b'{"request":"","fingerprint":"%b","collection":"c","key":"k","value":{}}' % FINGERPRINT,
        b'{"request":"r","fingerprint":"%b","collection":"c","value":{}}' % FINGERPRINT,
        b'{"request":"r","fingerprint":"%b","collection":"c","key":"k","more":"m","value":{}}'
        % FINGERPRINT,
    ],
)
def test_what_is_no_write_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedEntryError):
        decode_write(line)


def test_a_fingerprint_tells_writes_apart() -> None:
    same = fingerprint_of("c", "k", b"{}")
    assert len(same) == 32
    assert same == fingerprint_of("c", "k", b"{}")
    others = [("d", "k", b"{}"), ("c", "l", b"{}"), ("c", "k", b'{"a":1}')]
    assert same not in [fingerprint_of(*other) for other in others]


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_text_order_of_times_is_time_order(first: int, second: int) -> None:
    assert (format_time(first) < format_time(second)) == (first < second)


def test_times_count_milliseconds() -> None:
    assert format_time(1_700_000_000_042) == "2023-11-14T22:13:20.042Z"


def test_lines_are_split_at_newlines_only() -> None:
    assert list(split_lines(b"")) == []
    assert list(split_lines(b"a\nb\r\x85\n")) == [b"a", b"b\r\x85"]
