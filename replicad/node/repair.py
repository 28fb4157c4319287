"""Makes a suspect disk good again, from other replicas, before the replica takes part (rule 8).

ask the coordinator whether that is allowed -> new disk id -> verify the whole log; for each
damage fetch the entries from a peer, or cut -> trust the disk

The replica then registers under the new disk id; it is counted again once a leader has brought it
up to date and admitted it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import orjson
import structlog

from replicad.coordination.port import Coordinator
from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member
from replicad.core.effects import Level
from replicad.core.entry import genesis_digest
from replicad.core.repair import Verdict, judge_repair
from replicad.errors import (
    CoordinationError,
    DamagedDiskError,
    MalformedEntryError,
    ProtocolViolationError,
    ReplicaUnavailableError,
)
from replicad.node.synclog import SyncLog
from replicad.storage.datadir import DataDirectory, Trouble
from replicad.storage.durable import disk_errors
from replicad.storage.quarantine import Damage, LogRepair, begins_after

_POLL_S: Final = 0.5
_ROUNDS: Final = 10
_PAUSE_S: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=10.0)
_ALIVE_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
_BLOCK_BYTES: Final = 1024 * 1024

_T = TypeVar("_T")


class DiskRepair:
    """One repair of one suspect data directory. May be cancelled, and begun again at any time."""

    def __init__(
        self,
        directory: DataDirectory,
        coordinator: Coordinator,
        sync_log: SyncLog,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Prepare.

        Args:
            directory: The suspect one; nothing else may have opened its log.
            coordinator: Started by the caller.
            sync_log: For the operator.
            log: The daemon's log.
        """
        self._directory = directory
        self._coordinator = coordinator
        self._sync_log = sync_log
        self._log = log

    async def run(self) -> None:
        """Repair it; the log can be opened on return.

        Raises:
            DamagedDiskError: It must not be repaired like this; an operator has to decide.
            ForeignClusterError: Its data belong to another cluster.
            DiskFullError, DiskFailedError: The disk does not allow it; to be begun again.
        """
        directory, suspicion = self._directory, self._directory.suspicion
        if suspicion is None:
            raise ProtocolViolationError("a disk that is trusted is not repaired")
        self._report("disk suspect", Level.ERROR, reason=suspicion.reason)
        config, state = await self._allowed()
        genesis = genesis_digest(config.cluster_id)
        if not directory.is_replaced:
            if not directory.disk_id and not begins_after(directory.path, genesis):
                raise DamagedDiskError(
                    f"{suspicion.reason}, and the log in {directory.path} does not begin as one of "
                    f"cluster {config.cluster_id}: it may be another's. Nothing was changed. If it "
                    "is this cluster's, give up what is damaged: replicad disk quarantine"
                )
            directory.replace_disk(config.cluster_id, state.epoch)
        repair = await _in_thread(
            lambda: LogRepair(
                directory.path,
                genesis,
                directory.quarantine,
                only_synced=suspicion.trouble is Trouble.UNSYNCED,
            )
        )
        while (damage := await _in_thread(repair.next_damage)) is not None:
            await self._mend(repair, damage)
        await _in_thread(repair.finish)
        # What a peer gave may be of a later epoch than `state` was.
        directory.persist_epoch(max(state.epoch, repair.last_epoch))
        self._report(
            "disk repaired",
            index=repair.end.index,
            disk_id=directory.disk_id,
            old_disk_id=suspicion.disk_id,
            quarantine=str(directory.quarantine) if repair.set_aside else None,
        )
        directory.trust()

    async def _allowed(self) -> tuple[ClusterConfig, ClusterState]:
        """Return once the disk may be repaired."""
        directory, told = self._directory, ""
        while True:
            try:
                view = await self._coordinator.read()
                disk = Disk(directory.node, directory.disk_id)
                verdict = judge_repair(view, disk, directory.cluster_id)
                why = "no other in-sync replica is registered"
                if verdict is Verdict.REPAIR and view.config and view.state:
                    if await self._is_spared(view.state, view.members):
                        return view.config, view.state
                    why = "no other in-sync replica answers"
            except CoordinationError as error:
                why = str(error)
            if why != told:
                told = why
                self._report("disk repair waits", Level.ERROR, reason=why)
            await asyncio.sleep(_POLL_S)

    async def _is_spared(self, state: ClusterState, members: tuple[Member, ...]) -> bool:
        """Whether the cluster can do without this disk: others in sync run at this moment.

        A registration outlives its process by a session's timeout. When all in-sync replicas end
        together with damaged disks, each still sees the others registered; if all gave up their
        disks, nobody could lead any more.
        """
        node, isr = self._directory.node, state.isr
        if node not in {disk.node for disk in isr}:
            return True
        for member in members:
            counts = member.node != node and Disk(member.node, member.disk_id) in isr
            if counts and await _takes_part(member.url):
                return True
        return False

    async def _mend(self, repair: LogRepair, damage: Damage) -> None:
        peer = await self._fill(repair, damage) if damage.last is not None else None
        if peer is None:
            await _in_thread(repair.cut)
            self._report("damaged log cut", Level.ERROR, index=damage.first, reason=damage.why)
        else:
            self._report("damaged log filled", index=damage.first, last=damage.last, node=peer)

    async def _fill(self, repair: LogRepair, damage: Damage) -> str | None:
        """Get the missing entries from a peer; returns its name, or None if no peer has them."""
        fetched = self._directory.path / "fetched.tmp"
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            for attempt in range(_ROUNDS):
                if attempt:
                    # A peer may only be starting, or not know yet how far the log is committed.
                    await asyncio.sleep(_PAUSE_S)
                for peer in await self._peers():
                    try:
                        await _fetch(session, peer.url, damage, fetched)
                        await _in_thread(lambda: _fill_from(repair, fetched))
                    except (MalformedEntryError, ReplicaUnavailableError) as error:
                        self._log.warning("peer cannot help", peer=peer.node, error=str(error))
                    else:
                        return peer.node
                    finally:
                        fetched.unlink(missing_ok=True)
        return None

    async def _peers(self) -> list[Member]:
        """The other living replicas, those in sync first."""
        try:
            view = await self._coordinator.read()
        except CoordinationError:
            return []
        isr = view.state.isr if view.state else ()
        others = [member for member in view.members if member.node != self._directory.node]
        return sorted(others, key=lambda member: Disk(member.node, member.disk_id) not in isr)

    def _report(self, event: str, level: Level = Level.INFO, **fields: object) -> None:
        """One line in sync.log, and in the daemon's log."""
        self._sync_log.write(level, event, {"node": self._directory.node, **fields})
        getattr(self._log, level.value)(event, **fields)


async def _takes_part(url: str) -> bool:
    """Whether the replica at this address has opened its log, and so holds what it should."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_ALIVE_TIMEOUT) as session,
            session.get(f"{url}/internal/status") as answer,
        ):
            if answer.status != 200:
                return False
            status = orjson.loads(await answer.read())
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
        return False
    return isinstance(status, dict) and status.get("role") in ("leader", "follower")


async def _fetch(session: aiohttp.ClientSession, url: str, damage: Damage, to: Path) -> None:
    """Write what a peer has of the missing entries to a file. It is not verified here."""
    query = {"first": str(damage.first), "last": str(damage.last)}
    try:
        async with session.get(f"{url}/internal/log", params=query) as answer:
            if answer.status != 200:
                raise ReplicaUnavailableError(f"it answered {answer.status}")
            with disk_errors(f"write {to}"), to.open("wb") as file:
                async for block in answer.content.iter_chunked(_BLOCK_BYTES):
                    file.write(block)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ReplicaUnavailableError(str(error) or type(error).__name__) from error


def _fill_from(repair: LogRepair, path: Path) -> None:
    with path.open("rb") as lines:
        repair.fill(lines)


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do slow work on files beside the event loop; when cancelled, not before it is done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
