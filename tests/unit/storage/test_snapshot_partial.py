from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.errors import DiskFullError, RecordsDamagedError, SnapshotDamagedError
from replicad.storage.snapshot import Header, Manifest, Record, check_snapshot
from replicad.storage.snapshot_partial import PartialSnapshot
from tests.support.snapshots import manifest_of

HEADER = Header("test", 1000, 1, bytes(32), "2026-11-23T06:02:21.692Z")


def lines_of(keys: Sequence[int], value: bytes = b"x" * 1000) -> list[bytes]:
    """The lines of these records, in order."""
    return [
        Record(1 + key, 0, "forms", f"{key:06d}", b'{"x":"%b"}' % value).encode()
        for key in sorted(keys)
    ]


WHOLE = lines_of(range(900))
MANIFEST = manifest_of(HEADER, WHOLE)
DATA = HEADER.encode() + b"".join(WHOLE)


def reused(partial: PartialSnapshot, local: Sequence[bytes]) -> PartialSnapshot:
    for _ in partial.reuse(iter(local)):
        pass
    return partial


def get_the_rest(partial: PartialSnapshot) -> None:
    while partial.missing:
        part = partial.missing[0]
        partial.store(part, DATA[part.offset : part.end])
    partial.sync()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot"


def opened(path: Path, manifest: Manifest = MANIFEST) -> AbstractContextManager[PartialSnapshot]:
    return closing(PartialSnapshot(path, manifest))


def test_without_anything_local_all_is_missing(path: Path) -> None:
    with opened(path) as partial:
        assert len(reused(partial, []).missing) == len(MANIFEST.ranges) > 4
        get_the_rest(partial)
        assert (partial.resumed, partial.copied) == (0, 0)
        assert partial.transferred == MANIFEST.size - len(HEADER.encode())
    assert path.read_bytes() == DATA
    check_snapshot(path, MANIFEST)


def test_what_is_here_entirely_is_not_asked_for(path: Path) -> None:
    with opened(path) as partial:
        assert not reused(partial, WHOLE).missing
        assert partial.copied == MANIFEST.size - len(HEADER.encode())
    check_snapshot(path, MANIFEST)


@pytest.mark.parametrize(
    "local",
    [
        WHOLE[:450] + WHOLE[451:],
        WHOLE[:450] + lines_of([450], b"y" * 1000) + WHOLE[451:],
        WHOLE[:450] + lines_of([449, 450], b"y") + WHOLE[450:],
    ],
    ids=["one less", "one different", "one twice"],
)
def test_only_the_range_that_differs_is_missing(path: Path, local: list[bytes]) -> None:
    with opened(path) as partial:
        (missing,) = reused(partial, local).missing
        assert missing.first <= b"forms\0000450"
        get_the_rest(partial)
        assert partial.transferred == missing.size
    check_snapshot(path, MANIFEST)


def test_local_records_beside_the_snapshots_do_no_harm(path: Path) -> None:
    """Many before the first range, and a range of ours that is longer than the snapshot's."""
    manifest = manifest_of(HEADER, WHOLE[700:])
    with opened(path, manifest) as partial:
        assert not reused(partial, WHOLE).missing
    check_snapshot(path, manifest)


def test_lines_of_a_damaged_store_end_where_it_is_damaged(path: Path) -> None:
    def damaged() -> Iterator[bytes]:
        yield from WHOLE[:600]
        raise RecordsDamagedError("damaged")

    with opened(path) as partial:
        for _ in partial.reuse(damaged()):
            pass
        assert partial.copied > 300_000
        get_the_rest(partial)
    check_snapshot(path, MANIFEST)


def test_it_goes_on_where_it_was_interrupted(path: Path) -> None:
    with opened(path) as partial:
        reused(partial, [])
        for _ in range(3):
            part = partial.missing[0]
            partial.store(part, DATA[part.offset : part.end])
        stored = partial.transferred
    with opened(path) as partial:
        assert len(reused(partial, []).missing) == len(MANIFEST.ranges) - 3
        assert partial.resumed == stored
        get_the_rest(partial)
    check_snapshot(path, MANIFEST)


def test_bytes_that_were_lost_in_a_power_cut_are_got_again(path: Path) -> None:
    with opened(path) as partial:
        get_the_rest(reused(partial, []))
    for damage in (DATA[: len(DATA) // 2], DATA[:200_000] + bytes(9) + DATA[200_009:]):
        path.write_bytes(damage)
        with opened(path) as partial:
            assert 0 < len(reused(partial, []).missing) < len(MANIFEST.ranges)
            get_the_rest(partial)
        check_snapshot(path, MANIFEST)


def test_other_bytes_than_the_manifest_says_are_not_stored(path: Path) -> None:
    with opened(path) as partial:
        part = reused(partial, []).missing[0]
        for wrong in (b"", bytes(part.size), DATA[part.offset : part.end - 1]):
            with pytest.raises(SnapshotDamagedError):
                partial.store(part, wrong)
        assert partial.missing[0] == part
    assert path.read_bytes()[part.offset : part.end] == bytes(part.size)


def test_no_room_is_known_before_anything_is_written(path: Path) -> None:
    free = os.statvfs(path.parent)
    size = free.f_blocks * free.f_frsize + 1
    with pytest.raises(DiskFullError):
        PartialSnapshot(path, Manifest(HEADER, 0, size, bytes(32), ()))
    assert path.stat().st_size == 0


def test_no_room_in_the_middle(
    path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    with file_size_limit(300_000), pytest.raises(DiskFullError):
        PartialSnapshot(path, MANIFEST)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 300), unique=True),
    st.lists(st.integers(0, 300), unique=True),
    st.sets(st.integers(0, 300)),
)
def test_any_local_content_leads_to_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, keys: list[int], local: list[int], other: set[int]
) -> None:
    path = tmp_path_factory.mktemp("any") / "snapshot"
    lines = lines_of(keys)
    manifest = manifest_of(HEADER, lines)
    data = HEADER.encode() + b"".join(lines)
    mine = sorted(
        lines_of(list(set(local) - other)) + lines_of(list(other), b"other"),
        key=lambda line: line.split(b'"key":')[1],
    )
    with opened(path, manifest) as partial:
        reused(partial, mine)
        while partial.missing:
            part = partial.missing[0]
            partial.store(part, data[part.offset : part.end])
        assert partial.copied + partial.transferred == len(data) - len(HEADER.encode())
    assert path.read_bytes() == data
