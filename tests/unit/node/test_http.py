"""What gateways and operators get over HTTP from a real driver of a cluster of one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from replicad.core.entry import WriteRequest, encode_write
from replicad.errors import DiskFailedError, DiskFullError, RecordsDamagedError
from replicad.node import http as module
from replicad.node.driver import Driver
from replicad.node.http import Json, NodeHttp, Served
from tests.support.entries import write_of
from tests.support.nodes import Driven, driven

Client = TestClient[web.Request, web.Application]
WRITES, GETS, RECORDS = "/internal/writes", "/internal/gets", "/internal/records"
A, B = write_of("a", b'{"id":"a"}'), write_of("b", b'{"id":"b"}')


@asynccontextmanager
async def client_of(served: Served) -> AsyncIterator[Client]:
    async with TestClient(TestServer(NodeHttp(served).application())) as client:
        yield client


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Driven]:
    async with driven(tmp_path) as running:
        await running.leads()
        yield running


@pytest.fixture
async def client(one: Driven) -> AsyncIterator[Client]:
    async with client_of(one) as opened:
        yield opened


def epoch_of(one: Driven, *, above: int = 0) -> dict[str, str]:
    return {"X-Replicad-Epoch": str(one.driver.epoch + above)}


async def post(client: Client, one: Driven, path: str, body: bytes) -> tuple[int, list[object]]:
    """The status and the answer's lines, decoded."""
    async with client.post(path, data=body, headers=epoch_of(one)) as response:
        lines = (await response.read()).splitlines()
        return response.status, [json.loads(line) for line in lines]


def encoded(*writes: WriteRequest) -> bytes:
    return b"".join(map(encode_write, writes))


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


async def test_a_node_without_cluster_serves_what_it_can() -> None:
    async with client_of(NoCluster()) as client:
        async with client.get("/metrics") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get("/internal/status") as response:
            assert await response.json() == {"role": "waiting"}
        headers = {"X-Replicad-Epoch": "1"}
        async with client.post(WRITES, data=encoded(A), headers=headers) as response:
            assert response.status == 421
            assert await response.json() == {"error": "not-leader", "epoch": 0}


# -- who is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("POST", WRITES), ("POST", GETS), ("GET", RECORDS)])
@pytest.mark.parametrize("above", [-1, 1])
async def test_another_epoch_is_not_served(
    client: Client, one: Driven, method: str, path: str, above: int
) -> None:
    """Rule 10: also when the leader is the same, in a later epoch."""
    headers = epoch_of(one, above=above)
    async with client.request(method, path, data=encoded(A), headers=headers) as response:
        assert response.status == 421
        assert await response.json() == {"error": "not-leader", "epoch": one.driver.epoch}
    assert one.driver.status().last_index == 1


@pytest.mark.parametrize("headers", [{}, {"X-Replicad-Epoch": "one"}, {"X-Replicad-Epoch": ""}])
async def test_an_epoch_must_be_named(client: Client, headers: dict[str, str]) -> None:
    async with client.post(WRITES, data=encoded(A), headers=headers) as response:
        assert response.status == 400


# -- writes -------------------------------------------------------------------------------------


async def test_each_write_gets_a_line(client: Client, one: Driven) -> None:
    (stored,) = await one.store_all(A)
    other = WriteRequest("another", A.fingerprint, A.collection, A.key, A.value)
    reused = WriteRequest(A.request, "0" * 32, A.collection, "z", A.value)
    status, lines = await post(client, one, WRITES, encoded(A, B, other, reused))
    assert status == 200
    first, second, third, fourth = lines
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert set(first.pop("timing")) <= {"fsync"}
    assert first == {
        "status": "committed",
        "index": stored.index,
        "epoch": stored.epoch,
        "digest": stored.digest.hex(),
        "acks": ["n1"],
    }
    assert (second["status"], second["index"]) == ("committed", 3)
    assert second["digest"] == one.store.log.digest_at(3).hex()
    assert (third, fourth) == ({"status": "duplicate"}, {"status": "mismatch"})


