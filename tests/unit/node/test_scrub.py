"""What was stored is read again, and what is wrong is found."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from replicad.errors import CorruptLogError, DiskFullError, RecordsDamagedError, WorkerFailedError
from replicad.node import scrub, snapshot_jobs, store
from tests.support.entries import put_of, write_of
from tests.support.nodes import CLUSTER_ID, Driven, driven
from tests.support.record_model import values
from tests.support.waiting import eventually

ENTRIES = "replicad_scrub_entries_total"


async def filled(each: Driven, count: int = 20) -> None:
    await each.store_all(*(write_of(f"k{number}") for number in range(count)))


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (path / "sync.log").read_text().splitlines()]


def meddle(each: Driven, statement: str) -> None:
    """Change rows behind the record store's back."""
    each.store.records.settle()
    connection: sqlite3.Connection = each.store.records._connection
    connection.execute(statement)


async def test_all_is_well(tmp_path: Path) -> None:
    async with driven(tmp_path) as each:
        await filled(each)
        result = await each.driver.scrub.check_all()
        assert (result.entries, result.restored, result.error) == (21, 0, "")
        assert each.driver.scrub.last == result
        assert "scrub finished" in events(tmp_path)


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("UPDATE versions SET value = '{\"x\":9}' WHERE key = 'k3'", 1),
        ("DELETE FROM versions WHERE key IN ('k3', 'k4')", 2),
        ("DELETE FROM requests WHERE request = 'r-forms-k3'", 1),
        ("UPDATE requests SET entry_index = 1 WHERE request = 'r-forms-k3'", 2),
        ("UPDATE versions SET key = 'other' WHERE key = 'k3'", 1),
        ("UPDATE versions SET genero = 'x' WHERE key = 'k3'", 1),
    ],
)
async def test_rows_that_differ_from_the_log_are_put_back(
    tmp_path: Path, statement: str, wrong: int
) -> None:
    async with driven(tmp_path) as each:
        await filled(each)
        meddle(each, statement)
        result = await each.driver.scrub.check_all()
        assert result.restored == wrong
        assert "rows differ from the log, put back" in events(tmp_path)
        assert (await each.driver.scrub.check_all()).restored == 0
        assert values(each.store.records, "forms", "k3", "k4", "other") == [b"{}", b"{}", None]


async def test_a_damaged_entry_is_found(tmp_path: Path) -> None:
    async with driven(tmp_path) as each:
        await filled(each)
        (segment,) = (tmp_path / "log").glob("*.jsonl")
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        with pytest.raises(CorruptLogError, match=segment.name):
            await each.driver.scrub.check_all()
        assert each.driver.scrub.last is not None
        assert segment.name in each.driver.scrub.last.error


async def test_without_room_for_the_rows_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in memory only is no reason to end this replica, nor to say that rows are wrong."""
    async with driven(tmp_path) as each:
        await filled(each)

        def fail() -> None:
            raise DiskFullError("full")

        monkeypatch.setattr(each.store.records, "settle", fail)
        result = await each.driver.scrub.check_all()
        assert (result.restored, result.error, each.failures) == (0, "", [])


async def test_writes_go_on_meanwhile(tmp_path: Path) -> None:
    async with driven(tmp_path) as each:
        await filled(each)
        scrub = each.driver.scrub.check_all()
        await each.store_all(write_of("later"))
        assert (await scrub).entries == 22


async def test_records_too_many_to_be_made_anew_at_once_end_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold up the process for longer than the others wait; the next start does it."""
    monkeypatch.setattr(store, "_REBUILT_AT_ONCE", 10)
    async with driven(tmp_path) as each:
        await filled(each)
        with pytest.raises(RecordsDamagedError):
            each.driver.rebuild_records()
        assert [type(error) for error in each.failures] == [RecordsDamagedError]
    async with driven(tmp_path) as again:
        await again.leads()
        assert values(again.store.records, "forms", "k3") == [b"{}"]


