from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.errors import SnapshotDamagedError
from replicad.storage.snapshot import (
    RANGE_BYTES_MAX,
    RANGE_BYTES_MIN,
    Header,
    KeyRange,
    Manifest,
    Record,
    Remembered,
    check_bytes,
    check_snapshot,
    cut_ranges,
    decode_line,
    forget_before,
    parse_line,
    read_manifest,
    read_records,
)
from tests.support.snapshots import Segments, manifest_of, with_ranges

HEADER = Header("test", 9, 2, bytes(range(32)), "2026-11-23T06:02:21.692Z")
KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def line_of(key: str, index: int = 1, value: bytes = b"{}") -> bytes:
    return Record(index, 0, "forms", key, value).encode()


def write_line_of(index: int, request: str = "r") -> bytes:
    time = f"2026-11-23T{index // 100:02d}:{index % 60:02d}:00.000Z"
    return Remembered(index, time, "forms", "a", "i", request, "f" * 32).encode()


def keyed(lines: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return [(parse_line(line)[1], line) for line in lines]


def ranges_of(lines: Sequence[bytes]) -> list[KeyRange]:
    return [part for part, _ in cut_ranges(keyed(lines), 0)]


def stored(directory: Path, manifest: Manifest, lines: Sequence[bytes]) -> tuple[Path, Path]:
    """The files of a snapshot and of its manifest."""
    file, beside = directory / "snapshot", directory / "manifest"
    file.write_bytes(manifest.header.encode() + b"".join(lines))
    beside.write_bytes(b"".join(manifest.encode()))
    return file, beside


def test_the_bytes_of_a_snapshot_and_its_manifest(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    segments.add_records(["b", "a"])
    manifest = segments.build()
    a, b = (json.loads(line) for line in segments.lines[::-1])
    assert segments.content(2) == (
        b'{"format":2,"cluster_id":"test","index":2,"epoch":1,"digest":"%b",'
        b'"time":"1970-01-01T00:00:01.000Z"}\n'
        b'{"index":2,"position":0,"collection":"forms","key":"a","value":{"id":"a","x":""}}\n'
        b'{"index":1,"position":0,"collection":"forms","key":"b","value":{"id":"b","x":""}}\n'
        b'{"index":1,"time":"1970-01-01T00:00:00.000Z","collection":"forms","key":"b","done":"i",'
        b'"request":"r-forms-b","fingerprint":"%b"}\n'
        b'{"index":2,"time":"1970-01-01T00:00:01.000Z","collection":"forms","key":"a","done":"i",'
        b'"request":"r-forms-a","fingerprint":"%b"}\n'
    ) % (a["digest"].encode(), b["fingerprint"].encode(), a["fingerprint"].encode())
    head, *parts = map(json.loads, segments.files.manifest_of(2).read_bytes().splitlines())
    lines = segments.content(2).splitlines(keepends=True)
    first, records, writes = lines[0], b"".join(lines[1:3]), b"".join(lines[3:])
    assert head == json.loads(first) | {
        "lines": 4,
        "bytes": len(segments.content(2)),
        "sha256": sha256(segments.content(2)).hexdigest(),
        "ranges": 2,
    }
    assert parts == [
        {
            "collection": "forms",
            "key": "a",
            "offset": len(first),
            "bytes": len(records),
            "lines": 2,
            "sha256": sha256(records).hexdigest(),
        },
        {
            "collection": "~",
            "key": "00000000000000000001",
            "offset": len(first) + len(records),
            "bytes": len(writes),
            "lines": 2,
            "sha256": sha256(writes).hexdigest(),
        },
    ]
    assert read_manifest(segments.files.manifest_of(2)) == manifest


@given(st.one_of(KEYS, st.just("_collections")), KEYS, st.integers(1, 2**63 - 1))
def test_records_are_found_again(collection: str, key: str, index: int) -> None:
    value = '{"id":"a","n":1.0,"value":{"time":"é"}}'.encode()
    record = Record(index, index % 1000, collection, key, value)
    assert decode_line(record.encode()) == record
    assert parse_line(record.encode()) == (index, f"{collection}\0{key}".encode())


@given(
    st.one_of(KEYS, st.none()),
    st.integers(1, 2**63 - 1),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_remembered_writes_are_found_again(key: str | None, index: int, request: str) -> None:
    write = Remembered(index, HEADER.time, "forms", key, "iud", request, "f" * 32)
    assert decode_line(write.encode()) == write
    assert parse_line(write.encode()) == (index, b"~\0%020d" % index)
    assert json.loads(write.encode())["request"] == request


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        line_of("a")[1:],
        line_of("a")[:-1],
        line_of("a", value=b""),
        line_of("a", value=b"[]"),
        line_of("a", value=b"null"),
        line_of("a").replace(b'"key"', b'"more":2,"key"'),
        line_of("a").replace(b',"value"', b', "value"'),
        line_of("a").replace(b'"position":0', b'"position":1000'),
        line_of("a").replace(b'"forms"', b'"_forms"'),
        line_of("a").replace(b'"forms"', b'"~"'),
        write_line_of(1)[:-1],
        write_line_of(1).replace(b'"key":"a"', b'"key":1'),
        write_line_of(1).replace(b'"done":"i"', b'"done":null'),
        write_line_of(1).replace(b'"r"', b"null"),
        write_line_of(1).replace(b'"r"', b'"r","more":1'),
        write_line_of(1).replace(b',"request"', b', "request"'),
        write_line_of(1).replace(b',"request":"r"', b""),
    ],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    def read() -> None:
        parse_line(line)
        decode_line(line)

    with pytest.raises(SnapshotDamagedError):
        read()


@pytest.mark.parametrize("key", ["", ".a", "a b", "a\0", "é", "a" * 129])
def test_keys_that_cannot_be_are_refused(key: str) -> None:
    with pytest.raises(SnapshotDamagedError):
        parse_line(line_of(key))


@given(st.dictionaries(KEYS, st.integers(0, 200_000), max_size=60))
def test_ranges_are_all_of_the_content(sizes: dict[str, int]) -> None:
    lines = [line_of(key, value=b'"%b"' % (b"x" * sizes[key])) for key in sorted(sizes)]
    cut = list(cut_ranges(keyed(lines), 100))
    assert b"".join(data for _, data in cut) == b"".join(lines)
    offset = 100
    for part, data in cut:
        assert (part.offset, part.size, part.digest) == (offset, len(data), sha256(data).digest())
        assert part.lines == data.count(b"\n")
        assert part.first == parse_line(data)[1]
        last_bytes = len(data) - data[:-1].rfind(b"\n") - 1
        assert part.size - last_bytes < RANGE_BYTES_MAX
        offset = part.end
    assert all(part.size >= RANGE_BYTES_MIN for part, _ in cut[:-1])


def test_ranges_have_a_middling_size() -> None:
    lines = [line_of(f"{number:06d}", value=b'"%b"' % (b"x" * 400)) for number in range(20_000)]
    sizes = [part.size for part in ranges_of(lines)]
    assert 96 * 1024 < sum(sizes) / len(sizes) < 192 * 1024


def test_nobody_can_make_ranges_endless_by_choosing_keys() -> None:
    names = (f"{number:06d}" for number in range(20_000))
    chosen = [name for name in names if sha256(b"forms\0" + name.encode()).digest()[0] > 127]
    sizes = [part.size for part in ranges_of([line_of(name) for name in chosen])]
    assert len(sizes) > 1
    assert all(RANGE_BYTES_MAX <= size < RANGE_BYTES_MAX + 1000 for size in sizes[:-1])


@pytest.mark.parametrize("at", [0, 777, 1999])
def test_one_record_more_changes_only_ranges_near_it(at: int) -> None:
    lines = [line_of(f"{number:06d}", value=b'"%b"' % (b"x" * 1000)) for number in range(2000)]
    before = {part.digest for part in ranges_of(lines)}
    lines.insert(at, line_of(f"{at - 1:06d}-more") if at else line_of("0"))
    after = [part.digest for part in ranges_of(lines)]
    assert len(after) > 10
    assert 1 <= sum(digest not in before for digest in after) <= 3


def test_no_range_holds_both_records_and_remembered_writes() -> None:
    lines = [line_of("a"), line_of("b"), write_line_of(1), write_line_of(2)]
    assert [(part.first, part.lines) for part in ranges_of(lines)] == [
        (b"forms\0a", 2),
        (b"~\0%020d" % 1, 2),
    ]
    assert [part.lines for part in ranges_of(lines[2:])] == [2]


def test_forgetting_and_remembering_change_only_the_ends() -> None:
    lines = [write_line_of(index, f"request-{index:06d}") for index in range(1, 2000)]
    before = [part.digest for part in ranges_of(lines[:-1])]
    after = [part.digest for part in ranges_of(lines[1:])]
    assert len(before) == len(after) > 2
    assert before[1:-1] == after[1:-1]


def test_records_must_be_in_order() -> None:
    for wrong in (["b", "a"], ["a", "a"]):
        with pytest.raises(SnapshotDamagedError):
            ranges_of([line_of(key) for key in wrong])


def test_every_changed_byte_of_a_snapshot_is_found(tmp_path: Path) -> None:
    lines = [line_of("a"), line_of("b", 2), write_line_of(1), write_line_of(2)]
    manifest = manifest_of(HEADER, lines)
    file, _ = stored(tmp_path, manifest, lines)
    check_snapshot(file, manifest)
    check_bytes(file, manifest)
    good = file.read_bytes()
    damaged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    damaged += [good[:at] for at in range(len(good))] + [good + b"\n", good + lines[1]]
    for bad in damaged:
        file.write_bytes(bad)
        for check in (check_snapshot, check_bytes):
            with pytest.raises(SnapshotDamagedError):
                check(file, manifest)


def test_every_changed_byte_of_a_manifest_is_found_or_changes_what_it_says(tmp_path: Path) -> None:
    manifest = manifest_of(HEADER, [line_of("a"), line_of("b", 2), write_line_of(1)])
    _, beside = stored(tmp_path, manifest, [])
    good = beside.read_bytes()
    assert read_manifest(beside) == manifest
    for at in range(len(good)):
        beside.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with suppress(SnapshotDamagedError):
            assert read_manifest(beside) != manifest
        beside.write_bytes(good[:at])
        with pytest.raises(SnapshotDamagedError):
            read_manifest(beside)


HEAD = json.loads(next(manifest_of(HEADER, [line_of("a")]).encode()))
PART = json.loads([*manifest_of(HEADER, [line_of("a")]).encode()][1])


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ({"format": 1}, {}),
        ({"index": 0}, {}),
        ({"index": 2**63}, {}),
        ({"index": "9"}, {}),
        ({"index": 1.0}, {}),
        ({"epoch": -1}, {}),
        ({"cluster_id": "longer"}, {}),
        ({"digest": "00"}, {}),
        ({"sha256": "00"}, {}),
        ({"time": 1}, {}),
        ({"time": "yesterday"}, {}),
        ({"time": "0001-01-01T00:00:00.000Z"}, {}),
        ({"lines": 2}, {}),
        ({"bytes": HEAD["bytes"] + 1}, {}),
        ({"ranges": 2}, {}),
        ({"ranges": 10**9}, {}),
        ({"ranges": None}, {}),
        ({}, {"offset": 0}),
        ({}, {"offset": "0"}),
        ({}, {"bytes": 0}),
        ({"bytes": HEAD["bytes"] + 2**60}, {"bytes": PART["bytes"] + 2**60}),
        ({"lines": 0}, {"lines": 0}),
        ({}, {"sha256": "0"}),
        ({}, {"collection": "a\0b", "key": "c"}),
        ({}, {"key": 1}),
        ({}, {"more": 1}),
        ({"more": 1}, {}),
    ],
)
def test_manifests_that_contradict_themselves(
    tmp_path: Path, head: dict[str, object], part: dict[str, object]
) -> None:
    lines = [json.dumps(line, separators=(",", ":")) + "\n" for line in (HEAD | head, PART | part)]
    path = tmp_path / "manifest"
    path.write_text("".join(lines))
    with pytest.raises(SnapshotDamagedError):
        read_manifest(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"null\n", b"{" * 10_000, b"\xff" * 9])
