from __future__ import annotations

import sys
from pathlib import Path

import aiohttp
import pytest

from replicad.errors import CorruptLogError, SnapshotDamagedError, WorkerFailedError
from replicad.node import snapshots as module
from replicad.node.snapshots import Snapshots
from replicad.storage.records import Records
from replicad.storage.snapshot import read_manifest
from tests.support.entries import delete_of, put_of
from tests.support.snapshot_peers import Peer, serving
from tests.support.snapshots import CLUSTER, Segments


@pytest.fixture
def segments(tmp_path: Path) -> Segments:
    """Four segments of two entries."""
    made = Segments(tmp_path)
    for first in range(0, 8, 2):
        made.add_records([str(first), str(first + 1)])
    return made


async def build(snapshots: Snapshots, segments: Segments, committed: int) -> int | None:
    digest_at = segments.log.index.digest_at
    return await snapshots.build_next(CLUSTER, segments.firsts, committed, digest_at)


async def test_snapshots_follow_the_log_and_two_are_kept(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    assert snapshots.newest == 0
    assert await build(snapshots, segments, committed=2) is None
    for committed, index in [(3, 2), (5, 4), (7, 6)]:
        assert await build(snapshots, segments, committed) == index == snapshots.newest
        assert segments.content(index) == segments.expected(index)
    assert await build(snapshots, segments, committed=8) is None
    assert snapshots.files.indexes() == [6, 4]


async def test_a_large_snapshot_waits_until_the_log_has_grown(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=3)
    monkeypatch.setattr(module, "SEGMENT_BYTES", segments.files.load(2).size // 8)
    assert await build(snapshots, segments, committed=5) is None
    assert await build(snapshots, segments, committed=7) == 6


async def test_a_damaged_snapshot_is_deleted_and_the_one_before_built_on(
    segments: Segments,
) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=3)
    await build(snapshots, segments, committed=5)
    file = segments.files.file_of(4)
    file.write_bytes(file.read_bytes().replace(b'"key":"3"', b'"key":"4"'))
    with pytest.raises(SnapshotDamagedError):
        await build(snapshots, segments, committed=7)
    assert snapshots.files.indexes() == [2]
    assert await build(snapshots, segments, committed=7) == 6
    assert segments.content(6) == segments.expected(6)


async def test_a_damaged_segment_is_told_and_costs_no_snapshot(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=3)
    path = segments.path_of(3)
    path.write_bytes(path.read_bytes().replace(b'"key":"3"', b'"key":"4"'))
    with pytest.raises(CorruptLogError):
        await build(snapshots, segments, committed=5)
    assert snapshots.files.indexes() == [2]


async def test_what_the_log_changes_and_deletes_later(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=7)
    changed = segments.log.write(put_of("0", b'{"n":1}', request="put"))
    segments.add(changed + segments.log.write(delete_of("1", request="delete")))
    segments.add_records(["9"])
    assert await build(snapshots, segments, committed=11) == 10
    assert segments.content(10) == segments.expected(10)


async def test_snapshots_of_an_earlier_format_are_built_anew(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=7)
    for path in (segments.files.file_of(6), segments.files.manifest_of(6)):
        path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":1'))
    assert snapshots.newest == 6
    segments.add_records(["9"])
    with pytest.raises(SnapshotDamagedError, match="format 1"):
        await build(snapshots, segments, committed=9)
    assert snapshots.newest == 0
    assert await build(snapshots, segments, committed=9) == 8
    assert segments.content(8) == segments.expected(8)


async def test_a_snapshot_of_another_log_is_not_kept(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    with pytest.raises(SnapshotDamagedError, match="another log"):
        await snapshots.build_next(CLUSTER, segments.firsts, 3, lambda _index: bytes(32))
    assert snapshots.newest == 0


async def test_a_snapshot_becomes_a_record_store(segments: Segments) -> None:
    snapshots = Snapshots(segments.data_dir)
    await build(snapshots, segments, committed=7)
    records = Records.open(segments.data_dir / "records.sqlite")
    records.replace_with(await snapshots.load(6))
    assert records.applied == segments.log.index.point(6)
    lines = segments.content(6).splitlines(keepends=True)[1:]
    assert list(records.snapshot_lines(6, "")) == lines
    records.close()

    file = segments.files.file_of(6)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SnapshotDamagedError):
        await snapshots.load(6)
    assert snapshots.newest == 0


async def test_a_killed_worker_is_noticed(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerFailedError, match="code 1"):
        await build(Snapshots(segments.data_dir), segments, committed=3)


async def test_what_peers_get(segments: Segments) -> None:
    peer = Peer(segments.data_dir)
    async with serving(peer) as (url,), aiohttp.ClientSession() as session:

        async def get(path: str, **headers: str) -> tuple[int, bytes]:
            async with session.get(f"{url}/internal/{path}", headers=headers) as response:
                return response.status, await response.read()

        assert await get("snapshot") == (404, b'{"error":"no such snapshot"}')
        await build(peer.snapshots, segments, committed=3)
        await build(peer.snapshots, segments, committed=5)
        status, manifest = await get("snapshot")
        assert (status, manifest) == (200, segments.files.manifest_of(4).read_bytes())
        assert read_manifest(segments.files.manifest_of(4)).header.index == 4
        assert await get("snapshot/4") == (200, segments.content(4))
        assert await get("snapshot/2", Range="bytes=10-19") == (206, segments.content(2)[10:20])
        for missing in ("snapshot/0", "snapshot/3", "snapshot/" + "9" * 20, "snapshot/x"):
            assert (await get(missing))[0] == 404


async def test_a_snapshot_that_a_peer_reads_is_not_deleted(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(segments.data_dir)
    async with serving(peer) as (url,), aiohttp.ClientSession() as session:
        await build(peer.snapshots, segments, committed=3)
        async with session.get(f"{url}/internal/snapshot/2") as response:
            assert response.status == 200
        for committed in (5, 7):
            await build(peer.snapshots, segments, committed)
        assert peer.snapshots.files.indexes() == [6, 4, 2]
        monkeypatch.setattr(module, "_IN_USE_S", 0.0)
        segments.add_records(["8"])
        await build(peer.snapshots, segments, committed=9)
        assert peer.snapshots.files.indexes() == [8, 6]


async def test_a_snapshot_is_fetched_only_if_there_is_none_that_will_do(
    segments: Segments, tmp_path: Path
) -> None:
    peer, snapshots = Peer(segments.data_dir), Snapshots(tmp_path / "here")
    await build(peer.snapshots, segments, committed=3)
    async with serving(peer) as urls:

        async def fetched(at_least: int) -> tuple[int, int]:
            got = await snapshots.fetch(CLUSTER, urls, lambda _header: iter(()), at_least=at_least)
            return got.manifest.header.index, got.transferred

        assert await fetched(1) == (2, peer.sent)
        assert await fetched(2) == (2, 0)
        for committed in (5, 7):
            await build(peer.snapshots, segments, committed)
        assert (await fetched(3))[0] == 6
        assert snapshots.files.indexes() == [6, 2]
        file = snapshots.files.file_of(6)
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(SnapshotDamagedError):
            await fetched(3)
        assert (await fetched(3))[0] == 6