async def retained(path: Path) -> None:
    """A replica whose log begins after a snapshot, stopped."""
    async with driven(path) as each:
        each.store._journal._segment_bytes = 2000
        for number in range(60):
            await each.store_all(write_of(f"k{number}"))
        upkeep, log = each.driver.upkeep, each.store.log
        built = await upkeep._snapshots.build_next(
            CLUSTER_ID, each.store.segment_firsts, log.last, log.digest_at
        )
        assert built
        each.store.drop_before(built)
        assert log.base.index == built
        each.store.records._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage_index(records: Path, index: str, damaged: Callable[[bytes], bytes]) -> None:
    """Change the page at which an index begins."""
    connection = sqlite3.connect(records)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
    (root,) = connection.execute(query, (index,)).fetchone()
    connection.close()
    data = bytearray(records.read_bytes())
    page = slice((root - 1) * size, root * size)
    data[page] = damaged(bytes(data[page]))
    records.write_bytes(data)


async def test_damaged_records_are_made_anew_from_snapshot_and_log(tmp_path: Path) -> None:
    await retained(tmp_path)
    damage_index(tmp_path / "records.sqlite", "versions_by_key", lambda page: b"\xff" * len(page))
    async with driven(tmp_path) as each:
        await eventually(lambda: each.driver.scrub.last is not None)
        assert not each.failures
        assert values(each.store.records, "forms", "k1", "k59") == [b"{}", b"{}"]


async def updated(each: Driven) -> None:
    await filled(each)
    for number in range(20):
        await each.store_all(put_of(f"k{number}", request=f"again-{number}"))
    each.store.records.settle()


async def assert_mended(each: Driven) -> None:
    for _ in range(3):
        result = await each.driver.scrub.check_all()
    assert (result.restored, result.error, each.failures) == (0, "", [])
    execute = each.store.records._connection.execute
    assert execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    history = each.store.records.versions_of("forms", "k3", limit=9, bytes_max=999)
    assert [version.entry for version in history] == [5, 25]


@pytest.mark.parametrize(
    ("old", "new"), [(b"k3", b"j3"), (b"k3", b"k4"), (b"k8", b"k9"), (b"k12", b"k92")]
)
async def test_an_index_that_contradicts_its_table_is_made_anew(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    async with driven(tmp_path) as each:
        await updated(each)
    damage_index(
        tmp_path / "records.sqlite", "versions_by_key", lambda page: page.replace(old, new, 1)
    )
    async with driven(tmp_path) as each:
        await assert_mended(each)


@pytest.mark.parametrize("which", ["records", "past"])
@pytest.mark.parametrize("column", ["number", "key", "until", "value"])
async def test_a_column_of_another_type_is_damage(tmp_path: Path, column: str, which: str) -> None:
    async with driven(tmp_path) as each:
        await updated(each)
        ats = f"SELECT at FROM {which} WHERE key = 'k3'"  # noqa: S608
        meddle(each, f"UPDATE versions SET {column} = x'7f' WHERE at IN ({ats})")  # noqa: S608
        await assert_mended(each)


async def test_a_check_that_was_killed_is_no_failure_of_the_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel prefers small processes when it runs out of memory."""
    await retained(tmp_path)

    async def killed(*_: object) -> None:
        raise WorkerFailedError("killed")

    monkeypatch.setattr(snapshot_jobs, "check", killed)
    async with driven(tmp_path) as each:
        await eventually(lambda: each.driver.scrub.last is not None)
        assert not each.failures
        assert "snapshot not checked" in events(tmp_path)


async def test_the_logs_front_may_go_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "_SLICE_BYTES", 1)  # One entry a step.
    async with driven(tmp_path) as each:
        each.store._journal._segment_bytes = 2000
        await filled(each)
        passing = asyncio.ensure_future(each.driver.scrub.check_all(0.01))
        await eventually(lambda: each.driver.metrics.registry.get_sample_value(ENTRIES) != 0)
        for number in range(40):
            await each.store_all(write_of(f"later{number}"))
        each.store.drop_before(each.store.records.applied.index)
        assert each.store.log.first > 22
        assert (await passing).error == ""


async def test_a_snapshot_that_is_gone_is_no_reason_to_doubt_the_disk(tmp_path: Path) -> None:
    await retained(tmp_path)
    (snapshot,) = (tmp_path / "snapshots").glob("*[0-9].ndjson")
    snapshot.unlink()
    async with driven(tmp_path) as each:
        await eventually(lambda: each.driver.scrub.last is not None)
        assert not each.failures
        assert "snapshot damaged, deleted" in events(tmp_path)
