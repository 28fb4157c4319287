"""Queries and histories through a gateway over replicas that fail on demand."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
import pytest

from replicad.core.query import Condition, Query, Refused, Relation
from tests.support.fake_leader import FORMS, FakeCluster, FakeLeader, Fault
from tests.support.gateway import Serve, raw_url

RECORDS = f"/v1/collections/{FORMS}/records"
EMPTY = b'{"items":[],"next":null}'


async def ask(
    gateway: aiohttp.ClientSession, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    async with gateway.get(raw_url(gateway, path), headers=headers) as response:
        body: dict[str, Any] = orjson.loads(await response.read())
        return response.status, body, response


async def test_a_query_reaches_the_leader_and_its_answer_comes_back_as_it_is(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["query"] = b'{"items":[{"n":1.0}],"next":null}'
    async with gateway.get(RECORDS, params={"a[gte]": "1", "count": "true"}) as response:
        assert response.status == 200
        assert await response.read() == leader.found["query"]
        assert response.headers["X-Replicad-Consistency"] == "strong"
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    condition = Condition("a", Relation.FROM, ("1",))
    assert leader.asked == [Query(FORMS, (condition,), counted=True)]


async def test_a_query_may_be_answered_by_any_replica(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    leader.found["query"] = EMPTY
    headers = {"X-Replicad-Consistency": "session", "X-Replicad-Min-Index": "0"}
    assert (await ask(gateway, RECORDS, headers))[0] == 200
    assert leader.reads == 1


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.NOT_LEADER, Fault.UNCONFIRMED])
async def test_a_query_is_asked_again(
    gateway: aiohttp.ClientSession, leader: FakeLeader, fault: Fault
) -> None:
    leader.found["query"] = EMPTY
    leader.faults.append(fault)
    assert (await ask(gateway, RECORDS))[0] == 200


@pytest.mark.parametrize(
    ("reason", "status", "slug"),
    [
        (Refused.NO_COLLECTION, 404, "no-such-collection"),
        (Refused.NOT_A_NUMBER, 400, "invalid-query"),
        (Refused.NOT_A_BOOLEAN, 400, "invalid-query"),
        (Refused.NO_FULL_TEXT, 400, "invalid-query"),
        (Refused.BUILDING, 503, "unavailable"),
        (Refused.TOO_BROAD, 422, "query-too-broad"),
        (Refused.PLACE_TOO_LONG, 422, "query-too-broad"),
        (Refused.GONE, 410, "history-gone"),
        (Refused.NOT_YET, 400, "invalid-request"),
    ],
)
async def test_what_is_refused_is_a_problem(
    gateway: aiohttp.ClientSession, leader: FakeLeader, reason: Refused, status: int, slug: str
) -> None:
    leader.found["query"] = orjson.dumps({"refused": reason, "fields": ["a", "b"]})
    for language in ("en", "es"):
        told, problem, _ = await ask(gateway, RECORDS, {"Accept-Language": language})
        assert (told, problem["type"]) == (status, f"urn:replicad:{slug}")
    if reason is Refused.TOO_BROAD:
        assert problem["fields"] == ["a", "b"]
    leader.found["query"] = orjson.dumps({"refused": reason, "fields": []})
    assert (await ask(gateway, RECORDS))[0] == status


@pytest.mark.parametrize("path", [f"{RECORDS}?limit=x", f"{RECORDS}?a%22=1", f"{RECORDS}?cursor=x"])
async def test_an_invalid_query_reaches_nobody(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str
) -> None:
    status, problem, _ = await ask(gateway, path)
    assert (status, problem["type"]) == (400, "urn:replicad:invalid-query")
    assert leader.asked == []


async def test_without_a_leader_a_query_is_unavailable(serve: Serve, leader: FakeLeader) -> None:
    gateway = await serve(request_s=0.2)
    leader.faults.extend([Fault.NOT_LEADER] * 1000)
    assert (await ask(gateway, RECORDS))[0] == 503


# -- the past ------------------------------------------------------------------------------------

HISTORY = (
    b'{"items":[{"index":7,"time":"2026-01-01T00:00:00.000Z","operation":"insert","digest":"ab",'
    b'"value":{"n":1.0}}],"next":"7","from_index":1}'
)


async def test_a_history_is_given_page_by_page(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["versions"] = HISTORY
    async with gateway.get(f"{RECORDS}/a/history?limit=1&cursor=5") as response:
        assert (response.status, await response.read()) == (200, HISTORY)
    assert leader.asked == [{"collection": FORMS, "key": "a", "after": "5", "limit": "1"}]


async def test_a_record_that_never_was_has_no_history(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["versions"] = b'{"items":[],"next":null,"from_index":1}'
    status, problem, _ = await ask(gateway, f"{RECORDS}/a/history")
    assert (status, problem["type"]) == (404, "urn:replicad:no-such-record")
    status, problem, _ = await ask(gateway, "/v1/collections/none/records/a/history")
    assert (status, problem["type"]) == (404, "urn:replicad:no-such-collection")
    leader.forms["a"] = b'{"id":"a"}'  # Older than the log.
    assert (await ask(gateway, f"{RECORDS}/a/history"))[0] == 200


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("at_index=7", {"index": "7"}),
        ("at_time=2026-01-02T03:04:05Z", {"time": "2026-01-02T03:04:05.000Z"}),
        ("at_time=2026-01-02T03:04:05.6789Z", {"time": "2026-01-02T03:04:05.678Z"}),
        ("at_time=2026-01-02T03:04:05.123456789Z", {"time": "2026-01-02T03:04:05.123Z"}),
        ("at_time=2026-01-02T03:04:05%2B01:00", {"time": "2026-01-02T02:04:05.000Z"}),
        ("at_time=2026-01-02T03:04:05+01:00", {"time": "2026-01-02T02:04:05.000Z"}),
        ("at_time=0999-01-02T03:04:05Z", {"time": "1970-01-01T00:00:00.000Z"}),
        ("at_time=2026-01-02T03:04:05-01:00", {"time": "2026-01-02T04:04:05.000Z"}),
    ],
)
async def test_a_record_is_given_as_it_was(
    gateway: aiohttp.ClientSession, leader: FakeLeader, query: str, asked: dict[str, str]
) -> None:
    leader.found["past"] = b'6 {"n":1.0}\n'
    async with gateway.get(raw_url(gateway, f"{RECORDS}/a?{query}")) as response:
        assert (response.status, await response.read()) == (200, b'{"n":1.0}')
        assert response.headers["ETag"] == '"6"'
    assert leader.asked == [{"collection": FORMS, "key": "a", **asked}]


async def test_there_was_no_such_record_then(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["past"] = b"0\n"
    status, problem, _ = await ask(gateway, f"{RECORDS}/a?at_index=1")
    assert (status, problem["type"]) == (404, "urn:replicad:no-such-record")


async def test_a_replica_that_talks_nonsense_is_asked_again(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["past"] = b"6 {}\n"
    leader.faults.append(Fault.GARBAGE)
    assert (await ask(gateway, f"{RECORDS}/a?at_index=7"))[0] == 200


@pytest.mark.parametrize(
    "query",
    [
        "at_index=x",
        "at_index=-1",
        "at_index=" + "9" * 19,
        "at_index=1&at_index=2",
        "at_index=1&at_time=2026-01-02T03:04:05Z",
        "at_index=1&verify=all",
        "at_time=",
        "at_time=2026-01-02",
        "at_time=2026-13-02T03:04:05Z",
        "at_time=2026-01-02T03:04:05",
        "at_time=0000-01-01T00:00:00Z",
    ],
)
async def test_a_moment_that_is_none_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, query: str
) -> None:
    status, problem, _ = await ask(gateway, f"{RECORDS}/a?{query}")
    assert (status, problem["type"]) == (400, "urn:replicad:invalid-query")
    assert leader.asked == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "sort=a"])
async def test_an_invalid_page_of_a_history_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, query: str
) -> None:
    status, problem, _ = await ask(gateway, f"{RECORDS}/a/history?{query}")
    assert (status, problem["type"]) == (400, "urn:replicad:invalid-query")


@pytest.mark.parametrize(
    "query", ["u=%ff", "u=%ED%A0%80", "%c3=x", "u=%", "u=50%25&x=5%zz", "q=%c"]
)
@pytest.mark.parametrize("path", [RECORDS, f"{RECORDS}/a", "/v1/collections"])
async def test_a_query_string_that_is_no_text_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str, query: str
) -> None:
    leader.found["query"] = EMPTY
    status, problem, _ = await ask(gateway, f"{path}?{query}")
    assert (status, problem["type"]) == (400, "urn:replicad:invalid-query")
    assert not leader.asked


async def test_a_query_string_may_hold_any_text(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.found["query"] = EMPTY
    assert (await ask(gateway, f"{RECORDS}?u=50%25+%C3%B1%EF%BF%BD&v=%F0%9F%98%80"))[0] == 200
    (query,) = leader.asked
    assert isinstance(query, Query)
    assert [each.texts for each in query.conditions] == [("50% ñ\ufffd",), ("😀",)]
