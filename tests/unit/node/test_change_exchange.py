"""Changes for other systems, published by real drivers through a broker in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from replicad.broker.memory import MemoryBroker, MemoryExchange
from replicad.broker.port import Published as Answer
from replicad.core.feed import LoggedChange
from replicad.core.messages import Point
from replicad.core.write import DEFINITIONS, Operation
from replicad.errors import BrokerError, CoordinationError, CorruptLogError
from replicad.node import change_exchange as module
from replicad.node.change_exchange import ChangeExchange
from replicad.node.synclog import SyncLog
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.nodes import Driven, Nodes
from tests.support.waiting import eventually

BATCH = batch_of(*(Operation(f"b{n}", b"{}") for n in range(50)), request="batch")


class Published:
    """What other systems were told."""

    def __init__(self) -> None:
        self.changes: list[LoggedChange] = []
        self.counts: list[int] = []
        self.failures = 0

    def take(self, changes: Sequence[LoggedChange]) -> None:
        self.counts.append(len(changes))
        if self.failures:
            self.failures -= 1
            self.changes += changes[: len(changes) // 2]
            raise BrokerError("not confirmed")
        self.changes += changes

    @property
    def keys(self) -> list[str]:
        return [change.key for change in self.changes]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be waited for comes soon."""
    for name in ("_PAUSE_S", "_YIELDED_S_MAX", "_NOTE_INTERVAL_S", "_RETRY_S"):
        monkeypatch.setattr(module, name, 0.005)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
async def exchange(
    one: Driven, published: Published, tmp_path: Path, fast: None
) -> AsyncIterator[ChangeExchange]:
    """Publishes what the one replica commits, once `run` is started."""
    memory = MemoryExchange()
    memory.on_changes = published.take
    broker = MemoryBroker(memory, "n1")
    await broker.start(lambda _: None, lambda _: None)
    sync_log = SyncLog(tmp_path / "told.log", "n1")
    view = one.coordinator._store.view
    yield ChangeExchange(
        one.driver, broker, one.coordinator, view, sync_log, structlog.get_logger("test")
    )
    await broker.stop()
    sync_log.close()


