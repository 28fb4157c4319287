"""Getting a snapshot from peers over HTTP: only what is not here already, from whoever has it.

The manifest comes first. Each range whose digest the local records have, or the part of the
snapshot that an interrupted attempt left, is taken from there; the others are asked for. The
partial file needs no journal: on another attempt the digests tell which of its ranges are right.
Snapshots are the same bytes on all replicas, so any peer may go on where another ended.

What a peer sends is bounded and believed only after its digest was compared. The file gets its
name when all of it was verified, by another process, against the manifest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

import aiohttp

from replicad.errors import (
    DiskFullError,
    ReplicadError,
    SnapshotDamagedError,
    SnapshotUnavailableError,
)
from replicad.node import snapshot_jobs
from replicad.storage.durable import disk_errors, make_directory
from replicad.storage.snapshot import Header, KeyRange, Manifest, read_manifest
from replicad.storage.snapshot_files import SnapshotFiles
from replicad.storage.snapshot_partial import PartialSnapshot

# One request asks for so much: it bounds what a peer's end costs, and the time of a request.
_REQUEST_BYTES: Final = 4 * 1024 * 1024
_SYNC_BYTES: Final = 32 * 1024 * 1024
# Enough for a snapshot of more than 100 GiB.
_MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=2, sock_read=10)
# A snapshot may be replaced by a newer one at all peers while it is fetched.
_SNAPSHOTS_MAX: Final = 5

LocalLines = Callable[[Header], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A snapshot that is here now, durable and verified.

    Attributes:
        manifest: What it is.
        transferred: Bytes of it that peers sent.
        copied: Bytes of it that local records had.
        resumed: Bytes of it that an interrupted attempt had left.
    """

    manifest: Manifest
    transferred: int
    copied: int
    resumed: int


class _PeerError(ReplicadError):
    """One peer did not give what it was asked for."""


class _NotThereError(_PeerError):
    """The peer has no such snapshot."""


class _ReplacedError(ReplicadError):
    """Nobody who can be reached has the rest of this snapshot; somebody may have a newer one."""


