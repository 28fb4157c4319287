"""What gateways and operators get over HTTP from a real driver of a cluster of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from replicad.core.effects import AnswerTransfer, AnswerWrites, Committed
from replicad.core.write import Operation, Wanted, encode_write
from replicad.errors import DiskFailedError, DiskFullError
from replicad.node.driver import Driver
from replicad.node.gates import Json
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.node_http import (
    GETS,
    RECORDS,
    REQUESTS,
    WRITES,
    Client,
    client_of,
    encoded,
    epoch_of,
    post,
    write,
)
from tests.support.nodes import Driven

A, B = write_of("a", b'{"id":"a"}'), write_of("b", b'{"id":"b"}')
READS = [
    ("POST", GETS, b'{"keys":[]}'),
    ("GET", RECORDS, b""),
    ("POST", REQUESTS, b'{"request":"r"}'),
]
TRANSFER = "/internal/transfer"


@dataclass(frozen=True, slots=True)
class NoCluster:
    """A node that does not know its cluster yet."""

    driver: Driver | None = None

    def describe(self) -> Json:
        return {"role": "waiting"}


# -- for operators ------------------------------------------------------------------------------


async def test_health_and_status(client: Client) -> None:
    async with client.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with client.get("/internal/status") as response:
        assert (response.status, await response.json()) == (200, {"name": "n1", "epoch": 1})


async def test_metrics(client: Client, one: Driven) -> None:
    await one.store_all(A, B)
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        lines = (await response.text()).splitlines()
    assert "replicad_commit_index 3.0" in lines
    assert "replicad_leading 1.0" in lines
    assert any(line.startswith("replicad_log_sync_seconds_count") for line in lines)


async def test_a_node_without_cluster_serves_what_it_can(tmp_path: Path) -> None:
    async with client_of(NoCluster(), tmp_path) as client:
        async with client.get("/metrics") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get("/internal/status") as response:
            assert await response.json() == {"role": "waiting"}
        headers = {"X-Replicad-Epoch": "1"}
        async with client.post(WRITES, data=encoded(A), headers=headers) as response:
            assert response.status == 421
            assert await response.json() == {"error": "not-leader", "epoch": 0}
        for method, path, body in READS:
            headers = {"X-Replicad-Min-Index": "0"}
            async with client.request(method, path, data=body, headers=headers) as response:
                assert response.status == 503
        async with client.get("/internal/history") as response:
            assert await response.json() == {"name": "n1", "epochs": [], "kept": []}


# -- who is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", WRITES, encoded(A)), ("POST", TRANSFER, b'{"to":"n1"}'), *READS],
)
@pytest.mark.parametrize("above", [-1, 1])
async def test_another_epoch_is_not_served(
    client: Client, one: Driven, method: str, path: str, body: bytes, above: int
) -> None:
    """Rule 10: also when the leader is the same, in a later epoch."""
    headers = epoch_of(one, above=above)
    async with client.request(method, path, data=body, headers=headers) as response:
        assert response.status == 421
        assert await response.json() == {"error": "not-leader", "epoch": one.driver.epoch}
    assert one.driver.status().last_index == 1


@pytest.mark.parametrize(("method", "path", "body"), [("POST", WRITES, encoded(A)), *READS])
async def test_another_leader_of_the_same_epoch_is_not_served(
    client: Client, one: Driven, method: str, path: str, body: bytes
) -> None:
    """Epochs of two clusters may be equal, and an address may pass from one to the other."""
    for leader, status in (("run-2", 421), (one.driver.incarnation, 200)):
        headers = {**epoch_of(one), "X-Replicad-Leader": leader}
        async with client.request(method, path, data=body, headers=headers) as response:
            assert response.status == status


@pytest.mark.parametrize("headers", [{}, {"X-Replicad-Epoch": "one"}, {"X-Replicad-Epoch": ""}])
async def test_an_epoch_must_be_named(client: Client, headers: dict[str, str]) -> None:
    async with client.post(WRITES, data=encoded(A), headers=headers) as response:
        assert response.status == 400


# -- writes -------------------------------------------------------------------------------------


async def test_each_write_gets_an_outcome(client: Client, one: Driven) -> None:
    (stored,) = await one.store_all(A)
    batch = batch_of(Operation("a", None, (2,)), Operation("c", b"{}"), request="batch")
    answer = await write(client, one, encoded(A, B, batch))
    assert answer["acks"] == ["n1"]
    assert set(answer["timing"]) <= {"fsync"}
    first, second, third = answer["outcomes"]
    assert first == {
        "status": "committed",
        "index": stored.index,
        "epoch": stored.epoch,
        "digest": stored.digest.hex(),
        "done": "i",
        "again": True,
    }
    assert (second["status"], second["index"], second["again"]) == ("committed", 3, False)
    assert second["digest"] == one.store.log.digest_at(3).hex()
    assert (third["status"], third["index"], third["done"]) == ("committed", 4, "di")


async def test_a_rejected_write_says_why_and_what_there_is(client: Client, one: Driven) -> None:
    await one.store_all(A, B)
    stale = put_of("b", request="stale", condition=(2,))
    batch = batch_of(Operation("c", b"{}"), Operation("a", b"{}", Wanted.ABSENT), request="batch")
    reused = write_of("z")._replace(request=A.request)
    missing = delete_of("z", request="missing")
    unchecked = write_of("z")._replace(definition=1)
    answer = await write(client, one, encoded(stale, batch, reused, missing, unchecked))
    assert answer["outcomes"] == [
        {"status": "rejected", "reason": reason, "position": position, "version": version}
        for reason, position, version in [
            ("changed", 0, 3),
            ("exists", 1, 2),
            ("mismatch", 0, 0),
            ("missing", 0, 0),
            ("definition", 0, 0),
        ]
    ]
    assert one.driver.status().last_index == 3


async def test_a_refused_write_says_why(client: Client, one: Driven) -> None:
    one.store.room = 0
    one.store.append_error = DiskFullError("no room")
    answer = await write(client, one, encoded(A, B))
    assert answer["outcomes"] == [{"status": "refused", "reason": "disk-full"}] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"{}\n",
        b"not JSON\n",
        encode_write(A)[:-1],
        encode_write(A)[:-1] + b" ",
        encode_write(A) + b"\n",
        encode_write(A) + encode_write(B)[:-1],
        encode_write(A).replace(b'"request"', b'"demand"'),
        encode_write(A).replace(b'"a"', b"7", 1),
        encode_write(A).replace(b'"attempt":1', b'"attempt":0'),
        encode_write(A).replace(b'{"id":"a"}', b"[]"),
    ],
)
async def test_malformed_writes_are_refused_as_a_whole(
    client: Client, one: Driven, body: bytes
) -> None:
    status, lines = await post(client, one, WRITES, body)
    assert status == 400
    assert len(lines) == 1
    assert one.driver.status().last_index == 1


async def test_a_write_in_doubt_is_no_421(client: Client, one: Driven) -> None:
    """421 would say that nothing was appended; here it was, and the sync failed."""
    one.store.sync_error = DiskFailedError("the disk is gone")
    status, lines = await post(client, one, WRITES, encoded(A))
    assert status == 503
    assert lines == [{"error": "the replica stops; the outcome is unknown"}]
    assert one.driver.stopped
    status, _ = await post(client, one, WRITES, encoded(B))
    assert status == 421


async def test_a_late_retry_is_told_what_is_known(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log no longer has the entry, but its request id is remembered."""

    async def answered(_epoch: int, _writes: object) -> AnswerWrites:
        return AnswerWrites(1, (Committed(7, 0, b"", "u", again=True),), ("n1",), {})

    monkeypatch.setattr(one.driver, "write", answered)
    outcome = {
        "status": "committed",
        "index": 7,
        "epoch": None,
        "digest": None,
        "done": "u",
        "again": True,
    }
    answer = await write(client, one, encoded(A))
    assert answer == {"acks": ["n1"], "timing": {}, "outcomes": [outcome]}


# -- transfers ----------------------------------------------------------------------------------


async def test_a_transfer_tells_who_leads(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    async def transferred(to: str | None) -> AnswerTransfer:
        asked.append(to)
        return AnswerTransfer(1, to, "" if to else "no follower is level")

    monkeypatch.setattr(one.driver, "transfer", transferred)
    headers = epoch_of(one)
    async with client.post(TRANSFER, json={"to": "n2"}, headers=headers) as response:
        assert response.status == 200
        assert await response.json() == {"leader": "n2", "epoch": one.driver.epoch}
    async with client.post(TRANSFER, json={"to": None}, headers=headers) as response:
        assert response.status == 409
        assert await response.json() == {"error": "no follower is level"}
    assert asked == ["n2", None]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"to":7}'])
async def test_a_malformed_transfer_is_refused(client: Client, one: Driven, body: bytes) -> None:
    status, _ = await post(client, one, TRANSFER, body)
    assert status == 400
