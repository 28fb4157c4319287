from __future__ import annotations

from collections import Counter

import pytest

from api_gateway.cluster.watch import ClusterWatch, Source
from api_gateway.reading import spread as module
from api_gateway.reading.spread import Spread
from replicad.coordination.port import View
from replicad.core.cluster import ClusterConfig, ClusterState, Disk
from tests.unit.api_gateway.cluster.test_watch import member

NAMES = ("n1", "n2", "n3", "n4", "n5")


def spread_over(*registered: str, isr: tuple[str, ...] = NAMES) -> tuple[Spread, ClusterWatch]:
    """All five were seen once, n1 leads, and now `registered` are there."""
    disks = tuple(Disk(name, "disk") for name in isr)
    state = ClusterState(1, "n1", "i-n1", "http://n1", disks, "")
    config = ClusterConfig("c1", NAMES, 3)
    watch = ClusterWatch()
    watch.on_view(View(config, state, 1, tuple(map(member, NAMES))))
    watch.on_view(View(config, state, 2, tuple(map(member, registered))))
    return Spread(watch), watch


def names(spread: Spread) -> list[str]:
    return [source.name for source in spread.sources(0)]


async def test_nobody_is_known() -> None:
    assert Spread(ClusterWatch()).sources(0) == []


async def test_a_source_says_what_it_must_show() -> None:
    spread, _ = spread_over("n2")
    assert spread.sources(7)[0] == Source("n2", "http://n2", 7)


async def test_the_likeliest_come_first() -> None:
    spread, _ = spread_over("n1", "n2", "n3", isr=("n1", "n2", "n4"))
    for _ in range(5):
        order = names(spread)
        assert order[:3] == ["n2", "n1", "n3"]  # In sync, in sync and leading, not in sync.
        assert order[3:] == ["n4", "n5"]  # Not registered.


async def test_equals_take_turns() -> None:
    spread, _ = spread_over(*NAMES)
    first = Counter(names(spread)[0] for _ in range(100))
    assert first.keys() == {"n2", "n3", "n4", "n5"}
    assert min(first.values()) >= 20


async def test_who_did_not_answer_comes_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    spread, _ = spread_over(*NAMES)
    spread.avoid(spread.sources(0)[0])
    avoided = names(spread)[-1]
    assert avoided != "n1"
    monkeypatch.setattr(module, "_AVOIDED_S", 0.0)
    spread.avoid(Source(avoided, "", 0))
    assert names(spread)[-1] == "n1"