class SnapshotFetch:
    """One attempt to get a snapshot."""

    def __init__(
        self,
        files: SnapshotFiles,
        cluster_id: str,
        peers: Sequence[str],
        local: LocalLines,
        at_least: int,
    ) -> None:
        """Prepare.

        Args:
            files: Where it comes.
            cluster_id: Whose log it must stand for.
            peers: Their URLs; the first is asked first.
            local: Gives the lines that a snapshot with this header would have of what is here
                already, in its order: `Records.snapshot_lines`, or an older snapshot.
            at_least: It must cover the entries up to here.
        """
        self._files = files
        self._cluster_id = cluster_id
        self._peers = peers
        self._local = local
        self._at_least = at_least
        self._problems: dict[str, str] = {}
        self._liars: set[str] = set()
        self._origin = ""  # Whose the manifest is; unknown when an earlier attempt got it.
        self._synced = 0
        self._file = files.incoming / "snapshot.ndjson"
        self._manifest_file = files.incoming / "manifest.ndjson"

    async def run(self) -> Fetched:
        """Get it.

        Raises:
            SnapshotUnavailableError: No peer could give all of it; what arrived is kept for the
                next attempt.
            DiskFullError: No room; what arrived is removed.
            DiskFailedError, WorkerFailedError: It could not be stored or verified.
        """
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT, auto_decompress=False, headers={"Accept-Encoding": "identity"}
        ) as session:
            manifest = await asyncio.to_thread(self._read_stored_manifest)
            for _ in range(_SNAPSHOTS_MAX + len(self._peers)):
                try:
                    if manifest is None:
                        manifest = await self._get_manifest(session)
                    return await self._get_snapshot(session, manifest)
                except _ReplacedError:
                    self._files.delete_incoming()
                except SnapshotDamagedError as error:
                    # Every range is what the manifest says, and yet it is no snapshot.
                    if self._origin:
                        self._exclude(self._origin, str(error))
                    self._files.delete_incoming()
                except DiskFullError:
                    self._files.delete_incoming()
                    raise
                manifest = None
        raise self._unavailable()

    def _read_stored_manifest(self) -> Manifest | None:
        """The manifest of an interrupted attempt that can still serve, or None."""
        try:
            manifest = read_manifest(self._manifest_file)
        except (SnapshotDamagedError, FileNotFoundError):
            return None
        return None if self._why_not(manifest) else manifest

    def _why_not(self, manifest: Manifest) -> str | None:
        if manifest.header.cluster_id != self._cluster_id:
            return f"it belongs to cluster {manifest.header.cluster_id}"
        if manifest.header.index < self._at_least:
            return f"its snapshot ends with entry {manifest.header.index}"
        return None

    async def _get_manifest(self, session: aiohttp.ClientSession) -> Manifest:
        """Ask the peers, one after the other, for their newest snapshot's manifest."""
        for peer in self._usable():
            try:
                await self._download_manifest(session, peer)
                manifest = await asyncio.to_thread(read_manifest, self._manifest_file)
                if why := self._why_not(manifest):
                    raise _PeerError(why)
            except SnapshotDamagedError as error:
                self._exclude(peer, str(error))
            except _PeerError as error:
                self._problems[peer] = str(error)
            else:
                self._origin = peer
                return manifest
        self._files.delete_incoming()
        raise self._unavailable()

    async def _download_manifest(self, session: aiohttp.ClientSession, peer: str) -> None:
        with disk_errors(f"create {self._files.incoming}"):
            make_directory(self._files.incoming)
            self._file.unlink(missing_ok=True)
            file = self._manifest_file.open("wb")
        size = 0
        with closing(file):
            async with _get(session, f"{peer}/internal/snapshot", 200) as response:
                async for data in response.content.iter_any():
                    size += len(data)
                    if size > _MANIFEST_BYTES_MAX:
                        raise _PeerError("its manifest has more than 256 MiB")
                    with disk_errors("store a manifest"):
                        file.write(data)
            with disk_errors("store a manifest"):
                file.flush()

    async def _get_snapshot(self, session: aiohttp.ClientSession, manifest: Manifest) -> Fetched:
        with closing(PartialSnapshot(self._file, manifest)) as partial:
            for _ in partial.reuse(self._local(manifest.header)):
                await asyncio.sleep(0)
            while partial.missing:
                await self._ask_all(session, manifest, partial)
            await asyncio.to_thread(partial.sync)
        await snapshot_jobs.check(self._file, self._manifest_file)
        self._files.publish(self._file, manifest)
        self._files.delete_incoming()
        return Fetched(manifest, partial.transferred, partial.copied, partial.resumed)

    async def _ask_all(
        self, session: aiohttp.ClientSession, manifest: Manifest, partial: PartialSnapshot
    ) -> None:
        """Ask each peer for what is missing, until nothing is."""
        before = partial.transferred
        replaced = False
        for peer in self._usable():
            try:
                while partial.missing:
                    await self._ask(session, peer, manifest, partial)
                return
            except _PeerError as error:
                self._problems[peer] = str(error)
                replaced |= isinstance(error, _NotThereError)
            except SnapshotDamagedError as error:
                self._exclude(peer, str(error))
        if partial.transferred == before:
            raise _ReplacedError if replaced else self._unavailable()

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        peer: str,
        manifest: Manifest,
        partial: PartialSnapshot,
    ) -> None:
        """Ask one peer for the next ranges that are missing and follow each other."""
        wanted = _adjacent(partial.missing)
        span = f"{wanted[0].offset}-{wanted[-1].end - 1}"
        url = f"{peer}/internal/snapshot/{manifest.header.index}"
        async with _get(session, url, 206, {"Range": f"bytes={span}"}) as response:
            if response.headers.get("Content-Range") != f"bytes {span}/{manifest.size}":
                raise SnapshotDamagedError("its snapshot has another length")
            for part in wanted:
                partial.store(part, await response.content.readexactly(part.size))
                if partial.transferred // _SYNC_BYTES != self._synced:
                    self._synced = partial.transferred // _SYNC_BYTES
                    await asyncio.to_thread(partial.sync)

    def _usable(self) -> list[str]:
        return [peer for peer in self._peers if peer not in self._liars]

    def _exclude(self, peer: str, why: str) -> None:
        self._liars.add(peer)
        self._problems[peer] = why

    def _unavailable(self) -> SnapshotUnavailableError:
        problems = "; ".join(f"{peer}: {why}" for peer, why in self._problems.items())
        return SnapshotUnavailableError(f"no peer can give a snapshot: {problems or 'none asked'}")


def _adjacent(missing: deque[KeyRange]) -> list[KeyRange]:
    """The first missing range and those right behind it, up to _REQUEST_BYTES."""
    wanted = [missing[0]]
    for part in islice(missing, 1, None):
        if part.offset != wanted[-1].end or part.end - wanted[0].offset > _REQUEST_BYTES:
            break
        wanted.append(part)
    return wanted


@asynccontextmanager
async def _get(
    session: aiohttp.ClientSession, url: str, status: int, headers: dict[str, str] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Ask a peer. Every failure of it or of the network becomes _PeerError."""
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == 404:
                raise _NotThereError("it has no such snapshot")
            if response.status != status:
                raise _PeerError(f"it answers {response.status}")
            yield response
    except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise _PeerError(repr(error)) from error
