"""A replica gets a snapshot from peers that behave, go away, or lie."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from replicad.errors import DiskFullError, SnapshotUnavailableError
from replicad.node import snapshot_fetch as module
from replicad.node import snapshot_jobs
from replicad.node.snapshot_fetch import Fetched, SnapshotFetch
from replicad.storage.snapshot import Header, check_snapshot, read_manifest
from replicad.storage.snapshot_files import SnapshotFiles
from tests.support.crashes import Crash, crash_before
from tests.support.snapshot_peers import Fault, Peer, serving
from tests.support.snapshots import CLUSTER, Segments

GONE = "http://127.0.0.1:1"


@pytest.fixture
def there(tmp_path: Path) -> Segments:
    """What peers have: two segments and the snapshots up to their ends, the newer of 2 MB."""
    made = Segments(tmp_path / "there")
    made.add_records([f"{number:05d}" for number in range(0, 1000, 2)], value_bytes=3000)
    made.add_records([f"{number:05d}" for number in range(701, 1000, 2)], value_bytes=3000)
    made.build(segments=1)
    made.build(base=500)
    return made


@pytest.fixture
def here(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles.open(tmp_path / "here")


@pytest.fixture
def two(there: Segments) -> tuple[Peer, Peer]:
    return Peer(there.data_dir), Peer(there.data_dir)


async def fetch(
    here: SnapshotFiles, peers: Sequence[str], local: Sequence[bytes] = (), *, at_least: int = 1
) -> Fetched:
    def lines(header: Header) -> Iterator[bytes]:
        assert header.index >= at_least
        return iter(local)

    return await SnapshotFetch(here, CLUSTER, peers, lines, at_least).run()


def assert_here(here: SnapshotFiles, there: Segments, index: int = 650) -> None:
    """The snapshot is here, and nothing else."""
    assert here.indexes() == [index]
    assert here.file_of(index).read_bytes() == there.expected(index)
    assert here.manifest_of(index).read_bytes() == there.files.manifest_of(index).read_bytes()
    assert len(list(here.path.iterdir())) == 2


def body_bytes(there: Segments, index: int = 650) -> int:
    manifest = there.files.load(index)
    return manifest.size - len(manifest.header.encode())


async def test_a_new_replica_gets_all_of_it(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REQUEST_BYTES", 300_000)
    async with serving(*two) as urls:
        fetched = await fetch(here, urls)
    assert_here(here, there)
    assert (fetched.copied, fetched.resumed) == (0, 0)
    assert fetched.transferred == body_bytes(there) == two[0].sent
    assert fetched.manifest == there.files.load(650)
    assert len(two[0].spans) > 3
    assert two[1].manifests == two[1].sent == 0


async def test_only_what_differs_is_transferred(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer]
) -> None:
    """The second segment's keys stand between the last third of the first one's."""
    older = there.content(500).splitlines(keepends=True)[1:]
    async with serving(*two) as urls:
        fetched = await fetch(here, urls, older)
    assert_here(here, there)
    assert fetched.transferred == two[0].sent < 0.6 * body_bytes(there)
    assert fetched.copied + fetched.transferred == body_bytes(there)


async def test_one_record_costs_one_range(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer]
) -> None:
    mine = there.content(650).splitlines(keepends=True)[1:]
    del mine[300]
    async with serving(*two) as urls:
        fetched = await fetch(here, urls, mine)
    assert_here(here, there)
    sizes = [part.size for part in fetched.manifest.ranges]
    assert fetched.transferred == two[0].sent
    assert fetched.transferred in sizes


async def test_nothing_is_transferred_to_who_has_it_all(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer]
) -> None:
    async with serving(*two) as urls:
        fetched = await fetch(here, urls, there.content(650).splitlines(keepends=True)[1:])
    assert_here(here, there)
    assert fetched.transferred == two[0].sent == 0


async def test_a_snapshot_without_records(here: SnapshotFiles, tmp_path: Path) -> None:
    there = Segments(tmp_path / "there")
    there.add(there.log.open_epoch(1))
    there.build()
    async with serving(Peer(there.data_dir)) as urls:
        await fetch(here, urls)
    assert_here(here, there, index=1)


async def test_another_peer_goes_on_where_one_went_away(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REQUEST_BYTES", 300_000)
    first, second = two
    first.fault = going_away(there, first)
    async with serving(*two) as urls:
        fetched = await fetch(here, [GONE, *urls])
    assert_here(here, there)
    assert fetched.transferred == body_bytes(there)
    assert second.spans[0][0] >= first.spans[-1][0]
    assert second.sent <= body_bytes(there) - first.spans[-1][0]


def going_away(there: Segments, peer: Peer) -> Fault:
    """The peer's connection ends in the middle of the second request."""

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if len(peer.spans) < 2:
            return None
        begin, end = peer.spans[-1]
        index = int(request.match_info["index"])
        data = there.content(index)
        span = f"bytes {begin}-{end}/{len(data)}"
        response = web.StreamResponse(status=206, headers={"Content-Range": span})
        response.content_length = end + 1 - begin
        await response.prepare(request)
        await response.write(data[begin : begin + 200_000])
        raise ConnectionAbortedError

    return answer


