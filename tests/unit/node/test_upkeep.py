"""Logs that are cut at the front, and replicas that need what was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.core.retention import Retention
from replicad.node.driver import Driver
from replicad.node.store import Store
from tests.support.entries import delete_of, put_of, write_of
from tests.support.logs import log_bytes
from tests.support.nodes import Nodes
from tests.support.waiting import eventually

SEGMENT_BYTES = 64 * 1024
VALUE = b'{"x":"%b"}' % (b"x" * 3000)
IN_A_SEGMENT = SEGMENT_BYTES // len(VALUE)
NO_MORE_THAN_NEEDED = Retention(bytes_max=1)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {"segment_bytes": SEGMENT_BYTES}
    monkeypatch.setattr(Store.__init__, "__kwdefaults__", defaults)


def driver_of(nodes: Nodes, name: str) -> Driver:
    driver = nodes.running[name].driver
    assert driver is not None
    return driver


def values_of(driver: Driver, keys: list[str]) -> list[bytes | None]:
    found = driver.store.records.get([("forms", key) for key in keys])
    return [stored and stored.value for stored in found]


async def all_applied(driver: Driver) -> None:
    await eventually(lambda: driver.status().applied_index == driver.store.log.last)


async def fill_a_segment(nodes: Nodes, prefix: str) -> None:
    for number in range(IN_A_SEGMENT + 2):
        await nodes.write(write_of(f"{prefix}{number}", VALUE))


async def test_a_replica_that_needs_what_was_dropped_gets_a_snapshot(tmp_path: Path) -> None:
    async with Nodes.open(tmp_path, "n1", "n2", "n3") as nodes:
        nodes.retention = NO_MORE_THAN_NEEDED
        await nodes.start_cluster(2)
        await nodes.write(write_of("first"), write_of("gone"), write_of("changed"))
        await nodes.level()
        await nodes.stop("n3")
        await nodes.write(delete_of("gone", request="delete"))
        await nodes.write(put_of("changed", VALUE, request="put"))
        for prefix in ("a", "b"):
            await fill_a_segment(nodes, prefix)
            for name in ("n1", "n2"):
                await all_applied(driver_of(nodes, name))
                await driver_of(nodes, name).upkeep.tend()
        assert driver_of(nodes, "n1").store.log.base.index > IN_A_SEGMENT // 2
        await nodes.start("n3")
        await nodes.level()
        await nodes.write(write_of("last"))
        await nodes.level()
        third, first = driver_of(nodes, "n3"), driver_of(nodes, "n1")
        assert third.store.log.base.index > first.store.log.base.index > 0
        # Byte-identical over the entries that they share.
        assert log_bytes(nodes.data_dir("n1")).endswith(log_bytes(nodes.data_dir("n3")))
        values = {"first": b"{}", "gone": None, "changed": VALUE, "a0": VALUE, "last": b"{}"}
        assert values_of(third, [*values]) == [*values.values()]
        third.store.records._connection.execute("DELETE FROM versions WHERE key = 'first'")
        await third.scrub.check_all()
        assert values_of(third, [*values]) == [*values.values()]


async def test_a_write_of_before_the_snapshot_is_still_known(tmp_path: Path) -> None:
    """Its retry finds the first outcome, although the log no longer holds the entry."""
    async with Nodes.open(tmp_path, "n1") as nodes:
        nodes.retention = NO_MORE_THAN_NEEDED
        await nodes.start_cluster(1)
        await nodes.write(write_of("first"))
        for prefix in ("a", "b"):
            await fill_a_segment(nodes, prefix)
            await driver_of(nodes, "n1").upkeep.tend()
        assert driver_of(nodes, "n1").store.log.base.index > 2
        await nodes.write(write_of("first"))
        await nodes.stop("n1")
        await nodes.start("n1")
        await nodes.write(write_of("first"), write_of("second"))
        assert values_of(driver_of(nodes, "n1"), ["first", "second"]) == [b"{}", b"{}"]


async def test_all_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    async with Nodes.open(tmp_path, "n1") as nodes:
        await nodes.start_cluster(1)
        driver = await nodes.leader()
        await driver.upkeep.run()
        assert (driver.store.log.base.index, driver.upkeep.newest_snapshot) == (0, 0)
