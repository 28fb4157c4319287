from __future__ import annotations

import asyncio
import threading

import pytest

from replicad.client import ConflictError, SyncClient
from tests.support.fake_gateway import FakeGateway, FakeStore


async def test_it_does_what_the_asynchronous_one_does(
    gateways: list[FakeGateway], store: FakeStore
) -> None:
    before = threading.active_count()

    def use() -> list[str]:
        with SyncClient([gateway.url for gateway in gateways], timeout_s=5) as client:
            records = client.collection("c")
            assert records.insert({"id": "a"}).index == 1
            with pytest.raises(ConflictError):
                records.insert({"id": "a"})
            record = records.get("a")
            assert record is not None
            assert records.put("a", {"id": "a", "n": 2}, if_match=record.etag).index == 2
            results = list(records.import_records({"id": f"k{n}"} for n in range(10)))
            assert {result.status for result in results} == {"stored"}
            assert len(list(records.changes(follow_on=False))) == 12
            for change in records.changes():
                assert change.index == 1
                break  # Given up in the middle: nothing may hang.
            assert b"".join(records.export()).count(b"\n") == 11
            return [item["id"] for item in records.query(limit="3")]

    found = await asyncio.to_thread(use)
    assert found == sorted(["a", *(f"k{n}" for n in range(10))])
    assert len(store.records) == 11
    assert threading.active_count() <= before + 1  # asyncio's own worker.


def test_it_needs_its_block() -> None:
    with pytest.raises(RuntimeError, match="with"):
        SyncClient("http://127.0.0.1:1").cluster()
