"""What a replica reads for gateways, by a real driver of a cluster of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from replicad.core.messages import Point
from replicad.errors import RecordsDamagedError
from replicad.node import http_export as module
from tests.support.entries import write_of
from tests.support.node_http import GETS, RECORDS, REQUESTS, Client, epoch_of, post
from tests.support.nodes import Driven, Nodes

A, B = write_of("a", b'{"id":"a"}'), write_of("b", b'{"id":"b"}')
GET_A = b'{"keys":[["forms","a"]]}'
READS = [
    ("POST", GETS, GET_A),
    ("GET", RECORDS, b""),
    ("POST", REQUESTS, b'{"request":"r"}'),
]


def at_least(index: int) -> dict[str, str]:
    """The header of a read that any replica may answer."""
    return {"X-Replicad-Min-Index": str(index)}


async def gets(client: Client, one: Driven, body: bytes) -> tuple[int, list[bytes]]:
    """The status and the lines of the answer."""
    async with client.post(GETS, data=body, headers=epoch_of(one)) as response:
        return response.status, (await response.read()).splitlines()


async def test_gets_answer_in_the_order_asked(client: Client, one: Driven) -> None:
    value = b'{"n":1.0,"x":"\\u00e1"}'
    await one.store_all(A, B, write_of("a", value, collection="other"))
    names = [["forms", "b"], ["forms", "none"], ["other", "a"], ["forms", "a"], ["none", "a"]]
    wanted = json.dumps({"keys": names}).encode()
    lines = [b'3 {"id":"b"}', b"0", b"4 " + value, b'2 {"id":"a"}', b"0"]
    assert await gets(client, one, wanted) == (200, lines)
    assert await gets(client, one, b'{"keys":[]}') == (200, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"keys":7}',
        b'{"keys":["forms"]}',
        b'{"keys":[["forms"]]}',
        b'{"keys":[["forms",7]]}',
        b'{"keys":[["forms","a","b"]]}',
    ],
)
async def test_a_malformed_look_up_is_refused(client: Client, one: Driven, body: bytes) -> None:
    status, _ = await gets(client, one, body)
    assert status == 400


async def test_gets_from_a_damaged_record_store_are_answered_from_a_new_one(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(A)
    fail_once(one, "get", monkeypatch)
    assert await gets(client, one, GET_A) == (200, [b'2 {"id":"a"}'])


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

    def scan_and_stop(collection: str, **page: Any) -> object:  # noqa: ANN401
        one.driver.abandon()
        return scan(collection, **page)

    monkeypatch.setattr(one.store.records, "scan", scan_and_stop)
    with pytest.raises(aiohttp.ClientError):
        await records(client, one, "collection=forms")


@pytest.mark.parametrize(("method", "path", "body"), READS)
async def test_a_read_that_was_not_confirmed_is_not_served(
    client: Client,
    one: Driven,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    body: bytes,
) -> None:
    """The replica was deposed while the read waited for its round."""

    async def not_confirmed(_epoch: int) -> bool:
        return False

    monkeypatch.setattr(one.driver, "read", not_confirmed)
    async with client.request(method, path, data=body, headers=epoch_of(one)) as response:
        assert response.status == 421


# -- reads that any replica may answer ----------------------------------------------------------


async def test_a_strong_read_says_what_it_reflects(client: Client, one: Driven) -> None:
    await one.store_all(A, B)
    async with client.post(GETS, data=GET_A, headers=epoch_of(one)) as response:
        assert response.headers["X-Replicad-Index"] == "3"
        assert response.headers["X-Replicad-Replica"] == "n1"
    async with client.get(f"{RECORDS}?collection=forms", headers=epoch_of(one)) as response:
        assert response.headers["X-Replicad-Index"] == "3"


async def test_a_replica_that_has_applied_enough_answers(client: Client, one: Driven) -> None:
    (stored,) = await one.store_all(A)
    for index in (0, stored.index):
        async with client.post(GETS, data=GET_A, headers=at_least(index)) as response:
            assert (response.status, await response.read()) == (200, b'2 {"id":"a"}\n')
            assert response.headers["X-Replicad-Index"] == str(stored.index)


async def test_followers_answer_what_they_have_applied(tmp_path: Path) -> None:
    async with Nodes.open(tmp_path, "n1", "n2", "n3") as nodes, aiohttp.ClientSession() as session:
        await nodes.start_cluster(2)
        await nodes.write(A)
        await nodes.level()
        leader = await nodes.leader()
        index = leader.status().last_index
        for name in nodes.names:
            url = f"{nodes.url(name)}{GETS}"
            async with session.post(url, data=GET_A, headers=at_least(index)) as response:
                assert (response.status, await response.read()) == (200, b'2 {"id":"a"}\n')
                assert response.headers["X-Replicad-Replica"] == name
                assert int(response.headers["X-Replicad-Staleness-Ms"]) >= 0
            async with session.post(url, data=GET_A, headers=at_least(index + 1)) as response:
                assert response.status == 412
            strong = {"X-Replicad-Epoch": str(leader.epoch)}
            async with session.post(url, data=GET_A, headers=strong) as response:
                assert response.status == (200 if name == leader.status().leader else 421)


@pytest.mark.parametrize(("method", "path", "body"), READS)
async def test_a_replica_that_is_behind_says_so(
    client: Client, one: Driven, method: str, path: str, body: bytes
) -> None:
    (stored,) = await one.store_all(A)
    headers = at_least(stored.index + 1)
    async with client.request(method, path, data=body, headers=headers) as response:
        assert response.status == 412
        assert await response.json() == {"error": "behind", "applied_index": stored.index}


@pytest.mark.parametrize("headers", [{}, {"X-Replicad-Min-Index": "x"}])
async def test_a_read_must_say_how_fresh(client: Client, headers: dict[str, str]) -> None:
    async with client.post(GETS, data=GET_A, headers=headers) as response:
        assert response.status == 400


async def test_a_replica_that_stops_answers_nothing(client: Client, one: Driven) -> None:
    one.driver.abandon()
    async with client.post(GETS, data=GET_A, headers=at_least(0)) as response:
        assert response.status == 503


@pytest.mark.parametrize(("stale_s", "told"), [(0.0, "0"), (1.2341, "1235"), (None, None)])
async def test_staleness_is_an_upper_bound_or_not_known(
    client: Client,
    one: Driven,
    monkeypatch: pytest.MonkeyPatch,
    stale_s: float | None,
    told: str | None,
) -> None:
    status = replace(one.driver.status(), stale_s=stale_s)
    monkeypatch.setattr(one.driver, "status", lambda: status)
    async with client.post(GETS, data=GET_A, headers=at_least(0)) as response:
        assert response.headers.get("X-Replicad-Staleness-Ms") == told


async def test_records_as_of_an_earlier_index(client: Client, one: Driven) -> None:
    """With it, an array that broke off at one replica is continued at another."""
    (first,) = await one.store_all(A)
    await one.store_all(B)
    query = f"collection=forms&upto={first.index}"
    assert await records(client, one, query) == b'[{"id":"a"}]'
    async with client.get(f"{RECORDS}?upto=x", headers=epoch_of(one)) as response:
        assert response.status == 400


async def test_records_made_anew_on_the_way_do_not_look_like_the_end(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(A, B)
    monkeypatch.setattr(module, "_PAGE", 1)
    scan = one.store.records.scan

    def scan_and_forget(collection: str, **page: Any) -> object:  # noqa: ANN401
        found = scan(collection, **page)
        one.store.records.reset()
        return found

    monkeypatch.setattr(one.store.records, "scan", scan_and_forget)
    with pytest.raises(aiohttp.ClientError):
        await records(client, one, "collection=forms")
    one.store.apply(one.store.log.last)


# -- what became of a request -------------------------------------------------------------------


async def test_a_request_that_was_committed(client: Client, one: Driven) -> None:
    (stored,) = await one.store_all(A)
    body = json.dumps({"request": A.request}).encode()
    status, (outcome,) = await post(client, one, REQUESTS, body)
    assert isinstance(outcome, dict)
    time = outcome.pop("time")
    assert time.endswith("Z")
    assert (status, outcome) == (
        200,
        {
            "state": "committed",
            "index": stored.index,
            "epoch": stored.epoch,
            "digest": stored.digest.hex(),
            "collection": A.collection,
            "key": "a",
            "done": "i",
        },
    )


async def test_a_request_whose_entry_the_log_has_no_longer(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored,) = await one.store_all(A)
    monkeypatch.setattr(one.store.log, "base", Point(stored.index, stored.digest))
    body = json.dumps({"request": A.request}).encode()
    _, (outcome,) = await post(client, one, REQUESTS, body)
    assert outcome == {
        "state": "committed",
        "index": stored.index,
        "epoch": None,
        "digest": None,
        "collection": A.collection,
        "key": "a",
        "done": "i",
        "time": one.store.records.time,
    }


async def test_a_request_that_nobody_knows(client: Client, one: Driven) -> None:
    await one.store_all(A)
    assert await post(client, one, REQUESTS, b'{"request":"other"}') == (
        200,
        [{"state": "unknown"}],
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"request":7}'])
async def test_a_malformed_request_look_up_is_refused(
    client: Client, one: Driven, body: bytes
) -> None:
    status, _ = await post(client, one, REQUESTS, body)
    assert status == 400


async def test_a_request_is_found_in_a_damaged_record_store(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stored,) = await one.store_all(A)
    fail_once(one, "written_by", monkeypatch)
    body = json.dumps({"request": A.request}).encode()
    _, (outcome,) = await post(client, one, REQUESTS, body)
    assert isinstance(outcome, dict)
    assert outcome["index"] == stored.index
