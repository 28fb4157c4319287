"""A coordinator inside one process, for trying replicad out and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from replicad.coordination.port import View
from replicad.core.cluster import ClusterConfig, ClusterState, Member
from replicad.core.messages import Point
from replicad.errors import CoordinationError, NodeNameTakenError
from replicad.storage.durable import replace_file


@dataclass(slots=True)
class MemoryStore:
    """What ZooKeeper would hold, shared by the coordinators of one process.

    Attributes:
        config, state, version: As in View.
        members: The registrations with the coordinators (sessions) that own them.
        sessions: The started coordinators, which are told of every change.
        recoveries: What `recover` noted; not kept beyond the process.
        published: What `note_published` noted; not kept beyond the process either.
        path: Where config, state and version outlive the process, as they would in ZooKeeper;
            None keeps them in memory only.
    """

    config: ClusterConfig | None = None
    state: ClusterState | None = None
    version: int = -1
    members: dict[Member, MemoryCoordinator] = field(default_factory=dict)
    sessions: list[MemoryCoordinator] = field(default_factory=list)
    recoveries: list[bytes] = field(default_factory=list)
    published: Point | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        """Read what an earlier process kept."""
        if self.path is None or not self.path.exists():
            return
        kept = orjson.loads(self.path.read_bytes())
        self.config = ClusterConfig.from_json(orjson.dumps(kept["config"]))
        self.state = ClusterState.from_json(orjson.dumps(kept["state"]))
        self.version = kept["version"]

    def keep(self, config: ClusterConfig, state: ClusterState, version: int) -> None:
        """Replace config and state, durably if there is a path, and tell every session."""
        if self.path is not None:
            fields = {
                "config": orjson.Fragment(config.to_json()),
                "state": orjson.Fragment(state.to_json()),
                "version": version,
            }
            replace_file(self.path, orjson.dumps(fields))
        self.config, self.state, self.version = config, state, version
        self.changed()

    def view(self) -> View:
        """Everything as it is now."""
        members = sorted(self.members, key=lambda member: (member.node, member.incarnation))
        return View(self.config, self.state, self.version, tuple(members))

    def changed(self) -> None:
        """Let every session deliver a new view soon."""
        for session in self.sessions:
            session.deliver_soon()


class MemoryCoordinator:
    """The port `Coordinator`; one object is one session."""

    def __init__(self, store: MemoryStore) -> None:
        """Make a session that is not started yet."""
        self._store = store
        self._on_view: Callable[[View], None] | None = None
        self._delivery: asyncio.Handle | None = None

    async def start(self, on_view: Callable[[View], None]) -> None:
        """See `Coordinator.start`."""
        self._on_view = on_view
        self._store.sessions.append(self)
        self.deliver_soon()

    def deliver_soon(self) -> None:
        """Deliver one view soon, however many changes come before it."""
        if self._delivery is None:
            self._delivery = asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        if self._on_view is not None:
            self._on_view(self._store.view())

    async def register(self, describe: Callable[[], Member]) -> None:
        """See `Coordinator.register`."""
        self._require_session()
        member = describe()
        namesakes = [other for other in self._store.members if other.node == member.node]
        for other in namesakes:
            if other.disk_id != member.disk_id:
                raise NodeNameTakenError(
                    f"{member.node} is registered by a living process with another disk"
                )
        for other in namesakes:
            del self._store.members[other]
        self._store.members[member] = self
        self._store.changed()

    async def read(self) -> View:
        """See `Coordinator.read`."""
        self._require_session()
        return self._store.view()

    async def propose(self, state: ClusterState, expected_version: int) -> int | None:
        """See `Coordinator.propose`."""
        self._require_session()
        if self._store.config is None or self._store.version != expected_version:
            return None
        self._store.keep(self._store.config, state, expected_version + 1)
        return expected_version + 1

    async def create_cluster(self, config: ClusterConfig, state: ClusterState) -> bool:
        """See `Coordinator.create_cluster`."""
        self._require_session()
        if self._store.state is not None:
            return False
        self._store.keep(config, state, 0)
        return True

    async def recover(self, state: ClusterState, expected_version: int, note: bytes) -> bool:
        """See `Coordinator.recover`."""
        if await self.propose(state, expected_version) is None:
            return False
        self._store.recoveries.append(note)
        return True

    async def recoveries(self) -> list[bytes]:
        """See `Coordinator.recoveries`."""
        self._require_session()
        return list(self._store.recoveries)

    async def published(self) -> Point | None:
        """See `Coordinator.published`."""
        self._require_session()
        return self._store.published

    async def note_published(self, point: Point, state_version: int) -> bool:
        """See `Coordinator.note_published`."""
        self._require_session()
        if self._store.state is None or self._store.version != state_version:
            return False
        self._store.published = point
        return True

    async def stop(self) -> None:
        """See `Coordinator.stop`."""
        self.crash()

    def crash(self) -> None:
        """End the session at once. Its members vanish, as after a session timeout of zero."""
        if self._on_view is None:
            return
        self._on_view = None
        self._store.sessions.remove(self)
        owned = [member for member, session in self._store.members.items() if session is self]
        for member in owned:
            del self._store.members[member]
        self._store.changed()

    def _require_session(self) -> None:
        if self._on_view is None:
            raise CoordinationError("this coordinator is not started, or was stopped")
