"""Which changes are published, and in what order; on RabbitMQ it is tried in tests/integration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from replicad.broker.change_frames import routing_key_of
from replicad.broker.port import Published
from replicad.broker.rabbitmq_changes import Publisher, publish_wanted
from replicad.core.feed import LoggedChange
from tests.unit.broker.contract import CHANGE

KEYS = [f"c{number}.{operation}" for number in range(3) for operation in ("insert", "update")]
QUEUES = st.lists(st.sets(st.sampled_from(KEYS)), max_size=3)


class Exchange(Publisher):
    """Leads to queues that are bound to some keys.

    Attributes:
        queues: What each one was given, by its keys.
        asked: How many changes asked.
    """

    def __init__(self, bound: Sequence[set[str]], before_asking: Callable[[], None]) -> None:
        self.queues: list[tuple[set[str], list[LoggedChange]]] = [(keys, []) for keys in bound]
        self.asked = 0
        self._before_asking = before_asking

    async def ask(self, changes: dict[str, LoggedChange]) -> dict[str, bool]:
        self._before_asking()
        self.asked += len(changes)
        return {key: self._route(change) for key, change in changes.items()}

    async def give(self, changes: Sequence[LoggedChange]) -> None:
        for change in changes:
            assert self._route(change)

    def _route(self, change: LoggedChange) -> bool:
        takers = [taken for keys, taken in self.queues if routing_key_of(change) in keys]
        for taken in takers:
            taken.append(change)
        return bool(takers)


def change_of(index: int, key: str) -> LoggedChange:
    collection, _, operation = key.partition(".")
    return replace(CHANGE, index=index, collection=collection, operation=operation)


@given(st.lists(st.sampled_from(KEYS), max_size=60), QUEUES)
async def test_each_queue_gets_all_that_it_wants_in_order(
    keys: list[str], bound: list[set[str]]
) -> None:
    changes = [change_of(index, key) for index, key in enumerate(keys)]
    exchange = Exchange(bound, lambda: None)
    published, unwanted = await publish_wanted(exchange, changes)
    for wanted, taken in exchange.queues:
        assert taken == [change for change in changes if routing_key_of(change) in wanted]
    assert exchange.asked == len(set(keys))
    in_vain = set(keys).difference(*bound)
    assert published == len(in_vain) + sum(key not in in_vain for key in keys)
    assert unwanted == in_vain


@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=60), st.integers(0, 6))
async def test_a_queue_bound_meanwhile_gets_its_keys_from_somewhere_on(
    keys: list[str], bound_before: int
) -> None:
    """Of each key all or nothing, and in order, whichever question it is bound before."""
    changes = [change_of(index, key) for index, key in enumerate(keys)]
    taken: list[LoggedChange] = []
    asked = 0

    def bind() -> None:
        nonlocal asked
        if asked == bound_before:
            exchange.queues.append((set(KEYS), taken))
        asked += 1

    exchange = Exchange([], bind)
    await publish_wanted(exchange, changes)
    got = {routing_key_of(change) for change in taken}
    assert taken == [change for change in changes if routing_key_of(change) in got]


async def test_nothing_to_publish_is_published_at_once() -> None:
    exchange = Exchange([], lambda: None)
    assert await publish_wanted(exchange, []) == Published(0, frozenset())
    assert exchange.asked == 0
