"""The snapshots of a running replica: when one is built, who gets it, how one is got.

    GET /internal/snapshot            the newest snapshot's manifest
    GET /internal/snapshot/{index}    its file; with Range, parts of it

Source: docs/protocol.md, "Snapshots".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from replicad.errors import SnapshotDamagedError
from replicad.node import snapshot_jobs
from replicad.node.snapshot_fetch import Fetched, LocalLines, SnapshotFetch
from replicad.storage.journal import SEGMENT_BYTES
from replicad.storage.snapshot import Manifest
from replicad.storage.snapshot_build import plan_build
from replicad.storage.snapshot_files import SnapshotFiles

_KEPT: Final = 2
# Building rewrites the older snapshot: worth it once the log has grown by this part of it.
_GROWTH: Final = 1 / 4
# A snapshot that somebody has read from so recently is not deleted under his hands.
_IN_USE_S: Final = 60.0


class Snapshots:
    """The snapshots of one data directory, which this process has locked.

    One call of `build_next`, `fetch` or `load` at a time.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the directory, removing what a crash has left.

        Raises:
            DiskFullError, DiskFailedError: The disk does not allow it.
        """
        self._data_dir = data_dir
        self._served: dict[int, float] = {}
        self.files = SnapshotFiles.open(data_dir)

    @property
    def newest(self) -> int:
        """The last entry of the newest snapshot, durable and verified; 0 if there is none."""
        return next(iter(self.files.indexes()), 0)

    @property
    def spare(self) -> int:
        """The last entry of the newest snapshot but one; 0 if there is none.

        What it covers outlives the loss of any single snapshot.
        """
        return next(iter(self.files.indexes()[1:]), 0)

    def routes(self) -> list[web.RouteDef]:
        """What peers may ask for."""
        return [
            web.get("/internal/snapshot", self._get_manifest),
            web.get("/internal/snapshot/{index:[0-9]{1,20}}", self._get_file),
        ]

    async def build_next(
        self,
        cluster_id: str,
        firsts: Sequence[int],
        committed: int,
        digest_at: Callable[[int], bytes],
    ) -> int | None:
        """Build a snapshot if it is time for one; delete those that nobody needs any more.

        Args:
            cluster_id: Whose log.
            firsts: The first entries of all segments of the log, in order.
            committed: The entries up to here are committed.
            digest_at: The log's digest at an index.

        Returns:
            The last entry of the new snapshot, or None.

        Raises:
            SnapshotDamagedError: The older snapshot was damaged, and is gone; or entries are
                missing between it and the log.
            CorruptLogError: A segment is damaged.
            DiskFullError, DiskFailedError, WorkerFailedError: Nothing was built.
        """
        base = self.newest
        grown = int(self._size_of(base) * _GROWTH) // SEGMENT_BYTES
        plan = plan_build(cluster_id, base, firsts, committed, segments_min=max(1, grown))
        if plan is None:
            return None
        try:
            digest = await snapshot_jobs.build(self._data_dir, plan)
        except SnapshotDamagedError:
            await self._delete_if_damaged(base)
            raise
        if digest != digest_at(plan.index):
            self.files.delete(plan.index)
            raise SnapshotDamagedError(f"snapshot {plan.index} was built from another log")
        self.files.prune(_KEPT, self._in_use())
        return plan.index

    async def fetch(
        self,
        cluster_id: str,
        peers: Sequence[str],
        local: LocalLines,
        *,
        at_least: int,
    ) -> Fetched:
        """Get a snapshot from peers, unless there is one; arguments and errors: SnapshotFetch.

        Raises:
            SnapshotDamagedError: The one that there is has no right manifest; it is gone.
        """
        if self.newest >= at_least:
            return Fetched(await self._manifest(self.newest), transferred=0, copied=0, resumed=0)
        fetched = await SnapshotFetch(self.files, cluster_id, peers, local, at_least).run()
        self.files.prune(_KEPT, self._in_use())
        return fetched

    async def load(self, index: int) -> Path:
        """Make the file of a record store, for `Records.replace_with`, from a snapshot.

        Raises:
            SnapshotDamagedError: The snapshot was damaged, and is gone.
            DiskFullError, DiskFailedError, WorkerFailedError: Nothing was loaded.
        """
        try:
            return await snapshot_jobs.load(self._data_dir, index)
        except SnapshotDamagedError:
            self.files.delete(index)
            raise

    async def _manifest(self, index: int) -> Manifest:
        try:
            return await asyncio.to_thread(self.files.load, index)
        except SnapshotDamagedError:
            self.files.delete(index)
            raise

    async def check(self) -> list[int]:
        """Read all snapshots again; deletes those that are damaged, and tells which they were.

        Raises:
            DiskFailedError, WorkerFailedError: They could not be read.
        """
        before = set(self.files.indexes())
        for index in before:
            await self._delete_if_damaged(index)
        return sorted(before - set(self.files.indexes()))

    def _size_of(self, index: int) -> int:
        return self.files.file_of(index).stat().st_size if index else 0

    async def _delete_if_damaged(self, index: int) -> None:
        try:
            await snapshot_jobs.check(self.files.file_of(index), self.files.manifest_of(index))
        except SnapshotDamagedError:
            self.files.delete(index)

    def _in_use(self) -> set[int]:
        now = asyncio.get_running_loop().time()
        return {index for index, at in self._served.items() if now - at < _IN_USE_S}

    async def _get_manifest(self, _request: web.Request) -> web.StreamResponse:
        return self._serve(self.newest, self.files.manifest_of)

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        return self._serve(int(request.match_info["index"]), self.files.file_of)

    def _serve(self, index: int, path_of: Callable[[int], Path]) -> web.StreamResponse:
        if index not in self.files.indexes():
            body = orjson.dumps({"error": "no such snapshot"})
            return web.Response(body=body, status=404, content_type="application/json")
        self._served[index] = asyncio.get_running_loop().time()
        return web.FileResponse(path_of(index))
