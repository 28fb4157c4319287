"""What every adapter of the port `Coordinator` must do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from replicad.coordination.port import Coordinator, View
from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member
from replicad.core.messages import Point
from replicad.errors import NodeNameTakenError
from tests.support.waiting import eventually

CONFIG = ClusterConfig(cluster_id="c1", replicas=("n1", "n2", "n3"), min_in_sync=2)
FOUNDED = ClusterState(
    epoch=0,
    leader=None,
    incarnation=None,
    url=None,
    isr=(Disk("n1", "d1"), Disk("n2", "d2"), Disk("n3", "d3")),
    nonce="founded",
)
ELECTED = replace(FOUNDED, epoch=1, leader="n1", incarnation="i1", url="http://n1", nonce="elected")
MEMBER = Member(
    node="n1",
    incarnation="i1",
    url="http://n1",
    disk_id="d1",
    last_index=7,
    last_epoch=3,
    last_digest="07" * 32,
    epoch=4,
    cluster_id="c1",
)
OTHER = replace(MEMBER, node="n2", incarnation="i2", url="http://n2", disk_id="d2")
EMPTY = View(config=None, state=None, version=-1, members=())


class Session:
    """One started coordinator and all views that it delivered."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.views: list[View] = []

    async def start(self) -> None:
        await self.coordinator.start(self.views.append)
        await eventually(lambda: bool(self.views))

    @property
    def view(self) -> View:
        return self.views[-1]

    async def sees(self, *members: Member) -> None:
        await eventually(lambda: self.view.members == members)


class NewSession(Protocol):
    def __call__(self) -> Awaitable[Session]: ...


async def opened(make: Callable[[], Coordinator], sessions: list[Session]) -> Session:
    """Start a coordinator and keep it in `sessions`, to be stopped when the test ends."""
    session = Session(make())
    sessions.append(session)
    await session.start()
    return session