async def test_a_refused_write_says_why(client: Client, one: Driven) -> None:
    one.store.room = 0
    one.store.append_error = DiskFullError("no room")
    status, lines = await post(client, one, WRITES, encoded(A, B))
    assert status == 200
    assert lines == [{"status": "refused", "reason": "disk-full"}] * 2


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


# -- reads --------------------------------------------------------------------------------------


async def test_gets_answer_in_the_order_asked(client: Client, one: Driven) -> None:
    await one.store_all(A, B)
    wanted = json.dumps({"collection": "forms", "keys": ["b", "none", "a"]}).encode()
    status, lines = await post(client, one, GETS, wanted)
    assert (status, lines) == (200, [{"id": "b"}, None, {"id": "a"}])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"collection":"forms","keys":7}'])
async def test_a_malformed_look_up_is_refused(client: Client, one: Driven, body: bytes) -> None:
    status, _ = await post(client, one, GETS, body)
    assert status == 400


async def test_gets_from_a_damaged_record_store_are_answered_from_a_new_one(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(A)
    fail_once(one, "get", monkeypatch)
    wanted = json.dumps({"collection": "forms", "keys": ["a"]}).encode()
    assert await post(client, one, GETS, wanted) == (200, [{"id": "a"}])


def fail_once(one: Driven, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a method of the record store find damage, the first time."""
    works = getattr(one.store.records, name)
    damaged = [RecordsDamagedError("damaged")]

    def fail(*arguments: object, **options: object) -> object:
        if damaged:
            raise damaged.pop()
        return works(*arguments, **options)

    monkeypatch.setattr(one.store.records, name, fail)


async def records(client: Client, one: Driven, query: str) -> bytes:
    async with client.get(f"{RECORDS}?{query}", headers=epoch_of(one)) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return await response.read()


async def test_no_records_are_an_empty_array(client: Client, one: Driven) -> None:
    assert await records(client, one, "collection=forms") == b"[]"
    await one.store_all(A)
    assert await records(client, one, "collection=other") == b"[]"
    assert await records(client, one, "") == b"[]"


@pytest.mark.parametrize("count", [1, 3, 4, 7])
async def test_records_are_one_array_over_all_pages(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    values = [b'{"id":"%d"}' % number for number in range(count)]
    await one.store_all(*(write_of(str(at), value) for at, value in enumerate(values)))
    assert await records(client, one, "collection=forms") == b"[" + b",".join(values) + b"]"


async def test_records_of_one_genero(client: Client, one: Driven) -> None:
    for key, genero in (("1", "Femenino"), ("2", "Masculino"), ("3", "FEMENINO")):
        value = json.dumps({"id": key, "genero": genero}).encode()
        await one.store_all(write_of(key, value))
    found = json.loads(await records(client, one, "collection=forms&genero=femenino"))
    assert [each["id"] for each in found] == ["1", "3"]
    assert await records(client, one, "collection=forms&genero=otro") == b"[]"


async def test_damage_found_on_the_way_does_not_look_like_the_end(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(A)
    fail_once(one, "scan", monkeypatch)
    with pytest.raises(aiohttp.ClientError):
        await records(client, one, "collection=forms")
    assert await records(client, one, "collection=forms") == b'[{"id":"a"}]'


async def test_an_end_on_the_way_does_not_look_like_the_end_of_the_records(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(A, B)
    monkeypatch.setattr(module, "_PAGE", 1)
    scan = one.store.records.scan

    def scan_and_stop(collection: str, **page: Any) -> list[tuple[int, bytes]]:  # noqa: ANN401
        one.driver.abandon()
        return scan(collection, **page)

    monkeypatch.setattr(one.store.records, "scan", scan_and_stop)
    with pytest.raises(aiohttp.ClientError):
        await records(client, one, "collection=forms")


@pytest.mark.parametrize(("method", "path"), [("POST", GETS), ("GET", RECORDS)])
async def test_a_read_that_was_not_confirmed_is_not_served(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """The replica was deposed while the read waited for its round."""

    async def not_confirmed(_epoch: int) -> bool:
        return False

    monkeypatch.setattr(one.driver, "read", not_confirmed)
    body = b'{"collection":"forms","keys":[]}'
    async with client.request(method, path, data=body, headers=epoch_of(one)) as response:
        assert response.status == 421