async def test_an_interrupted_fetch_is_resumed(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REQUEST_BYTES", 300_000)
    first, second = two
    first.fault = going_away(there, first)
    async with serving(first) as urls:
        with pytest.raises(SnapshotUnavailableError, match=urls[0]):
            await fetch(here, urls)
    assert here.indexes() == []
    again = SnapshotFiles.open(here.path.parent)
    async with serving(second) as urls:
        fetched = await fetch(again, urls)
    assert_here(here, there)
    assert fetched.resumed >= first.spans[0][1] - first.spans[0][0] > 100_000
    assert fetched.transferred == second.sent == body_bytes(there) - fetched.resumed
    assert second.manifests == 0


async def test_what_was_left_is_of_no_use_when_more_is_wanted(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer]
) -> None:
    there.files.delete(650)
    two[0].fault = going_away(there, two[0])
    async with serving(*two) as urls:
        two[0].spans = [(0, 0)]
        with pytest.raises(SnapshotUnavailableError):
            await fetch(here, urls[:1])
        there.build(base=500)
        fetched = await fetch(here, urls[1:], at_least=600)
    assert fetched.resumed == 0
    assert_here(here, there)


async def test_a_snapshot_that_is_replaced_meanwhile(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer]
) -> None:
    newest = there.files.manifest_of(650).read_bytes(), there.content(650)
    there.files.delete(650)

    async def replaced(_request: web.Request) -> None:
        if two[0].spans and there.files.indexes() == [500]:
            there.files.file_of(650).write_bytes(newest[1])
            there.files.manifest_of(650).write_bytes(newest[0])
            there.files.delete(500)

    two[0].fault = replaced
    async with serving(*two) as urls:
        await fetch(here, [*urls, GONE])
    assert_here(here, there)


async def test_peers_without_a_snapshot_that_helps(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], tmp_path: Path
) -> None:
    empty = Peer(tmp_path / "empty")
    async with serving(empty, *two) as urls:
        with pytest.raises(SnapshotUnavailableError, match="ends with entry 650"):
            await fetch(here, urls, at_least=651)
        with pytest.raises(SnapshotUnavailableError, match="belongs to cluster test"):
            await SnapshotFetch(here, "other", urls, lambda _header: iter(()), 1).run()
        with pytest.raises(SnapshotUnavailableError, match="no such snapshot"):
            await fetch(here, urls[:1])
    with pytest.raises(SnapshotUnavailableError, match="none asked"):
        await fetch(here, [])
    assert list(here.path.iterdir()) == []