def test_what_is_no_manifest_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest"
    path.write_bytes(content)
    with pytest.raises(SnapshotDamagedError):
        read_manifest(path)


def test_a_manifest_may_not_lie_about_ranges_and_order(tmp_path: Path) -> None:
    """Each of these is what its manifest says byte for byte, and is no snapshot all the same."""
    lines = [line_of("a"), line_of("b", 2)]
    good = manifest_of(HEADER, lines).ranges
    halves = [good[0]._replace(lines=1, size=len(lines[0]), digest=sha256(lines[0]).digest())]
    halves.append(KeyRange(b"forms\0b", halves[0].end, len(lines[1]), 1, sha256(lines[1]).digest()))
    for wrong, ranges in [
        (lines, halves),
        (lines, good[:0]),
        (lines[:1], good),
        (lines[::-1], good),
        ([lines[0], lines[0]], good),
        ([line_of("a", 10)], manifest_of(HEADER, [line_of("a", 10)]).ranges),
        ([b"x" * 20 + b"\n"], good),
        ([lines[0], lines[1][:-1]], good),
    ]:
        manifest = with_ranges(HEADER, wrong, ranges)
        file, _ = stored(tmp_path, manifest, wrong)
        with pytest.raises(SnapshotDamagedError):
            check_snapshot(file, manifest)


def test_a_line_without_an_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicad.storage.snapshot.ENTRY_BYTES_MAX", 2 * 1024 * 1024)
    endless = [b"x" * 4 * 1024 * 1024]
    manifest = with_ranges(HEADER, endless, ())
    file, _ = stored(tmp_path, manifest, endless)
    with pytest.raises(SnapshotDamagedError, match="more than 16 MiB"):
        list(read_records(file, manifest))


def test_a_snapshot_without_records(tmp_path: Path) -> None:
    manifest = manifest_of(HEADER, [])
    file, beside = stored(tmp_path, manifest, [])
    check_snapshot(file, manifest)
    assert read_manifest(beside) == manifest
    assert manifest.ranges == ()


@pytest.mark.parametrize(
    ("time", "before"),
    [
        ("2026-11-23T06:02:21.692Z", "2026-11-22T06:02:21.692Z"),
        ("2027-01-01T00:00:00.000Z", "2026-12-31T00:00:00.000Z"),
        ("1970-01-01T00:00:00.001Z", "1969-12-31T00:00:00.001Z"),
    ],
)
def test_writes_are_remembered_for_a_day(time: str, before: str) -> None:
    assert forget_before(time) == before
