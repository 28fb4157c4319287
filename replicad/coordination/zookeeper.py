"""ZooKeeper as the coordinator.

    /replicad/<cluster>/config                          replicas, min_in_sync, cluster id
    /replicad/<cluster>/state                           epoch, leader, ISR
    /replicad/<cluster>/members/<node>-<incarnation>    ephemeral: a living process
    /replicad/<cluster>/recoveries/<epoch>              notes of an operator's recoveries
    /replicad/<cluster>/changes                         up to where changes were published

Nothing is cached and nothing is decided here: after every change, and whenever a connection is
back, everything is read again, behind a `sync`, so that a server that lags cannot answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import orjson
import structlog
from kazoo.client import TransactionRequest
from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError
from kazoo.protocol.states import ZnodeStat

from replicad.coordination.port import View
from replicad.coordination.zookeeper_session import REFUSALS, ZooKeeperSession
from replicad.core.cluster import ClusterConfig, ClusterState, Member
from replicad.core.messages import Point
from replicad.errors import CoordinationError, NodeNameTakenError

RETRY_DELAY_S = 0.1
# How much longer than a session's timeout a dead process may look alive.
EXPIRY_MARGIN_S = 1.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_Watch = Callable[[object], None]


class _Registration(NamedTuple):
    path: str
    member: Member
    stat: ZnodeStat


class ZooKeeperCoordinator:
    """The port `Coordinator` on ZooKeeper. The gateway uses it without `register`.

    Attributes:
        failed: Completes with an error that is no trouble with ZooKeeper: a defect, whatever the
            view callback raised, or NodeNameTakenError when after an expired session the name
            turns out to be another process's. The process must not go on. Cancelled by `stop`.
    """

    def __init__(self, hosts: str, cluster: str, session_timeout_s: float = 2.0) -> None:
        """Describe where the cluster's nodes are.

        Args:
            hosts: host:port of ZooKeeper's servers, separated by commas.
            cluster: The cluster's name.
            session_timeout_s: After how long without contact this process counts as dead.
        """
        self._root = f"/replicad/{cluster}"
        self._config = f"{self._root}/config"
        self._state = f"{self._root}/state"
        self._members = f"{self._root}/members"
        self._recoveries = f"{self._root}/recoveries"
        self._changes = f"{self._root}/changes"
        self._session_timeout_s = session_timeout_s
        self._stale = asyncio.Event()
        self._session = ZooKeeperSession(hosts, session_timeout_s, self._stale.set)
        self._version_seen = -1
        self._config_version: int | None = None
        self._describe: Callable[[], Member] | None = None
        self._registered_by: int | None = None
        self._claiming = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self, on_view: Callable[[View], None]) -> None:
        """See `Coordinator.start`."""
        self._on_view = on_view
        await self._session.open()
        try:
            await self._make_paths()
        except CoordinationError:
            await self._session.close()
            raise
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_delivering(), name="zookeeper")
        self._task.add_done_callback(self._surface)

    async def stop(self) -> None:
        """See `Coordinator.stop`. Takes less than 2 s, even if ZooKeeper does not answer."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self.failed.cancel()
        await self._session.close()

    def _surface(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self.failed.set_exception(error)

    async def _keep_delivering(self) -> None:
        self._stale.set()
        reported = ""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._make_paths()  # Or else nobody could watch for members.
                await self._renew_registration()
                view = await self._read(self._session.call_on_change)
            except CoordinationError as error:
                if str(error) != reported:
                    reported = str(error)
                    _log.warning("zookeeper not read", reason=reported)
                self._stale.set()
                await asyncio.sleep(RETRY_DELAY_S)
            else:
                reported = ""
                self._on_view(view)

    async def read(self) -> View:
        """See `Coordinator.read`."""
        return await self._read(None)

    async def _read(self, watch: _Watch | None) -> View:
        zookeeper = self._session.client
        # One round trip: a session's requests are answered in the order they were sent, so what
        # is read is not older than the watch. `exists` also watches for a node yet to come.
        *_, names, config, state = await self._session.answers(
            zookeeper.sync_async(self._root),
            zookeeper.exists_async(self._config, watch),
            zookeeper.exists_async(self._state, watch),
            zookeeper.get_children_async(self._members, watch),
            zookeeper.get_async(self._config),
            zookeeper.get_async(self._state),
        )
        registrations = await self._registrations(names, watch)
        version = -1 if isinstance(state, NoNodeError) else state[1].version
        if version < self._version_seen:
            raise CoordinationError(
                f"{self._state} has version {version} after version {self._version_seen}"
            )
        self._version_seen = version
        self._config_version = None if isinstance(config, NoNodeError) else config[1].version
        members = (registration.member for registration in registrations)
        return View(
            _parsed(ClusterConfig.from_json, self._config, config),
            _parsed(ClusterState.from_json, self._state, state),
            version,
            tuple(sorted(members, key=lambda member: (member.node, member.incarnation))),
        )

    async def _registrations(
        self, names: list[str] | NoNodeError, watch: _Watch | None = None
    ) -> list[_Registration]:
        if isinstance(names, NoNodeError):
            return []
        paths = [f"{self._members}/{name}" for name in names]
        zookeeper = self._session.client
        answers = await self._session.answers(*(zookeeper.get_async(p, watch) for p in paths))
        return [
            _Registration(path, member, answer[1])
            for path, answer in zip(paths, answers, strict=True)
            if (member := _parsed(Member.from_json, path, answer)) is not None
        ]

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        """See `Coordinator.propose`."""
        transaction = self._change(state, expected_version)
        results = None if transaction is None else await self._commit(transaction)
        if results is None:
            return None
        version = int(results[1].version)
        self._version_seen = max(self._version_seen, version)
        return version

    async def recover(self, state: ClusterState, expected_version: int, note: bytes) -> bool:
        """See `Coordinator.recover`."""
        await self._session.answers(self._session.client.ensure_path_async(self._recoveries))
        transaction = self._change(state, expected_version)
        if transaction is None:
            return False
        transaction.create(f"{self._recoveries}/{state.epoch:019d}", note)
        return await self._commit(transaction) is not None

    async def recoveries(self) -> list[bytes]:
        """See `Coordinator.recoveries`."""
        zookeeper = self._session.client
        _, names = await self._session.answers(
            zookeeper.sync_async(self._root), zookeeper.get_children_async(self._recoveries)
        )
        if isinstance(names, NoNodeError):
            return []
        paths = [f"{self._recoveries}/{name}" for name in sorted(names)]
        answers = await self._session.answers(*(zookeeper.get_async(path) for path in paths))
        return [answer[0] for answer in answers if not isinstance(answer, NoNodeError)]

    async def published(self) -> Point | None:
        """See `Coordinator.published`."""
        zookeeper = self._session.client
        _, _, answer = await self._session.answers(
            zookeeper.ensure_path_async(self._changes),
            zookeeper.sync_async(self._changes),
            zookeeper.get_async(self._changes),
        )
        if not isinstance(answer, NoNodeError) and not answer[0]:
            return None  # As it was made.
        return _parsed(_decode_point, self._changes, answer)

    async def note_published(self, point: Point, state_version: int) -> bool:
        """See `Coordinator.note_published`."""
        if state_version < 0:
            return False  # To ZooKeeper it means any version.
        transaction = self._session.client.transaction()
        transaction.check(self._state, state_version)
        data = {"index": point.index, "digest": point.digest.hex()}
        transaction.set_data(self._changes, orjson.dumps(data))
        return await self._commit(transaction) is not None

    def _change(self, state: ClusterState, expected_version: int) -> TransactionRequest | None:
        """A transaction that replaces this version of the state; None if that cannot be."""
        # To ZooKeeper a negative version means any version.
        if self._config_version is None or expected_version < 0:
            return None
        transaction = self._session.client.transaction()
        transaction.check(self._config, self._config_version)
        transaction.set_data(self._state, state.to_json(), expected_version)
        return transaction

    async def create_cluster(self, config: ClusterConfig, state: ClusterState) -> bool:
        """See `Coordinator.create_cluster`."""
        transaction = self._session.client.transaction()
        transaction.create(self._config, config.to_json())
        transaction.create(self._state, state.to_json())
        return await self._commit(transaction) is not None

    async def _commit(self, transaction: TransactionRequest) -> list[ZnodeStat] | None:
        """Commit; None when a version differs, or a node is missing or there already."""
        (results,) = await self._session.answers(transaction.commit_async())
        # A refused transaction does not raise: each operation's result may be an exception.
        errors = [result for result in results if isinstance(result, KazooException)]
        if any(isinstance(error, REFUSALS) for error in errors):
            return None
        if errors:
            raise CoordinationError(f"the transaction failed: {errors}")
        return list(results)

    async def register(self, describe: Callable[[], Member]) -> None:
        """See `Coordinator.register`.

        A namesake with another disk may be dead already, and its session not yet expired: it is
        waited for as long as that can last.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._session_timeout_s + EXPIRY_MARGIN_S
        while (rival := await self._claim(describe())) is not None:
            if clock() > deadline:
                raise _taken(rival)
            await asyncio.sleep(RETRY_DELAY_S)
        self._describe = describe

    async def _renew_registration(self) -> None:
        if self._describe is None or self._registered_by == self._session.session_id:
            return
        member = self._describe()
        rival = await self._claim(member)
        if rival is not None:
            raise _taken(rival)
        _log.info("registered again", node=member.node)

    async def _claim(self, member: Member) -> Member | None:
        """Register, unless another disk's process holds the name: then return that."""
        path = f"{self._members}/{member.node}-{member.incarnation}"
        async with self._claiming:
            for other in await self._namesakes(member):
                if other.member.disk_id != member.disk_id:
                    return other.member
            # Taken before the node is created: should the session change meanwhile, the node is
            # only claimed once more.
            session_id = self._session.session_id
            await self._create(path, member, session_id)
            namesakes = await self._namesakes(member)
            # Absent when somebody deleted it this moment: then everybody else is older.
            own = next((n.stat.czxid for n in namesakes if n.path == path), None)
            for other in namesakes:
                if other.path == path or (own is not None and other.stat.czxid > own):
                    continue
                if other.member.disk_id != member.disk_id:
                    await self._session.answers(self._session.client.delete_async(path))
                    return other.member
                # Its process is dead: two cannot hold the lock of one data directory.
                _log.info("registration superseded", path=other.path)
                await self._session.answers(self._session.client.delete_async(other.path))
            self._registered_by = session_id
            return None

    async def _namesakes(self, member: Member) -> list[_Registration]:
        zookeeper = self._session.client
        _, names = await self._session.answers(
            zookeeper.sync_async(self._members), zookeeper.get_children_async(self._members)
        )
        everyone = await self._registrations(names)
        return [other for other in everyone if other.member.node == member.node]

    async def _create(self, path: str, member: Member, session_id: int | None) -> None:
        zookeeper = self._session.client
        created, existing = await self._session.answers(
            zookeeper.create_async(path, member.to_json(), ephemeral=True),
            zookeeper.exists_async(path),
        )
        if isinstance(created, NoNodeError):
            raise CoordinationError(f"{self._members} is gone")
        if not isinstance(created, NodeExistsError):
            return
        if existing is not None and existing.ephemeralOwner == session_id:
            await self._session.answers(zookeeper.set_async(path, member.to_json()))
            return
        # It belongs to a session of ours that has ended, and would vanish with that.
        transaction = zookeeper.transaction()
        transaction.delete(path)
        transaction.create(path, member.to_json(), ephemeral=True)
        if await self._commit(transaction) is None:
            raise CoordinationError(f"{path} changed while it was replaced")

    async def _make_paths(self) -> None:
        await self._session.answers(self._session.client.ensure_path_async(self._members))


def _parsed(
    parse: Callable[[bytes], _T], path: str, answer: tuple[bytes, ZnodeStat] | NoNodeError
) -> _T | None:
    if isinstance(answer, NoNodeError):
        return None
    try:
        return parse(answer[0])
    except (ValueError, TypeError, KeyError) as error:
        raise CoordinationError(f"{path} cannot be understood: {error}") from error


def _decode_point(data: bytes) -> Point:
    fields = orjson.loads(data)
    return Point(int(fields["index"]), bytes.fromhex(fields["digest"]))


def _taken(rival: Member) -> NodeNameTakenError:
    return NodeNameTakenError(
        f"{rival.node} is registered by a living process with another disk ({rival.url})"
    )
