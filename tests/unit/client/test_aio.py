from __future__ import annotations

import pytest

from replicad.client import (
    BrokenOffError,
    Client,
    Collection,
    ConflictError,
    NotFoundError,
    NotJsonError,
    OutcomeUnknownError,
    PreconditionFailedError,
    ProtocolError,
    UnavailableError,
)
from tests.support.fake_gateway import FakeGateway, FakeStore

Gateways = list[FakeGateway]


async def test_a_record_is_written_and_read(collection: Collection) -> None:
    receipt = await collection.insert({"id": "a", "n": 1})
    assert (receipt.operation, receipt.index, receipt.etag) == ("insert", 1, '"1"')
    assert receipt.replicas == ("n1", "n2")
    record = await collection.get("a")
    assert record is not None
    assert (record.value, record.etag, record.index) == ({"id": "a", "n": 1}, '"1"', 1)
    changed = await collection.put("a", b'{"id":"a","n":1.0}', if_match=record.etag)
    assert (changed.operation, changed.etag) == ("update", '"2"')
    again = await collection.get("a")
    assert again is not None
    assert again.raw == b'{"id":"a","n":1.0}'
    assert (await collection.delete("a")).etag is None
    assert await collection.get("a") is None


async def test_refusals_are_typed(collection: Collection) -> None:
    await collection.insert({"id": "a"})
    with pytest.raises(ConflictError) as conflict:
        await collection.insert({"id": "a"})
    assert conflict.value.slug == "record-exists"
    with pytest.raises(PreconditionFailedError) as failed:
        await collection.put("a", {"id": "a"}, if_match='"7"')
    assert failed.value.etag == '"1"'
    with pytest.raises(ProtocolError):  # No problem details: not a gateway of ours.
        await anext(collection.history("a"))


@pytest.mark.parametrize("fault", [503, 429, 504, 500, "drop", "lose"])
async def test_a_write_is_tried_again_elsewhere_and_happens_once(
    collection: Collection, gateways: Gateways, store: FakeStore, fault: int | str
) -> None:
    gateways[0].faults.append(fault)
    receipt = await collection.insert({"id": "a"})
    assert receipt.index == 1
    assert receipt.replayed == (fault == "lose")
    assert len(store.changes) == 1
    assert store.requests == 2


async def test_reads_are_tried_again(collection: Collection, gateways: Gateways) -> None:
    await collection.insert({"id": "a"})
    gateways[0].faults.extend(["drop"])
    gateways[1].faults.extend([503])
    assert await collection.get("a") is not None


async def test_a_write_that_nobody_takes_was_not_stored(
    gateways: Gateways, store: FakeStore
) -> None:
    async with Client(gateways[0].url, timeout_s=0.5) as client:
        gateways[0].faults.extend([503] * 100)
        with pytest.raises(UnavailableError, match="503"):
            await client.collection("c").insert({"id": "a"})
    assert not store.changes


async def test_a_write_without_an_answer_is_unknown_and_can_be_asked_about(
    gateways: Gateways, store: FakeStore
) -> None:
    async with Client(gateways[0].url, timeout_s=0.5) as client:
        gateways[0].faults.extend(["lose"] + [503] * 100)
        with pytest.raises(OutcomeUnknownError) as unknown:
            await client.collection("c").insert({"id": "a"}, key="k1")
        assert unknown.value.key == "k1"
        gateways[0].faults.clear()
        assert await client.outcome("k1") == {"state": "committed", "index": 1}
        assert await client.outcome("k2") == {"state": "unknown"}


async def test_nobody_listens() -> None:
    async with Client("http://127.0.0.1:1", timeout_s=0.3) as client:
        with pytest.raises(UnavailableError):
            await client.collection("c").insert({"id": "a"})


async def test_a_query_goes_through_all_pages(collection: Collection) -> None:
    for number in range(5):
        await collection.insert({"id": f"k{number}"})
    found = [item["id"] async for item in collection.query(limit="2")]
    assert found == ["k0", "k1", "k2", "k3", "k4"]


async def test_an_export_that_breaks_off_is_not_taken_for_whole(
    collection: Collection, gateways: Gateways
) -> None:
    await collection.insert({"id": "a"})
    assert b"".join([block async for block in collection.export()]) == b'{"id":"a"}\n'
    gateways[0].import_lines.append(0)
    with pytest.raises(BrokenOffError):
        async for _ in collection.export():
            pass


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 2**70, "\ud800", {1, 2}])
async def test_what_json_does_not_have_is_not_sent(
    collection: Collection, store: FakeStore, value: object
) -> None:
    for record in ({"id": "a", "x": value}, {"id": "a", "x": [None, {"y": value}]}):
        with pytest.raises(NotJsonError):
            await collection.insert(record)
    assert not store.requests
    assert (await collection.insert({"id": "a", "x": None})).index == 1


async def test_a_client_needs_a_url_and_its_block() -> None:
    with pytest.raises(ValueError, match="URL"):
        Client([])
    with pytest.raises(RuntimeError, match="with"):
        await Client("http://127.0.0.1:1").cluster()


async def test_another_problem_with_404_is_no_missing_record(collection: Collection) -> None:
    with pytest.raises((NotFoundError, ProtocolError)):
        await Collection(collection._transport, "none").get("a")
