"""A record store that cannot be made anew must not be read half made."""

from __future__ import annotations

from pathlib import Path

import pytest

from replicad.errors import CorruptLogError, RecordsDamagedError
from tests.support.entries import write_of
from tests.support.node_http import client_of
from tests.support.nodes import CLUSTER_ID, Driven, driven
from tests.support.waiting import eventually

KEYS = [f"k{number}" for number in range(20)]


async def filled(each: Driven) -> None:
    await each.store_all(*(write_of(key, b'{"x":"aaaaaaaa"}') for key in KEYS))


def flip_in_a_value(path: Path) -> None:
    (segment,) = (path / "log").glob("*.jsonl")
    data = bytearray(segment.read_bytes())
    data[data.index(b"aaaaaaaa", len(data) // 2)] ^= 2
    segment.write_bytes(data)


async def test_no_read_is_served_from_a_half_made_record_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is bad in two places: a page of the record store, and a line of the log."""
    async with driven(tmp_path) as each, client_of(each, tmp_path) as client:
        await filled(each)
        flip_in_a_value(tmp_path)

        def get(*_: object) -> object:
            raise RecordsDamagedError("database disk image is malformed")

        headers = {"X-Replicad-Epoch": str(each.driver.epoch)}
        body = {"keys": [["forms", key] for key in KEYS]}
        with monkeypatch.context() as damaged:
            damaged.setattr(each.store.records, "get", get)
            async with client.post("/internal/gets", json=body, headers=headers) as response:
                assert response.status == 500
        async with client.post("/internal/gets", json=body, headers=headers) as response:
            assert response.status != 200
        assert [type(error) for error in each.failures] == [CorruptLogError]


async def test_what_is_read_for_it_is_verified(tmp_path: Path) -> None:
    """Also entries that this very process appended: that may be long ago."""
    async with driven(tmp_path) as each:
        await filled(each)
        flip_in_a_value(tmp_path)
        with pytest.raises(CorruptLogError):
            each.driver.rebuild_records()
        found = each.store.records.get([("forms", key) for key in KEYS])
        assert {stored.value for stored in found if stored is not None} <= {b'{"x":"aaaaaaaa"}'}


async def test_without_its_snapshot_it_ends_this_run(tmp_path: Path) -> None:
    """It would lead on, without ticks and with nothing to read."""
    async with driven(tmp_path) as each:
        each.store._journal._segment_bytes = 2000
        await filled(each)
        upkeep, store = each.driver.upkeep, each.store
        built = await upkeep._snapshots.build_next(
            CLUSTER_ID, store.segment_firsts, store.log.last, store.log.digest_at
        )
        assert built
        store.drop_before(built)
        upkeep._snapshots.files.delete(built)
        with pytest.raises(CorruptLogError):
            each.driver.rebuild_records()
        await eventually(lambda: bool(each.failures))
        assert each.driver.stopped
