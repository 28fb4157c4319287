"""What is served in front of aiohttp is served as by it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any

import aiohttp
import pytest

from api_gateway.app import serve_gateway
from api_gateway.web.express import Express
from api_gateway.web.limits import Limits
from replicad.coordination.memory import MemoryCoordinator
from replicad.httpd.messages import Answer, Request
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form, one_leader
from tests.support.gateway import client_of, raw_url
from tests.support.raw_http import Told, address_of, told
from tests.support.waiting import eventually

FORM = "/API/ObtenerUnFormulario/"
RECORD = "/v1/collections/formularios/records/"


@pytest.mark.parametrize("path", [FORM, RECORD])
@pytest.mark.parametrize("query", ["", "?consistency=local", "?consistency=nothing"])
@pytest.mark.parametrize("known", [True, False])
async def test_reads_are_the_same(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str, query: str, known: bool
) -> None:
    if known:
        leader.forms["a"] = form("a")
    told = []
    for key in ("a", "%61"):
        async with gateway.get(raw_url(gateway, f"{path}{key}{query}")) as response:
            told.append((response.status, dict(response.headers), await response.read()))
    assert told[0] == told[1]
    assert told[0][1]["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", [RECORD, RECORD.replace("formularios", "-x")])
@pytest.mark.parametrize("sent", ["PUT", "GET"])
async def test_a_bad_name_is_told(gateway: aiohttp.ClientSession, path: str, sent: str) -> None:
    async with gateway.request(sent, f"{path}-a", json={"id": "-a"}) as response:
        assert response.status == 400
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        told = await response.json(content_type="application/problem+json")
        assert told["type"] == "urn:replicad:invalid-id"


async def test_a_route_is_counted_as_one(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    for key in ("b", "%62", "c"):
        url = raw_url(gateway, f"{RECORD}{key}")
        body = form(key.replace("%62", "b"))
        async with gateway.put(url, data=body, headers={"Content-Type": "application/json"}) as it:
            assert it.status in (200, 201)
        async with gateway.get(raw_url(gateway, f"{FORM}{key}")):
            pass
    async with gateway.post("/API/IngresarFormulario", data=form("d"), expect100=True) as it:
        assert it.status == 200
    async with gateway.post("/API/IngresarFormulario", data=form("e")) as it:
        assert it.status == 200
    async with gateway.get("/metrics") as response:
        told = await response.text()
    route = 'route="/v1/collections/{collection}/records/{id}"'
    for line in (
        f'replicad_gateway_requests_total{{method="PUT",{route},status="201"}} 2.0',
        f'replicad_gateway_requests_total{{method="PUT",{route},status="200"}} 1.0',
        f"replicad_gateway_request_seconds_count{{{route}}} 3.0",
        f'replicad_gateway_request_seconds_bucket{{le="+Inf",{route}}} 3.0',
        'replicad_gateway_request_seconds_count{route="/API/ObtenerUnFormulario/{id}"} 3.0',
        'replicad_gateway_request_seconds_count{route="/API/IngresarFormulario"} 2.0',
    ):
        assert line in told


async def test_a_defect_is_told_as_such(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_gateway.routes.records.check_name", lambda name: 1 / 0)
    async with gateway.get(f"{RECORD}a") as response:
        assert response.status == 500
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"


async def test_pages_of_named_origins_may_read_it(cluster: FakeCluster, leader: FakeLeader) -> None:
    leader.forms["a"] = form("a")
    origin = "https://forms.example"
    runner = await serve_gateway(
        MemoryCoordinator(cluster.store),
        host="127.0.0.1",
        port=0,
        cors_origins=frozenset({origin}),
    )
    async with client_of(runner) as client:
        for path in (f"{FORM}a", f"{RECORD}a", f"{RECORD}none"):
            async with client.get(path, headers={"Origin": origin}) as response:
                assert response.headers["Access-Control-Allow-Origin"] == origin
                assert "Accept-Encoding, Origin" in response.headers.getall("Vary")
    await runner.cleanup()


# -- over the wire, with and without ------------------------------------------------------------

LARGE = form("large", x="y" * 3_000)
HEAD = b" HTTP/1.1\r\nHost: x\r\n"
INSERT = b"POST /API/IngresarFormulario" + HEAD
IN_RECORDS = RECORD.encode()
IN_FORMS = FORM.encode()


_keys = count()


def sent(start: bytes, body: bytes, *headers: bytes, key: bytes = b"") -> bytes:
    given = [key or b"Idempotency-Key: k%d" % next(_keys), *headers]
    head = b"".join(header + b"\r\n" for header in given)
    return start + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def put(body: bytes, *headers: bytes, record: bytes = b"a") -> bytes:
    return sent(b"PUT " + IN_RECORDS + record + HEAD, body, *headers)


def get(path: bytes, *headers: bytes) -> bytes:
    return b"GET " + path + HEAD + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


REQUESTS = [
    sent(INSERT, form("a")),
    sent(INSERT, form("stored")),
    sent(INSERT, b' { "id" : "a" } '),
    sent(INSERT, b"{}"),
    sent(INSERT, b""),
    sent(INSERT, b"{"),
    sent(INSERT, b"\xff"),
    sent(INSERT, form("a", x="ñ"), b"Content-Type: text/plain"),
    sent(INSERT, form("a"), b"Content-Type: application/json", b"Accept-Language: es"),
    sent(INSERT, form("a"), key=b"Idempotency-Key: a b"),
    sent(INSERT, form("a"), key=b"Idempotency-Key:"),
    sent(INSERT, form("a"), b"Idempotency-Key: l"),
    sent(INSERT, form("a"), b"Content-Encoding: gzip"),
    sent(INSERT, form("a"), b"Content-Encoding: identity"),
    sent(INSERT, form("a"), b"Connection: close"),
    sent(INSERT, form("a", x="y" * 70_000)),
    sent(INSERT, form("a", x="y" * 1_100_000)),
    sent(INSERT.replace(b" HTTP", b"/ HTTP"), form("a")),
    sent(INSERT.replace(b" HTTP", b"?x=y HTTP"), form("a")),
    put(form("a")),
    put(form("b")),
    put(form("fresh"), record=b"fresh"),
    put(form("stored", x="new"), record=b"stored"),
    put(form("stored"), b'If-Match: "1"', record=b"stored"),
    put(form("stored"), b'If-Match: "7"', record=b"stored"),
    put(form("stored"), b"If-Match: 7", record=b"stored"),
    put(form("stored"), b"If-None-Match: *", record=b"stored"),
    put(form("a"), b"Content-Type: application/json; charset=utf-8"),
    put(b"[]"),
    put(form(".."), record=b".."),
    put(form("a/b"), record=b"a%2fb"),
    *(
        get(path + record + query, *headers)
        for path in (IN_FORMS, IN_RECORDS)
        for record, query, headers in [
            (b"stored", b"", ()),
            (b"%73tored", b"", ()),
            (b"stored/", b"", ()),
            (b"none", b"", ()),
            (b"none", b"", (b"Accept-Language: es",)),
            (b"..", b"", ()),
            (b".", b"", ()),
            (b"-", b"", ()),
            (b"", b"", ()),
            (b"x" * 300, b"", ()),
            (b"a#b", b"", ()),
            (b"stored", b"?consistency=local", ()),
            (b"stored", b"?consistency=session", (b"X-Replicad-Min-Index: 1",)),
            (b"stored", b"?consistency=session", (b"X-Replicad-Min-Index: x",)),
            (b"stored", b"?consistency=other", ()),
            (b"stored", b"?consistency=local&consistency=strong", ()),
            (b"stored", b"?", ()),
            (b"stored", b"?x=%ff", ()),
            (b"stored", b"", (b'If-None-Match: "1"',)),
            (b"stored", b"", (b'If-None-Match: W/"1", "x"',)),
            (b"stored", b"", (b"If-None-Match: *",)),
            (b"large", b"", ()),
            (b"large", b"", (b"Accept-Encoding: gzip",)),
            (b"large", b"", (b"Accept-Encoding: zstd;q=0.5, gzip;q=0.1",)),
            (b"large", b"", (b"Accept-Encoding: nothing",)),
            (b"stored", b"", (b"Origin: https://forms.example",)),
        ]
    ),
]


async def answers_of_a_gateway() -> list[list[Told]]:
    """To these requests, one after the other."""
    async with one_leader() as (cluster, leader):
        leader.forms |= {"stored": form("stored"), "large": LARGE}
        runner = await serve_gateway(MemoryCoordinator(cluster.store), host="127.0.0.1", port=0)
        try:
            return [await told(address_of(runner), [request]) for request in REQUESTS]
        finally:
            await runner.cleanup()


async def test_all_is_served_as_by_aiohttp_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []
    serve = Express.serve

    def counted(self: Express, request: Request) -> Coroutine[Any, Any, Answer] | None:
        answer = serve(self, request)
        if answer is not None:
            served.append(request.target)
        return answer

    monkeypatch.setattr(Express, "serve", counted)
    answers = await answers_of_a_gateway()
    assert len(served) > len(REQUESTS) / 2
    monkeypatch.setattr(Express, "serve", lambda self, request: None)
    expected = await answers_of_a_gateway()
    for request, told_, expected_ in zip(REQUESTS, answers, expected, strict=True):
        assert told_ == expected_, request[:300]
    assert {answer[0].line.split()[1] for answer in answers} >= {b"200", b"201", b"304", b"400"}


async def test_a_refusal_leaves_the_connection_open_if_all_of_the_body_was_there(
    gateway: aiohttp.ClientSession,
) -> None:
    url = raw_url(gateway, "/")
    refused = put(form("a"), b"Content-Type: text/plain")
    answers = await told((str(url.host), int(url.port or 0)), [refused, refused], answers=2)
    assert [answer.line[9:12] for answer in answers] == [b"415", b"415", b"404"]


async def test_what_comes_at_once_is_limited_too(cluster: FakeCluster, leader: FakeLeader) -> None:
    leader.faults.append(Fault.HANG_AFTERWARDS)
    runner = await serve_gateway(
        MemoryCoordinator(cluster.store), host="127.0.0.1", port=0, limits=Limits(in_flight_max=3)
    )
    try:
        async with client_of(runner) as client:
            waiting = [
                asyncio.create_task(client.post("/API/IngresarFormulario", data=form(f"f{number}")))
                for number in range(10)
            ]
            await eventually(lambda: sum(each.done() for each in waiting) == 7)
            leader.release.set()
            statuses = [(await each).status for each in waiting]
            assert sorted(statuses) == [200] * 3 + [429] * 7
    finally:
        await runner.cleanup()