@asynccontextmanager
async def running(exchange: ChangeExchange) -> AsyncIterator[None]:
    task = asyncio.create_task(exchange.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


def noted(one: Driven) -> Point | None:
    return one.coordinator._store.published


def told(tmp_path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (tmp_path / "told.log").read_text().splitlines()]


async def test_every_change_is_published_in_order(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    await one.store_all(write_of("a", b'{"x":1.0e0}'), BATCH)
    async with running(exchange):
        await eventually(lambda: len(published.changes) == 51)
        await one.store_all(
            put_of("a", b"{}", request="r2"),
            delete_of("a", request="r3"),
            write_of("c", b"{}", collection=DEFINITIONS),
        )
        await eventually(lambda: len(published.changes) == 54)
        await eventually(lambda: exchange.behind() == 0)
    first, *batch, update, delete, definition = published.changes
    assert (first.value, first.epoch, first.operation) == (b'{"x":1.0e0}', 1, "insert")
    assert [change.position for change in batch] == list(range(50))
    assert (update.operation, delete.operation, delete.value) == ("update", "delete", None)
    assert (definition.collection, definition.key) == (DEFINITIONS, "c")


async def test_what_is_not_confirmed_is_published_again(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    published.failures = 2
    await one.store_all(write_of("a"), write_of("b"), write_of("c"))
    async with running(exchange):
        await eventually(lambda: published.keys[-3:] == ["a", "b", "c"])
    assert len(published.keys) > 3


async def test_after_a_failure_it_goes_on_with_few(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    """Who gets them while another one cannot is not flooded with the same again and again."""
    published.failures = 3
    await one.store_all(*(write_of(f"a{n}") for n in range(300)))
    async with running(exchange):
        await eventually(lambda: published.keys[-1:] == ["a299"])
    assert published.counts == [32, 32, 32, 32, 64, 32, 172]


async def test_of_what_nobody_wants_a_few_ask(
    exchange: ChangeExchange, one: Driven, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what is committed after they were asked, asks again."""
    works = MemoryBroker.publish

    async def nobody_listens(broker: MemoryBroker, changes: Sequence[LoggedChange]) -> Answer:
        answer = await works(broker, changes)
        if not published.counts[1:]:
            await one.store_all(write_of("meanwhile"))
        return answer._replace(unwanted=frozenset({"forms.insert"}))

    monkeypatch.setattr(MemoryBroker, "publish", nobody_listens)
    await one.store_all(*(write_of(f"a{n}") for n in range(100)), put_of("a0", b"{}", request="r"))
    async with running(exchange):
        await eventually(lambda: published.keys[-1:] == ["meanwhile"])
    assert published.keys == [*(f"a{n}" for n in range(32)), "a0", "meanwhile"]
    assert published.counts == [32, 1, 1]


async def test_what_went_to_the_broker_is_counted(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    await one.store_all(write_of("a"), BATCH)
    async with running(exchange):
        await eventually(lambda: len(published.changes) == 51)
    registry = one.driver.metrics.registry
    assert registry.get_sample_value("replicad_changes_published_total") == 51


async def test_where_it_got_to_is_noted(exchange: ChangeExchange, one: Driven) -> None:
    async with running(exchange):
        (done,) = await one.store_all(write_of("a"))
        await eventually(lambda: noted(one) == Point(done.index, done.digest))


async def test_it_goes_on_where_the_leader_before_got_to(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    _, b, _ = await one.store_all(write_of("a"), write_of("b"), write_of("c"))
    one.coordinator._store.published = Point(b.index, b.digest)
    async with running(exchange):
        await eventually(lambda: published.keys == ["c"])


async def test_it_waits_for_what_the_leader_before_has_committed(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    """The new leader learns of a commit only with the entry that opens its epoch."""
    last = one.store.records.applied.index
    one.coordinator._store.published = Point(last + 1, b"?" * 32)
    async with running(exchange):
        await eventually(lambda: one.driver.applied._waited_for is not None)
        assert published.keys == []
        await one.store_all(write_of("a"))
        await eventually(lambda: published.keys == ["a"])


async def test_a_log_that_lost_published_entries_is_published_anew(
    exchange: ChangeExchange, one: Driven, published: Published, tmp_path: Path
) -> None:
    _, b = await one.store_all(write_of("a"), write_of("b"))
    one.coordinator._store.published = Point(b.index, b"?" * 32)
    async with running(exchange):
        await eventually(lambda: published.keys == ["a", "b"])
    assert told(tmp_path) == ["published changes are not in the log, publishing all of it"]


async def test_what_the_log_dropped_unpublished_is_told(
    exchange: ChangeExchange, one: Driven, published: Published, tmp_path: Path
) -> None:
    _, b, _ = await one.store_all(write_of("a"), write_of("b"), write_of("c"))
    one.store.log.rebase(b.index)
    async with running(exchange):
        await eventually(lambda: published.keys == ["c"])
    line = json.loads((tmp_path / "told.log").read_text())
    assert (line["level"], line["first"], line["last"]) == ("error", 1, b.index)


async def test_a_stall_of_the_broker_holds_up_no_write(
    exchange: ChangeExchange, one: Driven, published: Published
) -> None:
    published.failures = 1_000_000
    async with running(exchange):
        await one.store_all(write_of("a"), write_of("b"))
        await eventually(lambda: published.failures < 999_990)
        behind = exchange.behind()
        assert behind >= 2
        await one.store_all(write_of("c"))
        assert exchange.behind() == behind + 1
        published.failures = 0
        await eventually(lambda: published.keys[-3:] == ["a", "b", "c"])
        await eventually(lambda: exchange.behind() == 0)


async def test_it_goes_on_without_the_coordinator(
    exchange: ChangeExchange, one: Driven, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bool:
        raise CoordinationError("away")

    async with running(exchange):
        await one.store_all(write_of("a"))
        await eventually(lambda: noted(one) is not None)
        monkeypatch.setattr(one.coordinator, "note_published", fail)
        before = noted(one)
        await one.store_all(write_of("b"))
        await eventually(lambda: published.keys == ["a", "b"])
        assert noted(one) == before
        monkeypatch.undo()


async def test_it_begins_once_the_coordinator_answers(
    exchange: ChangeExchange, one: Driven, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = one.coordinator.published
    failures = [CoordinationError("away")] * 3

    async def fail_first() -> Point | None:
        if failures:
            raise failures.pop()
        return await answers()

    monkeypatch.setattr(one.coordinator, "published", fail_first)
    await one.store_all(write_of("a"))
    async with running(exchange):
        await eventually(lambda: published.keys == ["a"])


async def test_a_damaged_log_ends_the_replica(
    exchange: ChangeExchange, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(first: int, count: int) -> bytes:
        raise CorruptLogError("damaged")

    monkeypatch.setattr(one.store, "read", fail)
    await exchange.run()  # It ends with the replica.
    assert isinstance(one.failures[0], CorruptLogError)


async def test_a_failover_loses_no_change(
    tmp_path: Path, published: Published, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Nodes.open(tmp_path, "n1", "n2", "n3") as nodes:
        nodes._exchange.on_changes = published.take
        await nodes.start_cluster(2)
        await nodes.write(*(write_of(f"a{n}") for n in range(20)))
        leader = (await nodes.leader()).status().leader
        assert leader is not None
        await eventually(lambda: bool(published.keys))
        await nodes.crash(leader)
        await nodes.write(*(write_of(f"b{n}") for n in range(20)))
        await eventually(lambda: "b19" in published.keys)
    once = list(dict.fromkeys((c.index, c.position, c.key) for c in published.changes))
    assert once == sorted(once)
    assert {key for *_, key in once} == {f"{prefix}{n}" for prefix in "ab" for n in range(20)}


async def test_followers_publish_nothing(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishers = set[str]()
    works = MemoryBroker.publish

    async def note(broker: MemoryBroker, changes: Sequence[LoggedChange]) -> Answer:
        publishers.add(broker.node)
        return await works(broker, changes)

    monkeypatch.setattr(MemoryBroker, "publish", note)
    async with Nodes.open(tmp_path, "n1", "n2", "n3") as nodes:
        await nodes.start_cluster(2)
        await nodes.write(write_of("a"))
        await nodes.level()
        leader = (await nodes.leader()).status().leader
        await eventually(lambda: publishers == {leader})
