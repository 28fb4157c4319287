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
    check_snapshot,
    cut_ranges,
    decode_record,
    parse_line,
    read_manifest,
    read_records,
)
from tests.support.snapshots import Segments, manifest_of, with_ranges

HEADER = Header("test", 9, 2, bytes(range(32)), "2026-11-23T06:02:21.692Z")
KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def line_of(key: str, index: int = 1, value: bytes = b"{}") -> bytes:
    return Record(index, "forms", key, f"r{index}", "f" * 32, value).encode()


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
        b'{"format":1,"cluster_id":"test","index":2,"epoch":1,"digest":"%b",'
        b'"time":"1970-01-01T00:00:01.000Z"}\n'
        b'{"index":2,"collection":"forms","key":"a","request":"r-forms-a","fingerprint":"%b",'
        b'"value":{"id":"a","x":""}}\n'
        b'{"index":1,"collection":"forms","key":"b","request":"r-forms-b","fingerprint":"%b",'
        b'"value":{"id":"b","x":""}}\n'
    ) % (a["digest"].encode(), a["fingerprint"].encode(), b["fingerprint"].encode())
    head, part = map(json.loads, segments.files.manifest_of(2).read_bytes().splitlines())
    first, _, rest = segments.content(2).partition(b"\n")
    assert head == json.loads(first) | {
        "records": 2,
        "bytes": len(segments.content(2)),
        "sha256": sha256(segments.content(2)).hexdigest(),
        "ranges": 1,
    }
    assert part == {
        "collection": "forms",
        "key": "a",
        "offset": len(first) + 1,
        "bytes": len(rest),
        "records": 2,
        "sha256": sha256(rest).hexdigest(),
    }
    assert read_manifest(segments.files.manifest_of(2)) == manifest


@given(KEYS, st.integers(1, 2**63 - 1), st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_records_are_found_again(key: str, index: int, request: str) -> None:
    value = '{"id":"a","n":1.0,"value":{"value":"é"}}'.encode()
    record = Record(index, "forms", key, request, "f" * 32, value)
    assert decode_record(record.encode()) == record
    assert parse_line(record.encode()) == (index, b"forms\0" + key.encode())
    assert json.loads(record.encode())["request"] == request


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
        line_of("a").replace(b'"r1"', b"1"),
        line_of("a").replace(b'"r1"', b"null"),
        line_of("a").replace(b'"request"', b'"index":2,"request"'),
        line_of("a").replace(b'"request"', b'"more":2,"request"'),
        line_of("a").replace(b',"value"', b', "value"'),
    ],
)
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(SnapshotDamagedError):
        decode_record(line)


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
        assert part.records == data.count(b"\n")
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


def test_records_must_be_in_order() -> None:
    for wrong in (["b", "a"], ["a", "a"]):
        with pytest.raises(SnapshotDamagedError):
            ranges_of([line_of(key) for key in wrong])


def test_every_changed_byte_of_a_snapshot_is_found(tmp_path: Path) -> None:
    lines = [line_of("a"), line_of("b", 2)]
    manifest = manifest_of(HEADER, lines)
    file, _ = stored(tmp_path, manifest, lines)
    check_snapshot(file, manifest)
    good = file.read_bytes()
    damaged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    damaged += [good[:at] for at in range(len(good))] + [good + b"\n", good + lines[1]]
    for bad in damaged:
        file.write_bytes(bad)
        with pytest.raises(SnapshotDamagedError):
            check_snapshot(file, manifest)


def test_every_changed_byte_of_a_manifest_is_found_or_changes_what_it_says(tmp_path: Path) -> None:
    manifest = manifest_of(HEADER, [line_of("a"), line_of("b", 2)])
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
        ({"format": 2}, {}),
        ({"index": 0}, {}),
        ({"index": 2**63}, {}),
        ({"index": "9"}, {}),
        ({"index": 1.0}, {}),
        ({"epoch": -1}, {}),
        ({"cluster_id": "longer"}, {}),
        ({"digest": "00"}, {}),
        ({"sha256": "00"}, {}),
        ({"records": 2}, {}),
        ({"bytes": HEAD["bytes"] + 1}, {}),
        ({"ranges": 2}, {}),
        ({"ranges": 10**9}, {}),
        ({"ranges": None}, {}),
        ({}, {"offset": 0}),
        ({}, {"offset": "0"}),
        ({}, {"bytes": 0}),
        ({"bytes": HEAD["bytes"] + 2**60}, {"bytes": PART["bytes"] + 2**60}),
        ({"records": 0}, {"records": 0}),
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
    halves = [good[0]._replace(records=1, size=len(lines[0]), digest=sha256(lines[0]).digest())]
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
