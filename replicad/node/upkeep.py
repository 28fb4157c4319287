"""What keeps one replica's log from growing for ever, and brings it what others have given up.

It builds snapshots and drops what they cover, when the operator has set limits; and it fetches a
snapshot from other replicas when the core asks for one. What may go is decided in
`replicad/core/retention.py`, and what is needed in `replicad/core/follower.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog

from replicad.core.messages import Point
from replicad.core.retention import KEEP_ALL, Retention, may_drop
from replicad.errors import (
    DiskFullError,
    ProtocolViolationError,
    RecordsDamagedError,
    SnapshotDamagedError,
    SnapshotUnavailableError,
    WorkerFailedError,
)
from replicad.node.snapshots import Snapshots
from replicad.node.store import Store
from replicad.storage.logbase import Base
from replicad.storage.snapshot import Header, KeyRange, forget_before

INTERVAL_S: Final = 5.0
# Whatever it was, it is no danger to what is stored, and may go better the next time. Damaged
# records are mended by whoever needs them, and by the scrub.
_PASSING = (
    DiskFullError,
    RecordsDamagedError,
    SnapshotDamagedError,
    SnapshotUnavailableError,
    WorkerFailedError,
)


class Upkeep:
    """Snapshots and retention of one running replica."""

    def __init__(
        self,
        store: Store,
        snapshots: Snapshots,
        cluster_id: str,
        retention: Retention,
        peers: Callable[[], Sequence[str]],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Keep `store` within `retention`; `peers` tells where the other replicas are now."""
        self._store = store
        self._snapshots = snapshots
        self._cluster_id = cluster_id
        self._retention = retention
        self._peers = peers
        self._log = log
        self._busy = asyncio.Lock()
        self._fetched: tuple[Base, Path] | None = None

    async def check_snapshots(self) -> list[int]:
        """Read all snapshots again; see Snapshots.check."""
        async with self._busy:
            return await self._snapshots.check()

    def ranges_of(self, snapshot: int) -> tuple[KeyRange, ...]:
        """What the records as of a snapshot's entry must be.

        Raises:
            SnapshotDamagedError, DiskFailedError: The manifest cannot be read.
        """
        return self._snapshots.files.load(snapshot).ranges

    @property
    def newest_snapshot(self) -> int:
        """The last entry that the newest snapshot covers; 0 if there is none."""
        return self._snapshots.newest

    async def run(self) -> None:
        """Do what is due, now and then, for as long as the replica runs.

        Raises:
            CorruptLogError, DiskFailedError: The replica must not go on.
        """
        while self._retention != KEEP_ALL:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.tend()
            except _PASSING as error:
                self._log.warning("no snapshot built", reason=str(error))

    async def tend(self) -> None:
        """Build a snapshot if one is due, and drop what is covered and exceeds the limits."""
        store = self._store
        async with self._busy:
            try:
                built = await self._snapshots.build_next(
                    self._cluster_id,
                    store.segment_firsts,
                    store.records.applied.index,
                    store.log.digest_at,
                )
            except SnapshotDamagedError as error:
                # What it would begin with is in no segment any more: others have it.
                self._log.warning("snapshot damaged, fetching one", reason=str(error))
                built = (await self._fetch(store.log.base.index)).index
        if built is not None:
            self._log.info("snapshot built", index=built)
        upto = may_drop(
            self._retention,
            store.segment_facts(),
            unix_ms=time.time_ns() // 1_000_000,
            snapshot=self._snapshots.spare,
            in_sync=store.records.applied.index,
        )
        if upto:
            store.drop_before(upto)
            self._log.info("log dropped", upto=upto, base=store.log.base.index)

    async def fetch(self, at_least: int) -> Base | None:
        """Get a snapshot that reaches at least this index; None if nobody could give one.

        Raises:
            DiskFailedError: The replica must not go on.
        """
        try:
            async with self._busy:
                header = await self._fetch(at_least)
                records = await self._snapshots.load(header.index)
        except _PASSING as error:
            self._log.warning("no snapshot fetched", reason=str(error))
            return None
        base = Base(header.point, header.epoch, header.time)
        self._fetched = base, records
        return base

    async def _fetch(self, at_least: int) -> Header:
        fetched = await self._snapshots.fetch(
            self._cluster_id,
            self._peers(),
            self._local_lines,
            at_least=at_least,
        )
        header = fetched.manifest.header
        self._log.info(
            "snapshot fetched",
            index=header.index,
            transferred_bytes=fetched.transferred,
            copied_bytes=fetched.copied,
            resumed_bytes=fetched.resumed,
        )
        return header

    def _local_lines(self, header: Header) -> Iterator[bytes]:
        return self._store.records.snapshot_lines(header.index, forget_before(header.time))

    def install(self, point: Point, committed: int) -> Base:
        """Put the snapshot that was fetched in the place of the log and the records.

        Raises:
            DiskFullError: No room; nothing has happened.
            DiskFailedError: The replica must not go on.
        """
        if self._fetched is None or self._fetched[0].point != point:
            raise ProtocolViolationError(f"no snapshot of entry {point.index} was fetched")
        base, records = self._fetched
        self._fetched = None
        self._store.install(base, committed, records)
        return base
