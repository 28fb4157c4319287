from __future__ import annotations

import asyncio

import pytest

from api_gateway.cluster import watch as watch_module
from api_gateway.cluster.watch import ClusterWatch, Leader
from replicad.coordination.port import View
from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member

CONFIG = ClusterConfig("c1", ("n1", "n2"), 2)


def member(name: str) -> Member:
    return Member(name, f"i-{name}", f"http://{name}", "disk", 0, 0, "", 0, "")


def view(leader: str | None, *members: str, epoch: int = 1) -> View:
    state = ClusterState(
        epoch=epoch,
        leader=leader,
        incarnation=f"i-{leader}" if leader else None,
        url=f"http://{leader}" if leader else None,
        isr=(Disk("n1", "disk"),),
        nonce="",
    )
    return View(CONFIG, state, epoch, tuple(map(member, members)))


def known(watch: ClusterWatch) -> tuple[Leader | None, bool]:
    return watch.leader, watch.leader_is_member


async def test_the_leader_is_whom_the_state_names() -> None:
    watch = ClusterWatch()
    n1 = Leader("n1", "i-n1", "http://n1", 1)
    assert known(watch) == (None, False)
    watch.on_view(View(None, None, -1, ()))
    assert known(watch) == (None, False)
    watch.on_view(view("n1", "n1", "n2"))
    assert known(watch) == (n1, True)
    watch.on_view(view("n1", "n2"))
    assert known(watch) == (n1, False)
    watch.on_view(view(None, "n2"))
    assert known(watch) == (None, False)
    assert watch.urls == {"n1": "http://n1", "n2": "http://n2"}


async def test_a_view_ends_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_DELAY_MIN_S", 60.0)
    monkeypatch.setattr(watch_module, "_DELAY_MAX_S", 60.0)
    watch = ClusterWatch()
    asyncio.get_running_loop().call_soon(watch.on_view, view("n1", "n1"))
    async with asyncio.timeout(2):
        await watch.pause(1, None)


async def test_no_pause_when_somebody_else_leads_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """The view came while the attempt at the former leader was still failing."""
    monkeypatch.setattr(watch_module, "_DELAY_MIN_S", 60.0)
    monkeypatch.setattr(watch_module, "_DELAY_MAX_S", 60.0)
    watch = ClusterWatch()
    watch.on_view(view("n2", "n2", epoch=2))
    async with asyncio.timeout(2):
        await watch.pause(1_000, Leader("n1", "i-n1", "http://n1", 1))
        await watch.pause(1_000, None)


async def test_a_new_leader_is_tried_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_DELAY_MAX_S", 60.0)
    drawn: list[float] = []

    def draw(_shortest: float, longest: float) -> float:
        drawn.append(longest)
        return 0.0

    monkeypatch.setattr("random.uniform", draw)
    watch = ClusterWatch()
    watch.on_view(view("n1", "n1"))
    await watch.pause(1_000, watch.leader)
    monkeypatch.setattr(watch_module, "_NEW_LEADER_S", 0.0)
    await watch.pause(1_000, watch.leader)
    new, known = drawn
    assert new <= 0.05 < known


async def test_a_pause_ends_by_itself() -> None:
    async with asyncio.timeout(2):
        await ClusterWatch().pause(100_000, None)


@pytest.mark.parametrize("successor", [view("n2", "n1", "n2", epoch=2), view("n1", "n1", epoch=2)])
async def test_an_attempt_at_a_past_leader_is_abandoned(successor: View) -> None:
    watch = ClusterWatch()
    watch.on_view(view("n1", "n1"))
    asyncio.get_running_loop().call_soon(watch.on_view, successor)
    async with asyncio.timeout(watch_module.LOST_LEADER_S / 2):
        with pytest.raises(TimeoutError):
            await watch.attempt(Leader("n1", "i-n1", "http://n1", 1), asyncio.Event().wait())


async def test_an_attempt_at_an_unregistered_leader_is_shortened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch_module, "LOST_LEADER_S", 0.01)
    watch = ClusterWatch()
    watch.on_view(view("n1", "n1"))
    asyncio.get_running_loop().call_soon(watch.on_view, view("n1", "n2"))
    async with asyncio.timeout(watch_module.ATTEMPT_S / 2):
        with pytest.raises(TimeoutError):
            await watch.attempt(Leader("n1", "i-n1", "http://n1", 1), asyncio.Event().wait())


async def test_an_attempt_that_succeeds_is_left_alone() -> None:
    watch = ClusterWatch()
    watch.on_view(view("n1", "n1"))

    async def ask() -> str:
        watch.on_view(view("n1", "n1", "n2"))
        await asyncio.sleep(0)
        return "answer"

    assert await watch.attempt(Leader("n1", "i-n1", "http://n1", 1), ask()) == "answer"
    watch.on_view(view("n2", "n2", epoch=2))