async def lie_bytes(request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    return web.Response(status=206, body=bytes(len(data)), headers={"Content-Range": span})


async def lie_short(_request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    return web.Response(status=206, body=data[:-1], headers={"Content-Range": span})


async def lie_status(_request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    return web.Response(status=200, body=data, headers={"Content-Range": span})


async def lie_length(_request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    return web.Response(status=206, body=data, headers={"Content-Range": span + "0"})


async def lie_compressed(_request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    headers = {"Content-Range": span, "Content-Encoding": "gzip"}
    return web.Response(status=206, body=bytes(9) + data, headers=headers)


async def lie_silence(request: web.Request, data: bytes, span: str) -> web.StreamResponse:
    response = web.StreamResponse(status=206, headers={"Content-Range": span})
    await response.prepare(request)
    await response.write(data[:1000])
    await asyncio.Event().wait()
    return response


Lie = Callable[[web.Request, bytes, str], Awaitable[web.StreamResponse]]
LIES: list[Lie] = [
    lie_bytes, lie_short, lie_status, lie_length, lie_compressed, lie_silence,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_peer_costs_nothing_but_time(
    here: SnapshotFiles,
    there: Segments,
    two: tuple[Peer, Peer],
    monkeypatch: pytest.MonkeyPatch,
    lie: Lie,
) -> None:
    timeout = aiohttp.ClientTimeout(total=60, sock_connect=2, sock_read=0.2)
    monkeypatch.setattr(module, "_TIMEOUT", timeout)

    async def answer(request: web.Request) -> web.StreamResponse | None:
        if "index" not in request.match_info:
            return None
        begin, end = two[0].spans[-1]
        data = there.content(650)
        return await lie(request, data[begin : end + 1], f"bytes {begin}-{end}/{len(data)}")

    two[0].fault = answer
    async with serving(*two) as urls:
        with pytest.raises(SnapshotUnavailableError):
            await fetch(here, urls[:1])
        assert here.indexes() == []
        fetched = await fetch(here, urls)
    assert_here(here, there)
    assert fetched.transferred + fetched.resumed == body_bytes(there)


async def test_nobody_is_led_elsewhere(here: SnapshotFiles, two: tuple[Peer, Peer]) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": two[1].url + request.path})

    two[0].fault = redirect
    async with serving(*two) as urls:
        with pytest.raises(SnapshotUnavailableError, match="it answers 302"):
            await fetch(here, urls[:1])
    assert two[1].manifests == 0


@pytest.mark.parametrize("answer", [b"", b"{}\n", b"[1]\n" * 1000, b"\xff" * 5000, b"x" * 200_000])
async def test_a_manifest_that_is_none(
    here: SnapshotFiles,
    there: Segments,
    two: tuple[Peer, Peer],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
) -> None:
    monkeypatch.setattr(module, "_MANIFEST_BYTES_MAX", 100_000)

    async def lie(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=answer)

    two[0].fault = lie
    async with serving(*two) as urls:
        with pytest.raises(SnapshotUnavailableError):
            await fetch(here, urls[:1])
        assert list(here.path.iterdir()) == []
        await fetch(here, urls)
    assert_here(here, there)


async def test_a_lie_in_which_every_digest_is_right_is_found_at_the_end(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], tmp_path: Path
) -> None:
    liar = Peer(tmp_path / "liar")
    manifest = there.files.load(650)
    lines = there.content(650).splitlines(keepends=True)[1:]
    lines[1:3] = lines[2:0:-1]
    data = manifest.header.encode() + b"".join(lines)
    first = manifest.ranges[0]
    swapped = first._replace(digest=sha256(data[first.offset : first.end]).digest())
    told = replace(manifest, digest=sha256(data).digest(), ranges=(swapped, *manifest.ranges[1:]))
    files = liar.snapshots.files
    files.file_of(650).write_bytes(data)
    files.manifest_of(650).write_bytes(b"".join(told.encode()))
    assert read_manifest(files.manifest_of(650)) == told
    async with serving(liar, *two) as urls:
        with pytest.raises(SnapshotUnavailableError, match="after"):
            await fetch(here, urls[:1])
        assert list(here.path.iterdir()) == []
        await fetch(here, urls)
    assert_here(here, there)


async def test_no_room(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(*two) as urls:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstatvfs", lambda _fd: SimpleNamespace(f_bavail=10, f_frsize=4096))
            with pytest.raises(DiskFullError):
                await fetch(here, urls)
        assert list(here.path.iterdir()) == []
        await fetch(here, urls)
    assert_here(here, there)


async def test_a_crash_at_every_step(
    here: SnapshotFiles, there: Segments, two: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check_here(file: Path, manifest: Path) -> None:
        check_snapshot(file, read_manifest(manifest))

    monkeypatch.setattr(snapshot_jobs, "check", check_here)
    older = there.content(500).splitlines(keepends=True)[1:]
    crashed = True
    steps = 0
    async with serving(*two) as urls:
        while crashed:
            try:
                with crash_before(monkeypatch, steps):
                    await fetch(here, urls, older)
                crashed = False
            except Crash:
                steps += 1
            again = SnapshotFiles.open(here.path.parent)
            if again.indexes():
                again.delete_incoming()
            else:
                await fetch(again, urls, older)
            assert_here(again, there)
            again.delete(650)
    assert steps > 15
