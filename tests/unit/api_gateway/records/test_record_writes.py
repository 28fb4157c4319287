"""Definitions that change, requests that are repeated, records that change under a patch."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

import api_gateway.records.definitions as definitions_module
from replicad.core.write import DEFINITIONS, WRITE_BYTES_MAX
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form
from tests.support.gateway import Serve, ask

C = "/v1/collections/c/records"
KEY = {"Idempotency-Key": "k"}


def define(leader: FakeLeader, schema: dict[str, Any] | None = None, **members: object) -> None:
    """Change the definition of `c`, as through another gateway."""
    leader.last += 1
    value = orjson.dumps({"name": "c", "schema": schema, **members})
    leader.records.setdefault(DEFINITIONS, {})["c"] = value
    leader.versions[DEFINITIONS, "c"] = leader.last


async def test_a_definition_is_read_once(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    for n in range(3):
        assert (await ask(gateway, "PUT", f"{C}/r{n}", {"id": f"r{n}"}))[0] == 201
    assert [write.definition for write in leader.writes] == [1, 1, 1]
    assert leader.definitions_read == ["c"]


async def test_only_so_many_definitions_are_kept(
    serve: Serve, leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions_module, "_KEPT_MAX", 2)
    gateway = await serve()
    for name in "xyz":
        leader.records.setdefault(DEFINITIONS, {})[name] = orjson.dumps({"name": name})
    for name in "xyzzyx":  # The one that was used longest ago goes first.
        path = f"/v1/collections/{name}/records/a"
        assert (await ask(gateway, "PUT", path, {"id": "a"}))[0] in (200, 201)
    assert leader.definitions_read == ["x", "y", "z", "x"]


async def test_a_record_is_checked_by_the_definition_there_is(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    assert (await ask(gateway, "PUT", f"{C}/a", {"id": "a"}))[0] == 201
    define(leader, {"required": ["n"]})
    status, told, _ = await ask(gateway, "PUT", f"{C}/b", {"id": "b"})
    assert (status, told["type"]) == (422, "urn:replicad:invalid-record")
    assert (await ask(gateway, "PUT", f"{C}/b", {"id": "b", "n": 1}))[0] == 201
    assert [write.definition for write in leader.writes] == [1, 1, 3]


async def test_a_record_is_not_refused_by_a_definition_of_the_past(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader, {"required": ["n"]}, key="dni")
    assert (await ask(gateway, "PUT", f"{C}/a", {"dni": "a"}))[0] == 422
    define(leader, key="id")
    assert (await ask(gateway, "PUT", f"{C}/a", {"id": "a"}))[0] == 201
    define(leader, key="dni")
    assert (await ask(gateway, "POST", C, {"dni": "b"}))[0] == 201


async def test_a_collection_that_was_removed_is_missed(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    assert (await ask(gateway, "PUT", f"{C}/a", {"id": "a"}))[0] == 201
    del leader.records[DEFINITIONS]["c"]
    for method, path in (("PUT", f"{C}/a"), ("POST", C), ("PATCH", f"{C}/a")):
        status, told, _ = await ask(gateway, method, path, {"id": "a"})
        assert (status, told["type"]) == (404, "urn:replicad:no-such-collection")


# -- the same request again -------------------------------------------------------------------


@pytest.mark.parametrize("repeated", ["after other writes", "at another leader"])
@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("PUT", "a", {"id": "a", "n": 1}),
        ("PATCH", "a", {"n": 1}),
        ("DELETE", "a", None),
        ("POST", "", {"id": "new"}),
        (
            "POST",
            ":batch",
            {"operations": [{"operation": "delete", "id": "a", "if_match": '"1"'}]},
        ),
    ],
)
async def test_the_first_answer_is_replayed(
    gateway: aiohttp.ClientSession,
    cluster: FakeCluster,
    leader: FakeLeader,
    method: str,
    path: str,
    told: object,
    repeated: str,
) -> None:
    leader.forms["a"] = form("a")
    path = f"/v1/collections/formularios/records{'/' if path == 'a' else ''}{path}"
    status, first, headers = await ask(gateway, method, path, told, KEY)
    assert status in (200, 201)
    assert "Idempotency-Replayed" not in headers
    if repeated == "at another leader":
        successor = await cluster.replica("n2")
        cluster.fail_over(leader, successor)
        await leader.stop()
    else:
        leader.forms.clear()
    again, second, headers = await ask(gateway, method, path, told, KEY)
    assert (again, second) == (status, first)
    assert headers["Idempotency-Replayed"] == "true"


async def test_the_first_answer_counts_whatever_the_definition_says_now(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    _, first, _ = await ask(gateway, "PUT", f"{C}/a", {"id": "a"}, KEY)
    define(leader, {"required": ["n"]})
    status, second, _ = await ask(gateway, "PUT", f"{C}/a", {"id": "a"}, KEY)
    assert (status, second) == (201, first)
    assert (await ask(gateway, "PUT", f"{C}/a", {"id": "a", "x": 1}, KEY))[0] == 422
    status, told, _ = await ask(gateway, "PUT", f"{C}/a", {"id": "a", "n": 1}, KEY)
    assert (status, told["type"]) == (422, "urn:replicad:idempotency-key-reused")
    del leader.records[DEFINITIONS]["c"]
    status, second, _ = await ask(gateway, "PUT", f"{C}/a", {"id": "a"}, KEY)
    assert (status, second) == (201, first)


async def test_the_first_answer_counts_wherever_the_id_is_looked_for_now(
    serve: Serve, leader: FakeLeader
) -> None:
    """A gateway that has just started knows an insert's id by today's definition only."""
    define(leader, key="dni")
    told = {"dni": "a", "id": "b"}
    _, first, _ = await ask(await serve(), "POST", C, told, KEY)
    assert first["id"] == "a"
    leader.records["c"].clear()
    for schema, key in ((None, "id"), ({"required": ["n"]}, "id"), (None, "x")):
        define(leader, schema, key=key)
        status, second, headers = await ask(await serve(), "POST", C, told, KEY)
        assert (status, second) == (201, first)
        assert headers["Idempotency-Replayed"] == "true"
    del leader.records[DEFINITIONS]["c"]
    gateway = await serve()
    assert (await ask(gateway, "POST", C, told, KEY))[:2] == (201, first)
    assert (await ask(gateway, "POST", C, told))[0] == 404


async def test_an_insert_without_an_id_is_first_of_all_another_request(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    batch = {"operations": [{"id": "b", "value": {"id": "b"}}, {"id": "c", "value": {"id": "c"}}]}
    for path, first in ((C, {"id": "a"}), (f"{C}:batch", batch)):
        key = {"Idempotency-Key": path}
        assert (await ask(gateway, "POST", path, first, key))[0] in (200, 201)
        for removed in (False, True):
            if removed:
                definition = leader.records[DEFINITIONS].pop("c")
            status, told, _ = await ask(gateway, "POST", C, {"x": 1}, key)
            assert (status, told["type"]) == (422, "urn:replicad:idempotency-key-reused")
        leader.records[DEFINITIONS]["c"] = definition
    status, told, _ = await ask(gateway, "POST", C, {"x": 1}, {"Idempotency-Key": "new"})
    assert (status, told["type"]) == (422, "urn:replicad:invalid-record")
    status, told, _ = await ask(gateway, "POST", "/v1/collections/d/records", {"id": "a"}, KEY)
    assert (status, told["type"]) == (404, "urn:replicad:no-such-collection")


async def test_a_rejection_is_judged_anew(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    define(leader)
    assert (await ask(gateway, "DELETE", f"{C}/a", None, KEY))[0] == 404
    assert (await ask(gateway, "PUT", f"{C}/a", {"id": "a"}))[0] == 201
    assert (await ask(gateway, "DELETE", f"{C}/a", None, KEY))[0] == 200


async def test_what_the_gateway_itself_sent_twice_is_no_replay(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.faults.append(Fault.RESET_AFTERWARDS)
    path = "/v1/collections/formularios/records/a"
    status, _, headers = await ask(gateway, "PUT", path, {"id": "a"}, KEY)
    assert status == 201
    assert "Idempotency-Replayed" not in headers
    assert [write.attempt for write in leader.writes] == [1, 2]
    assert len({write.call for write in leader.writes}) == 1


# -- patches ----------------------------------------------------------------------------------


async def test_patches_of_one_record_at_once_are_all_applied(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = b'{"id":"a","x":1.0e0}'
    path = "/v1/collections/formularios/records/a"
    answers = await asyncio.gather(
        *(ask(gateway, "PATCH", path, {f"f{n}": n}, {"Idempotency-Key": f"k{n}"}) for n in range(9))
    )
    assert {status for status, *_ in answers} == {200}
    kept = leader.forms["a"]
    assert kept.startswith(b'{"id":"a","x":1.0e0,')
    assert orjson.loads(kept) == {"id": "a", "x": 1.0} | {f"f{n}": n for n in range(9)}
    assert len(leader.requests) == 9


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.RESET_AFTERWARDS, Fault.NOT_LEADER])
async def test_a_patch_survives(
    gateway: aiohttp.ClientSession, leader: FakeLeader, fault: Fault
) -> None:
    leader.forms["a"] = form("a")
    leader.faults.extend([fault, fault])
    path = "/v1/collections/formularios/records/a"
    assert (await ask(gateway, "PATCH", path, {"n": 1}))[0] == 200
    assert leader.forms == {"a": form("a", n=1)}
    assert len(leader.requests) == 1


async def test_a_write_without_a_leader_ends_at_its_deadline(
    serve: Serve, cluster: FakeCluster, leader: FakeLeader
) -> None:
    gateway = await serve(request_s=0.5)
    cluster.without_leader()
    for method in ("PUT", "PATCH", "DELETE"):
        path = "/v1/collections/formularios/records/a"
        status, told, headers = await ask(gateway, method, path, {"id": "a"}, KEY)
        assert (status, told["type"]) == (503, "urn:replicad:unavailable")
        assert int(headers["Retry-After"]) > 0


async def test_an_unknown_outcome_is_called_so(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.6)
    leader.faults.append(Fault.HANG_AFTERWARDS)
    path = "/v1/collections/formularios/records/a"
    status, told, headers = await ask(gateway, "PUT", path, {"id": "a"}, KEY)
    assert (status, told["type"]) == (504, "urn:replicad:outcome-unknown")
    assert headers["Idempotency-Key"] == "k"
    leader.release.set()
    status, _, headers = await ask(gateway, "PUT", path, {"id": "a"}, KEY)
    assert (status, headers["Idempotency-Replayed"]) == (201, "true")


async def test_what_was_asked_before_may_not_be_known_now(serve: Serve, leader: FakeLeader) -> None:
    """The gateway would refuse the record; whether it was stored before is another question."""
    gateway = await serve(request_s=0.6)
    leader.faults.append(Fault.HANG)
    path = "/v1/collections/formularios/records/a"
    status, told, _ = await ask(gateway, "PUT", path, {"id": "a", "nombres": 7}, KEY)
    assert (status, told["type"]) == (503, "urn:replicad:unavailable")
    leader.release.set()
    status, told, _ = await ask(gateway, "PUT", path, {"id": "a", "nombres": 7}, KEY)
    assert (status, told["type"]) == (422, "urn:replicad:invalid-record")


async def test_a_batch_that_fits_no_entry_is_refused_alone(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    path = "/v1/collections/formularios/records"
    values = [{"id": f"r{n}", "x": "y" * (2**20 - 300)} for n in range(16)]
    body = {"operations": [{"id": value["id"], "value": value} for value in values]}
    assert WRITE_BYTES_MAX < len(orjson.dumps(body)) < 2**24
    (refused, *_), (stored, *_) = await asyncio.gather(
        ask(gateway, "POST", f"{path}:batch", body), ask(gateway, "POST", path, {"id": "a"})
    )
    assert (refused, stored) == (413, 201)
