"""Records one at a time, through a gateway whose leader is a fake."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.fake_leader import DIGEST, FakeLeader, form
from tests.support.gateway import raw_url

RECORDS = "/v1/collections/formularios/records"
A = f"{RECORDS}/a"
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


async def ask(
    gateway: aiohttp.ClientSession,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    """Status, what the body says, headers."""
    url = raw_url(gateway, path)
    data = None if body is None else BytesIO(body)
    async with gateway.request(method, url, data=data, headers={**JSON, **(headers or {})}) as it:
        text = await it.read()
        return it.status, orjson.loads(text) if text else None, it.headers


async def problem_of(
    gateway: aiohttp.ClientSession,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str, Any]:
    """Status, slug and all members of a problem."""
    status, told, answered = await ask(gateway, method, path, body, headers)
    assert answered["Content-Type"] == PROBLEM
    assert told["status"] == status
    return status, told["type"].removeprefix("urn:replicad:"), told


# -- writes ---------------------------------------------------------------------------------------


async def test_a_put_makes_a_record_and_replaces_it(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    body = '{"id": "a", "n": 1.0, "s": "\\/é"}'.encode()
    status, receipt, headers = await ask(gateway, "PUT", A, body)
    assert status == 201
    assert receipt == {
        "collection": "formularios",
        "id": "a",
        "operation": "insert",
        "index": 1,
        "epoch": 1,
        "digest": DIGEST,
        "replicas": ["n1", "n2"],
        "etag": '"1"',
    }
    assert headers["ETag"] == '"1"'
    assert headers["Location"] == A
    assert headers["X-Replicad-Index"] == "1"
    assert "Idempotency-Replayed" not in headers
    assert leader.forms["a"] == '{"id":"a","n":1.0,"s":"\\/é"}'.encode()

    status, receipt, headers = await ask(gateway, "PUT", A, form("a"))
    assert (status, receipt["operation"], headers["ETag"]) == (200, "update", '"2"')
    assert "Location" not in headers
    assert leader.forms["a"] == form("a")


async def test_a_post_makes_a_record_and_replaces_none(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    status, receipt, headers = await ask(gateway, "POST", RECORDS, form("a"))
    assert (status, receipt["id"], headers["Location"]) == (201, "a", A)
    assert await problem_of(gateway, "POST", RECORDS, form("a", n=1)) == (
        409,
        "record-exists",
        {
            "type": "urn:replicad:record-exists",
            "title": "The record exists",
            "status": 409,
            "detail": "There is a record with this id already.",
            "etag": '"1"',
        },
    )
    assert leader.forms == {"a": form("a")}


async def test_a_delete_says_so_and_lets_the_id_be_used_again(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    await ask(gateway, "PUT", A, form("a"))
    status, receipt, headers = await ask(gateway, "DELETE", A)
    assert (status, receipt["operation"], receipt["etag"]) == (200, "delete", None)
    assert "ETag" not in headers
    assert leader.forms == {}
    assert (await problem_of(gateway, "DELETE", A))[:2] == (404, "no-such-record")
    status, receipt, _ = await ask(gateway, "POST", RECORDS, form("a"))
    assert (status, receipt["etag"]) == (201, '"3"')


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {"If-Match": '"1"'}, 200),
        ("PUT", {"If-Match": '"9", "1"'}, 200),
        ("PUT", {"If-Match": "*"}, 200),
        ("PUT", {"If-Match": '"2"'}, 412),
        ("PUT", {"If-Match": 'W/"1"'}, 412),
        ("PUT", {"If-Match": '"x"'}, 412),
        ("PUT", {"If-None-Match": "*"}, 412),
        ("PATCH", {"If-Match": '"1"'}, 200),
        ("PATCH", {"If-Match": '"2"'}, 412),
        ("DELETE", {"If-Match": '"1"'}, 200),
        ("DELETE", {"If-Match": '"2"'}, 412),
    ],
)
async def test_conditions_on_a_record(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    method: str,
    headers: dict[str, str],
    status: int,
) -> None:
    leader.forms["a"] = form("a")
    body = None if method == "DELETE" else form("a", n=1)
    answered, told, _ = await ask(gateway, method, A, body, headers)
    assert answered == status
    if status == 412:
        assert told["type"] == "urn:replicad:precondition-failed"
        assert told["etag"] == '"1"'
        assert leader.forms == {"a": form("a")}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("if_match", ["*", '"1"'])
async def test_conditions_on_a_record_that_is_not_there(
    gateway: aiohttp.ClientSession, leader: FakeLeader, method: str, if_match: str
) -> None:
    body = None if method == "DELETE" else form("a")
    status, slug, told = await problem_of(gateway, method, A, body, {"If-Match": if_match})
    assert (status, slug, told["etag"]) == (412, "precondition-failed", None)
    assert (await ask(gateway, "PUT", A, form("a"), {"If-None-Match": "*"}))[0] == 201


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("PUT", {"If-Match": "1"}),
        ("PUT", {"If-None-Match": '"1"'}),
        ("PUT", {"If-Match": "*", "If-None-Match": "*"}),
        ("PATCH", {"If-None-Match": "*"}),
        ("DELETE", {"If-None-Match": "*"}),
        ("POST", {"If-Match": "*"}),
        ("POST", {"If-None-Match": "*"}),
        ("PUT", {"Idempotency-Key": "a b"}),
    ],
)
async def test_headers_that_make_no_sense(
    gateway: aiohttp.ClientSession, leader: FakeLeader, method: str, headers: dict[str, str]
) -> None:
    path = RECORDS if method == "POST" else A
    assert (await problem_of(gateway, method, path, form("a"), headers))[:2] == (
        400,
        "invalid-request",
    )
    assert not leader.writes


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("PUT", A, b"{", 400, "invalid-json"),
        ("PUT", A, b"[]", 400, "invalid-json"),
        ("PUT", A, b'{"id":"a","x":1,"x":2}', 400, "invalid-json"),
        ("PATCH", A, b"null", 400, "invalid-json"),
        ("PUT", A, b"{}", 422, "invalid-record"),
        ("PUT", A, form("b"), 422, "invalid-record"),
        ("PUT", A, form("a", nombres=7), 422, "invalid-record"),
        ("POST", RECORDS, b"{}", 422, "invalid-record"),
        ("POST", RECORDS, form("-"), 422, "invalid-record"),
        ("PATCH", A, b'{"id":null}', 422, "invalid-record"),
        ("PATCH", A, b'{"id":"b"}', 422, "invalid-record"),
        ("PATCH", A, b'{"nombres":7}', 422, "invalid-record"),
        ("PUT", f"{RECORDS}/-", form("a"), 400, "invalid-id"),
        ("PUT", f"{RECORDS}/a%2Fb", form("a"), 400, "invalid-id"),
        ("GET", f"{RECORDS}/%00", None, 400, "invalid-id"),
        ("PUT", "/v1/collections/_collections/records/a", form("a"), 400, "invalid-id"),
        ("PUT", "/v1/collections/none/records/a", form("a"), 404, "no-such-collection"),
        ("POST", "/v1/collections/none/records", form("a"), 404, "no-such-collection"),
        ("PATCH", "/v1/collections/none/records/a", b"{}", 404, "no-such-collection"),
        ("DELETE", "/v1/collections/none/records/a", None, 404, "no-such-collection"),
        ("GET", "/v1/collections/none/records/a", None, 404, "no-such-collection"),
        ("GET", f"{RECORDS}/none", None, 404, "no-such-record"),
        ("PATCH", f"{RECORDS}/none", b"{}", 404, "no-such-record"),
        ("GET", f"{A}?at_idx=7", None, 400, "invalid-query"),
        ("POST", A, form("a"), 405, "method-not-allowed"),
        ("PUT", A, b'{"id":"a","x":"' + b"y" * 2**20 + b'"}', 413, "too-large"),
        ("PATCH", A, b'{"y":"' + b"y" * 2**19 + b'"}', 413, "too-large"),
    ],
)
async def test_bad_requests_change_nothing(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    slug: str,
) -> None:
    leader.forms["a"] = form("a", big="x" * 2**19)
    assert (await problem_of(gateway, method, path, body))[:2] == (status, slug)
    assert not leader.writes


@pytest.mark.parametrize(
    ("language", "genero", "key", "detail"),
    [
        (
            "en",
            'value is not of types "null", "string"',
            "must be there, and be an id.",
            "The record is not as its collection wants it. /id: must be there, and be an id.",
        ),
        (
            "es",
            "el valor no es de tipo nulo o texto",
            "debe estar, y ser un id.",
            "El registro no es como su colección lo pide. /id: debe estar, y ser un id.",
        ),
    ],
)
async def test_what_is_wrong_with_a_record_is_told_once_in_the_clients_language(
    gateway: aiohttp.ClientSession, language: str, genero: str, key: str, detail: str
) -> None:
    body = b'{"genero":[]}'
    _, _, told = await problem_of(gateway, "PUT", A, body, {"Accept-Language": language})
    assert told["errors"] == [
        {"path": "/id", "message": key},
        {"path": "/genero", "message": genero},
    ]
    assert told["detail"] == detail
    _, _, told = await problem_of(gateway, "PUT", A, b'{"id":"b"}', {"Accept-Language": language})
    (error,) = told["errors"]
    assert error["message"].startswith("debe ser" if language == "es" else "must be")


@pytest.mark.parametrize(
    ("method", "media_type", "status"),
    [
        ("PUT", "application/json; charset=utf-8", 200),
        ("PUT", "application/x-www-form-urlencoded", 415),
        ("PUT", "application/merge-patch+json", 415),
        ("PATCH", "application/merge-patch+json", 200),
        ("PATCH", "application/json-patch+json", 415),
    ],
)
async def test_media_types(
    gateway: aiohttp.ClientSession, leader: FakeLeader, method: str, media_type: str, status: int
) -> None:
    leader.forms["a"] = form("a")
    answer = await ask(gateway, method, A, form("a"), {"Content-Type": media_type})
    assert answer[0] == status


# -- reads ----------------------------------------------------------------------------------------


async def test_a_record_is_given_back_as_it_is_stored(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = b'{"z":1.0,"id":"a","b":"\\u00e9"}'
    async with gateway.get(A) as response:
        assert await response.read() == leader.forms["a"]
        assert response.headers["ETag"] == '"1"'
        assert response.headers["X-Replicad-Consistency"] == "strong"
        assert response.headers["X-Replicad-Index"] == "1"
    for if_none_match, status in (('"1"', 304), ("*", 304), ('W/"1"', 304), ('"2"', 200)):
        async with gateway.get(A, headers={"If-None-Match": if_none_match}) as response:
            assert response.status == status
            assert response.headers["ETag"] == '"1"'
            assert (await response.read() == b"") is (status == 304)


async def test_a_local_read_needs_no_leader_even_for_what_is_not_there(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.records["_collections"] = {"c": orjson.dumps({})}
    for collection, slug in (("c", "no-such-record"), ("none", "no-such-collection")):
        path = f"/v1/collections/{collection}/records/a"
        headers = {"X-Replicad-Consistency": "local"}
        assert (await problem_of(gateway, "GET", path, headers=headers))[:2] == (404, slug)
    assert leader.batches["gets"] == [1, 1]


# -- several at once ------------------------------------------------------------------------------


def batch(*operations: dict[str, Any]) -> bytes:
    return orjson.dumps({"operations": operations})


async def test_a_batch_is_one_write(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    leader.forms |= {"b": form("b"), "c": form("c")}
    body = batch(
        {"id": "a", "value": {"id": "a"}},
        {"operation": "delete", "id": "b", "if_match": '"1"'},
        {"operation": "update", "id": "c", "value": {"id": "c", "n": 1}},
    )
    status, receipt, _ = await ask(gateway, "POST", f"{RECORDS}:batch", body)
    assert status == 200
    assert receipt == {
        "collection": "formularios",
        "index": 3,
        "epoch": 1,
        "digest": DIGEST,
        "replicas": ["n1", "n2"],
        "results": [
            {"id": "a", "operation": "insert", "etag": '"3"'},
            {"id": "b", "operation": "delete", "etag": None},
            {"id": "c", "operation": "update", "etag": '"3"'},
        ],
    }
    assert leader.forms == {"c": form("c", n=1), "a": form("a")}


@pytest.mark.parametrize(
    ("operation", "status", "slug", "etag"),
    [
        ({"operation": "insert", "value": {"id": "a"}}, 409, "record-exists", '"1"'),
        ({"operation": "update", "id": "z", "value": {"id": "z"}}, 404, "no-such-record", ...),
        ({"operation": "delete", "id": "z"}, 404, "no-such-record", ...),
        ({"operation": "delete", "if_match": '"7"'}, 412, "precondition-failed", '"1"'),
        ({"operation": "delete", "id": "z", "if_match": "*"}, 412, "precondition-failed", None),
        ({"value": {"id": "b"}}, 422, "invalid-record", ...),
        ({"value": []}, 400, "invalid-request", ...),
    ],
)
async def test_a_batch_is_all_or_nothing(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    operation: dict[str, Any],
    status: int,
    slug: str,
    etag: object,
) -> None:
    leader.forms["a"] = form("a")
    body = batch({"id": "new", "value": {"id": "new"}}, {"id": "a", **operation})
    answered, said, told = await problem_of(gateway, "POST", f"{RECORDS}:batch", body)
    assert (answered, said, told["position"]) == (status, slug, 1)
    assert told.get("etag", ...) == etag
    if status != 400:
        assert told["id"] == operation.get("id", "a")
    assert leader.forms == {"a": form("a")}


async def test_a_large_batch(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    value = {"x": "y" * 15_000}
    body = batch(*({"id": f"r{n}", "value": {"id": f"r{n}", **value}} for n in range(1000)))
    status, receipt, _ = await ask(gateway, "POST", f"{RECORDS}:batch", body)
    assert (status, len(receipt["results"])) == (200, 1000)
    assert len(leader.forms) == 1000
    body = batch(*({"id": f"s{n}", "value": {"x": "y" * 2**20}} for n in range(16)))
    assert (await problem_of(gateway, "POST", f"{RECORDS}:batch", body))[:2] == (413, "too-large")
    # A body within its limit may be too large for the log, where numbers and names go along.
    text = "y" * (2**20 - 600)
    values = [{"id": f"t{n}", "value": {"id": f"t{n}", "x": text}} for n in range(16)]
    status, said, told = await problem_of(gateway, "POST", f"{RECORDS}:batch", batch(*values))
    assert (status, said) == (413, "too-large")
    assert "16 KiB less" in told["detail"]
    assert len(leader.forms) == 1000
