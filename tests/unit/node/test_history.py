"""What a replica tells of the past."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from replicad.errors import CorruptLogError
from replicad.node import history as module
from replicad.node.history import describe_history
from replicad.storage.lostfound import LOST_AND_FOUND, kept_name
from replicad.storage.records import NOTHING_APPLIED
from tests.support.entries import LogBuilder, write_of
from tests.support.node_http import Client
from tests.support.nodes import Driven, driven

A = write_of("a", b'{"id":"a"}')


async def history_of(client: Client) -> dict[str, Any]:
    async with client.get("/internal/history") as response:
        assert response.status == 200
        told: dict[str, Any] = await response.json()
        return told


async def test_each_epoch_with_the_entry_that_opened_it(client: Client, one: Driven) -> None:
    await one.store_all(A)
    told = await history_of(client)
    (epoch,) = told.pop("epochs")
    assert told == {"name": "n1", "kept": []}
    assert (epoch["epoch"], epoch["index"]) == (one.driver.epoch, 1)
    assert (epoch["leader"], epoch["incarnation"]) == ("n1", "run-1")
    assert epoch["time"].endswith("Z")


async def test_a_beginning_that_is_not_committed_is_left_out(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(one.store.records), "applied", property(lambda _: NOTHING_APPLIED))
    assert (await history_of(client))["epochs"] == []


async def test_only_the_newest_epochs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EPOCHS_MAX", 2)
    for _ in range(3):
        async with driven(tmp_path) as one:
            epoch = await one.leads()
            told = await describe_history(one.driver, tmp_path)
    newest = [each["epoch"] for each in cast(list[dict[str, int]], told["epochs"])]
    assert newest == [epoch, epoch - 1]


async def test_a_damaged_entry_is_not_told(client: Client, one: Driven, tmp_path: Path) -> None:
    (segment,) = (tmp_path / "log").glob("*.jsonl")
    damaged = segment.read_bytes().replace(b'"leader":"n1"', b'"leader":"n2"')
    with segment.open("r+b") as file:
        file.write(damaged)
    async with client.get("/internal/history") as response:
        assert response.status == 503
    assert [type(failure) for failure in one.failures] == [CorruptLogError]


async def test_what_was_cut_off_the_log(client: Client, one: Driven, tmp_path: Path) -> None:
    folder = tmp_path / LOST_AND_FOUND
    folder.mkdir()
    kept_name(folder, 1, 7).write_bytes(LogBuilder().inserts(2))
    told = await history_of(client)
    assert told["kept"] == [{"epoch": 7, "first": 1, "entries": 2}]