class CoordinatorContract:
    """Subclasses provide the fixture `new_session`; all sessions of a test share one cluster."""

    async def test_nothing_is_there_before_the_first_start(self, new_session: NewSession) -> None:
        session = await new_session()
        assert session.view == EMPTY
        assert await session.coordinator.read() == EMPTY
        assert await session.coordinator.propose(ELECTED, -1) is None
        assert await session.coordinator.propose(ELECTED, 0) is None
        assert await session.coordinator.read() == EMPTY

    async def test_cluster_is_created_once(self, new_session: NewSession) -> None:
        one, two = [await new_session() for _ in range(2)]
        assert await one.coordinator.create_cluster(CONFIG, FOUNDED)
        other = replace(CONFIG, cluster_id="c2")
        assert not await two.coordinator.create_cluster(other, FOUNDED)
        view = View(CONFIG, FOUNDED, 0, ())
        assert await two.coordinator.read() == view
        await eventually(lambda: one.view == two.view == view)

    async def test_of_two_that_create_one_wins(self, new_session: NewSession) -> None:
        sessions = [await new_session() for _ in range(2)]
        created = await asyncio.gather(
            *(session.coordinator.create_cluster(CONFIG, FOUNDED) for session in sessions)
        )
        assert sorted(created) == [False, True]

    async def test_proposal_at_the_current_version_is_seen_by_all(
        self, new_session: NewSession
    ) -> None:
        one, two = [await new_session() for _ in range(2)]
        await one.coordinator.create_cluster(CONFIG, FOUNDED)
        await one.coordinator.read()
        assert await one.coordinator.propose(ELECTED, 0) == 1
        await eventually(lambda: one.view == two.view == View(CONFIG, ELECTED, 1, ()))

    @pytest.mark.parametrize("version", [-1, 0, 2])
    async def test_proposal_at_another_version_changes_nothing(
        self, new_session: NewSession, version: int
    ) -> None:
        session = await new_session()
        await session.coordinator.create_cluster(CONFIG, FOUNDED)
        await session.coordinator.read()
        assert await session.coordinator.propose(ELECTED, 0) == 1
        assert await session.coordinator.propose(FOUNDED, version) is None
        assert (await session.coordinator.read()).state == ELECTED

    async def test_of_two_proposals_at_one_version_one_wins(self, new_session: NewSession) -> None:
        sessions = [await new_session() for _ in range(3)]
        await sessions[0].coordinator.create_cluster(CONFIG, FOUNDED)
        for session in sessions:
            await session.coordinator.read()
        versions = await asyncio.gather(
            *(
                session.coordinator.propose(replace(ELECTED, nonce=str(number)), 0)
                for number, session in enumerate(sessions)
            )
        )
        assert sorted(versions, key=str) == [1, None, None]
        winner = str(versions.index(1))
        await eventually(
            lambda: all(s.view.state is not None and s.view.state.nonce == winner for s in sessions)
        )

    async def test_versions_delivered_only_grow(self, new_session: NewSession) -> None:
        one, two = [await new_session() for _ in range(2)]
        await one.coordinator.create_cluster(CONFIG, FOUNDED)
        await one.coordinator.read()
        for version in range(30):
            nonce = str(version)
            assert await one.coordinator.propose(replace(ELECTED, nonce=nonce), version) is not None
        await eventually(lambda: one.view.version == two.view.version == 30)
        for session in (one, two):
            versions = [view.version for view in session.views]
            assert versions == sorted(versions)

    async def test_a_recovery_changes_the_state_and_is_kept(self, new_session: NewSession) -> None:
        one, two = [await new_session() for _ in range(2)]
        await one.coordinator.create_cluster(CONFIG, FOUNDED)
        await one.coordinator.read()
        assert await one.coordinator.recoveries() == []
        assert await one.coordinator.recover(ELECTED, 0, b"first")
        second = replace(ELECTED, epoch=12, nonce="second")
        assert await one.coordinator.recover(second, 1, b"second")
        assert await two.coordinator.recoveries() == [b"first", b"second"]
        await eventually(lambda: one.view == two.view == View(CONFIG, second, 2, ()))

    @pytest.mark.parametrize("version", [-1, 0, 2])
    async def test_a_recovery_at_another_version_does_nothing(
        self, new_session: NewSession, version: int
    ) -> None:
        session = await new_session()
        await session.coordinator.create_cluster(CONFIG, FOUNDED)
        await session.coordinator.read()
        assert await session.coordinator.propose(ELECTED, 0) == 1
        assert not await session.coordinator.recover(FOUNDED, version, b"note")
        assert (await session.coordinator.read()).state == ELECTED
        assert await session.coordinator.recoveries() == []

    async def test_members_come_and_go(self, new_session: NewSession) -> None:
        one, two, watcher = [await new_session() for _ in range(3)]
        await two.coordinator.register(lambda: OTHER)
        await watcher.sees(OTHER)
        await one.coordinator.register(lambda: MEMBER)
        await watcher.sees(MEMBER, OTHER)
        await two.coordinator.stop()
        await watcher.sees(MEMBER)
        await one.coordinator.stop()
        await watcher.sees()

    async def test_registration_can_be_brought_up_to_date(self, new_session: NewSession) -> None:
        one, watcher = [await new_session() for _ in range(2)]
        await one.coordinator.register(lambda: MEMBER)
        await watcher.sees(MEMBER)
        newer = replace(MEMBER, last_index=8)
        await one.coordinator.register(lambda: newer)
        await watcher.sees(newer)

    async def test_dead_predecessor_is_superseded(self, new_session: NewSession) -> None:
        predecessor, successor, watcher = [await new_session() for _ in range(3)]
        await predecessor.coordinator.register(lambda: MEMBER)
        restarted = replace(MEMBER, incarnation="i9")
        await successor.coordinator.register(lambda: restarted)
        await watcher.sees(restarted)
        await predecessor.coordinator.stop()
        assert (await watcher.coordinator.read()).members == (restarted,)

    async def test_name_of_a_living_node_is_refused(self, new_session: NewSession) -> None:
        living, intruder = [await new_session() for _ in range(2)]
        await living.coordinator.register(lambda: MEMBER)
        with pytest.raises(NodeNameTakenError, match="n1"):
            await intruder.coordinator.register(
                lambda: replace(MEMBER, incarnation="i9", disk_id="other", url="http://other")
            )
        assert (await living.coordinator.read()).members == (MEMBER,)

    async def test_name_is_free_again_after_a_stop(self, new_session: NewSession) -> None:
        one, two = [await new_session() for _ in range(2)]
        await one.coordinator.register(lambda: MEMBER)
        await one.coordinator.stop()
        wiped = replace(MEMBER, incarnation="i9", disk_id="other")
        await two.coordinator.register(lambda: wiped)
        await two.sees(wiped)

    async def test_where_changes_were_published_to_is_kept(self, new_session: NewSession) -> None:
        one, two = [await new_session() for _ in range(2)]
        assert await one.coordinator.published() is None
        assert not await one.coordinator.note_published(Point(7, b"7" * 32), -1)
        await one.coordinator.create_cluster(CONFIG, FOUNDED)
        assert await one.coordinator.published() is None
        assert await one.coordinator.note_published(Point(7, b"7" * 32), 0)
        assert await two.coordinator.published() == Point(7, b"7" * 32)

    async def test_only_who_knows_the_state_says_what_was_published(
        self, new_session: NewSession
    ) -> None:
        """A leader that was replaced cannot take its successor back."""
        one, two = [await new_session() for _ in range(2)]
        await one.coordinator.create_cluster(CONFIG, FOUNDED)
        assert await one.coordinator.published() is None
        await one.coordinator.read()
        assert await one.coordinator.propose(ELECTED, 0) == 1
        assert await one.coordinator.note_published(Point(7, b"7" * 32), 1)
        assert not await two.coordinator.note_published(Point(5, b"5" * 32), 0)
        assert not await two.coordinator.note_published(Point(5, b"5" * 32), -1)
        assert await two.coordinator.published() == Point(7, b"7" * 32)
