"""`replicad verify` and `replicad repair` against replicas in this process."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from replicad.cli.replicas import Replicas
from replicad.cli.verification import repair, verify
from replicad.coordination.memory import MemoryCoordinator
from replicad.core.write import Operation
from replicad.errors import ConfigurationError, ReplicaUnavailableError
from replicad.node.driver import Driver
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.nodes import Nodes

NAMES = ("n1", "n2", "n3")
KEYS = [f"k{number:02}" for number in range(40)]


@asynccontextmanager
async def cluster(path: Path) -> AsyncIterator[Nodes]:
    """Three replicas with the same records."""
    async with Nodes.open(path, *NAMES) as nodes:
        await nodes.start_cluster(2)
        for key in KEYS:
            await nodes.write(write_of(key))
        await nodes.level()
        yield nodes


@asynccontextmanager
async def reached(nodes: Nodes) -> AsyncIterator[Replicas]:
    coordinator = MemoryCoordinator(nodes.coordinated)
    await coordinator.start(lambda _: None)
    view = await coordinator.read()
    await coordinator.stop()
    async with aiohttp.ClientSession() as session:
        yield Replicas(view, session)


def driver_of(nodes: Nodes, name: str) -> Driver:
    driver = nodes.running[name].driver
    assert driver is not None
    return driver


def meddle(nodes: Nodes, name: str, statement: str) -> None:
    records = driver_of(nodes, name).store.records
    records.settle()  # There must be something to meddle with.
    connection: sqlite3.Connection = records._connection
    connection.execute(statement)


@pytest.mark.parametrize("deep", [False, True])
async def test_all_hold_the_same(tmp_path: Path, deep: bool) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        report = await verify(replicas, deep=deep)
        assert report.problems == []
        assert [told["records"] for told in report.replicas.values()] == [len(KEYS)] * 3
        assert len({told["chain digest"] for told in report.replicas.values()}) == 1


async def change(nodes: Nodes) -> None:
    """Update, delete and write again what stands around k17."""
    for number, key in enumerate(("k16", "k17", "k18")):
        await nodes.write(put_of(key, b'{"x":1}', request=f"put-{number}"))
    await nodes.write(delete_of("k16", request="delete"))
    several = [Operation("k18", None), Operation("k16", b"{}"), Operation("k19", b'{"x":2}')]
    await nodes.write(batch_of(*several, request="several"))
    await nodes.level()


async def test_changed_and_deleted_records_are_the_same_on_all(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        await change(nodes)
        report = await verify(replicas, deep=True)
        assert report.problems == []
        assert [told["records"] for told in report.replicas.values()] == [len(KEYS) - 1] * 3


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ("UPDATE versions SET value = '{\"x\":9}' WHERE key = 'k17'", "record forms/k17"),
        ("UPDATE versions SET value = '{\"x\":9}' WHERE key >= 'k17'", "record forms/k17"),
        ("DELETE FROM versions WHERE key = 'k17'", "record forms/k17"),
        ("UPDATE versions SET key = 'k18' WHERE key = 'k17'", "record forms/k17"),
        ("DELETE FROM versions WHERE key = 'k16'", "record forms/k16"),
        (
            "UPDATE requests SET request = 'other' WHERE key = 'k17' AND done = 'i'",
            "the write of entry 19, as it is remembered",
        ),
        (
            "DELETE FROM requests WHERE request = 'several'",
            "the write of entry 46, as it is remembered",
        ),
    ],
)
async def test_the_first_record_that_differs_is_named(
    tmp_path: Path, statement: str, where: str
) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        await change(nodes)
        meddle(nodes, "n2", statement)
        report = await verify(replicas, deep=False)
        assert report.problems == [
            f"n2 is in the minority: it differs from n1, n3 first at {where}"
        ]


async def test_the_first_entry_that_differs_is_named(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        log = driver_of(nodes, "n3").store.log
        log._digests[32 * 16 :] = bytes(len(log._digests) - 32 * 16)
        report = await verify(replicas, deep=False)
        assert report.problems == [
            "n3 is in the minority: it differs from n1, n2 first at log entry 17"
        ]


async def test_a_replica_that_is_away_is_a_problem(tmp_path: Path) -> None:
    """What was not compared is not known to be equal."""
    async with cluster(tmp_path) as nodes:
        await nodes.stop("n3")
        async with reached(nodes) as replicas:
            report = await verify(replicas, deep=False)
            assert report.problems == ["n3 does not answer: it was not compared"]


async def test_a_deep_check_puts_records_back_and_says_so(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        meddle(nodes, "n2", "DELETE FROM versions WHERE key = 'k17'")
        report = await verify(replicas, deep=True)
        assert report.problems == ["n2: 1 records differed from its log"]
        assert (await verify(replicas, deep=False)).good


async def test_repair_puts_back_only_what_differs(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        meddle(nodes, "n2", "DELETE FROM versions WHERE key IN ('k17', 'k30')")
        (line,) = await repair(replicas, "n2")
        assert line.endswith("2 records put back")
        assert (await verify(replicas, deep=False)).good


async def test_only_a_running_replica_can_be_repaired(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        with pytest.raises(ConfigurationError, match="n9"):
            await repair(replicas, "n9")


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("ranges", {}, "index must be an integer"),
        ("ranges", {"index": 1}, "remembered_from must be a time"),
        ("ranges", {"index": 10**9, "remembered_from": ""}, "are known here"),
        ("record-digests", {"index": -1, "remembered_from": ""}, "are known here"),
        ("chain", {"indexes": "all"}, "indexes must be a list"),
        ("chain", {"indexes": [0] * 10_001}, "more than 10000"),
        ("record-digests", {"index": 1, "remembered_from": "", "from": "k1"}, "from and to"),
    ],
)
async def test_what_cannot_be_understood_is_refused(
    tmp_path: Path, path: str, body: dict[str, object], reason: str
) -> None:
    async with cluster(tmp_path) as nodes, reached(nodes) as replicas:
        with pytest.raises(ReplicaUnavailableError, match=reason):
            await replicas.call("POST", f"{nodes.url('n1')}/internal/{path}", body=body)
