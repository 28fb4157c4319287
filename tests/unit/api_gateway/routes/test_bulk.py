from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest

from api_gateway.bulk.record_lines import RECORD_BYTES_MAX
from api_gateway.routes import bulk as routes_bulk
from tests.support.bulk import (
    CSV,
    EXPORT,
    IMPORT,
    NDJSON,
    define,
    imported,
    problem,
    tally,
)
from tests.support.fake_leader import FakeCluster, FakeLeader, Fault, form

# -- imports ------------------------------------------------------------------------------------


async def test_records_are_stored_as_they_are_sent(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms = {"there": form("there")}
    body = b'\xef\xbb\xbf{ "id" : "a", "x": 1.50 }\r\n\n{"id":"there"}\n{"id":"b"'
    lines = await imported(gateway, body + b"}")
    assert lines == [
        {"line": 1, "id": "a", "status": "stored", "reason": None},
        {
            "line": 3,
            "id": "there",
            "status": "duplicate",
            "reason": "There is a record with this id already.",
        },
        {"line": 4, "id": "b", "status": "stored", "reason": None},
        tally(stored=2, duplicate=1),
    ]
    assert leader.forms["a"] == b'{"id":"a","x":1.50}'


async def test_it_is_safe_to_run_again(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    body = b"\n".join(form(str(number)) for number in range(3_000))
    assert (await imported(gateway, body))[-1] == tally(stored=3_000)
    assert (await imported(gateway, body))[-1] == tally(duplicate=3_000)
    assert len(leader.forms) == 3_000


@pytest.mark.parametrize(
    ("line", "key", "reason"),
    [
        (b"{", None, "not valid JSON"),
        (b"\xff", None, "UTF-8"),
        (b"[]", None, "object"),
        (b"{}", None, "/id"),
        (b'{"id":7}', None, "/id"),
        (b'{"id":"a","x":1,"x":2}', None, "twice"),
        (b'{"id":"a","x":"%b"}' % (b"y" * RECORD_BYTES_MAX), None, "1 MiB"),
    ],
)
async def test_a_bad_line_is_told_and_the_others_are_stored(
    gateway: aiohttp.ClientSession,
    leader: FakeLeader,
    line: bytes,
    key: str | None,
    reason: str,
) -> None:
    lines = await imported(gateway, form("first") + b"\n" + line + b"\n" + form("last"))
    assert [each.get("status") for each in lines] == ["stored", "invalid", "stored", None]
    assert (lines[1]["line"], lines[1]["id"]) == (2, key)
    assert reason in lines[1]["reason"]
    assert list(leader.forms) == ["first", "last"]


async def test_reasons_come_in_spanish_when_that_is_preferred(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms = {"a": form("a")}
    bad = form("b", genero=7)
    lines = await imported(gateway, form("a") + b"\n" + bad, NDJSON | {"Accept-Language": "es-MX"})
    assert [line["reason"] for line in lines[:-1]] == [
        "Ya hay un registro con este id.",
        "/genero: el valor no es de tipo nulo o texto",
    ]
    (line, _) = await imported(gateway, bad, NDJSON)
    assert line["reason"] == '/genero: value is not of types "null", "string"'


async def test_csv_takes_its_types_from_the_schema(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    schema = {"properties": {"edad": {"type": "integer"}, "nota": {"type": "string"}}}
    define(leader, "people", schema=schema, key="rut")
    path = "/v1/collections/people/records:import"
    body = b'edad,rut,nota,otro\r\n7,a,"x\r\ny",8\r\n,b,\'=1,\r\nseis,c,,\r\n1,2\r\n'
    lines = await imported(gateway, body, CSV, path)
    assert [(each["line"], each["status"]) for each in lines[:-1]] == [
        (2, "stored"),
        (4, "stored"),
        (5, "invalid"),
        (6, "invalid"),
    ]
    assert leader.records["people"] == {
        "a": b'{"edad":7,"rut":"a","nota":"x\\r\\ny","otro":"8"}',
        "b": b'{"rut":"b","nota":"=1"}',
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"a,b\n1,2\n",
        b"id,a,a\n",
        b"id,\n",
        b'id,"a',
        b"id,s\rr1,x\rr2,x\r",
        b'"id","s"\r"r1","x"\r',
        b"id\r1\n",
        b"id,s\r1," + b"x" * RECORD_BYTES_MAX,
    ],
)
async def test_a_bad_header_is_refused(gateway: aiohttp.ClientSession, body: bytes) -> None:
    async with gateway.post(IMPORT, data=BytesIO(body), headers=CSV) as response:
        assert await problem(response) == (400, "invalid-request")


async def test_a_file_whose_lines_end_with_cr_is_told_so(gateway: aiohttp.ClientSession) -> None:
    async with gateway.post(IMPORT, data=b"id,s\r1,x\r", headers=CSV) as response:
        assert "carriage return" in (await response.json(content_type=None))["detail"]


@pytest.mark.parametrize("rows", [1, RECORD_BYTES_MAX // 4])
async def test_a_quote_that_never_closes_ends_an_import(
    gateway: aiohttp.ClientSession, leader: FakeLeader, rows: int
) -> None:
    body = b'id,s\na,x\nb,"x\n' + b"c,x\n" * rows
    *lines, error, last = await imported(gateway, body, CSV)
    assert [(each["line"], each["status"]) for each in lines] == [(2, "stored"), (3, "invalid")]
    assert error["error"]["type"] == "urn:replicad:invalid-request"
    assert "line 3" in error["error"]["detail"]
    assert last == tally(stored=1, invalid=1)
    assert list(leader.forms) == ["a"]


@pytest.mark.parametrize("query", ["?genero=F", "?fields=id", "?consistency=local", "?=", "?on"])
async def test_parameters_that_an_import_has_not_are_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, query: str
) -> None:
    async with gateway.post(IMPORT + query, data=form("a"), headers=NDJSON) as response:
        assert await problem(response) == (400, "invalid-query")
    assert leader.forms == {}


async def test_an_empty_body_stores_nothing(gateway: aiohttp.ClientSession) -> None:
    assert await imported(gateway, b"") == [tally()]


@pytest.mark.parametrize(
    "kind",
    ["application/json", "text/plain", "text/csv; charset=latin-1", "multipart/form-data", "x"],
)
async def test_other_content_types_are_refused(gateway: aiohttp.ClientSession, kind: str) -> None:
    async with gateway.post(IMPORT, data=b"x", headers={"Content-Type": kind}) as response:
        assert await problem(response) == (415, "unsupported-media-type")


async def test_other_encodings_are_refused(gateway: aiohttp.ClientSession) -> None:
    headers = NDJSON | {"Content-Encoding": "br"}
    async with gateway.post(IMPORT, data=b"x", headers=headers) as response:
        assert await problem(response) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("name", "expected"), [("none", (404, "no-such-collection")), ("_x", (400, "invalid-id"))]
)
async def test_other_collections_are_refused(
    gateway: aiohttp.ClientSession, name: str, expected: object
) -> None:
    path = f"/v1/collections/{name}/records"
    async with gateway.post(f"{path}:import", data=b"{}", headers=NDJSON) as response:
        assert await problem(response) == expected
    async with gateway.get(f"{path}:export") as response:
        assert await problem(response) == expected


async def test_so_many_imports_at_once_and_no_more(
    gateway: aiohttp.ClientSession, leader: FakeLeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_bulk, "IMPORTS_MAX", 1)
    ending = asyncio.Event()

    async def patient() -> AsyncIterator[bytes]:
        yield form("a") + b"\n"
        await ending.wait()

    async with gateway.post(IMPORT, data=patient(), headers=NDJSON) as response:
        await response.content.readline()
        async with gateway.post(IMPORT, data=b"", headers=NDJSON) as refused:
            assert refused.headers["Retry-After"] == "1"
            assert await problem(refused) == (429, "too-many-requests")
        ending.set()
        await response.read()
    assert await imported(gateway, form("b")) == [
        {"line": 1, "id": "b", "status": "stored", "reason": None},
        tally(stored=1),
    ]


async def test_one_client_leaves_imports_to_others(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes_bulk, "IMPORTS_OF_ONE_MAX", 1)
    ending = asyncio.Event()

    async def patient() -> AsyncIterator[bytes]:
        yield form("a") + b"\n"
        await ending.wait()

    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with (
        gateway.post(IMPORT, data=patient(), headers=NDJSON) as response,
        aiohttp.ClientSession(response.url.origin(), connector=elsewhere) as other,
    ):
        await response.content.readline()
        async with gateway.post(IMPORT, data=b"", headers=NDJSON) as refused:
            assert refused.headers["Retry-After"] == "1"
            assert await problem(refused) == (429, "too-many-requests")
        assert (await imported(other, form("b")))[-1] == tally(stored=1)
        ending.set()
        await response.read()
    assert (await imported(gateway, form("c")))[-1] == tally(stored=1)


# -- exports ------------------------------------------------------------------------------------


async def test_an_export_has_the_records_as_they_are_stored(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms = {"a": b'{"id":"a","x":1.50}', "b": b'{"id":"b"}'}
    async with gateway.get(EXPORT) as response:
        assert response.content_type == "application/x-ndjson"
        assert response.headers["X-Replicad-Index"] == "2"
        assert await response.read() == b'{"id":"a","x":1.50}\n{"id":"b"}\n'


async def test_an_export_as_csv_has_the_columns_of_the_schema(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    schema = {"properties": {"edad": {"type": "integer"}, "id": {}}}
    define(leader, "people", schema=schema)
    leader.records["people"] = {"a": b'{"id":"a","edad":7}', "b": b'{"x":"=1","id":"b"}'}
    path = "/v1/collections/people/records:export"
    async with gateway.get(path, headers={"Accept": "text/csv"}) as response:
        assert response.content_type == "text/csv"
        assert await response.read() == b"id,edad\r\na,7\r\nb,\r\n"
    async with gateway.get(f"{path}?fields=x,id", headers={"Accept": "text/csv"}) as response:
        assert await response.read() == b"x,id\r\n,a\r\n'=1,b\r\n"


async def test_an_export_of_many_records_is_imported_again(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    forms = {str(n): form(str(n), genero="Femenino\n" * (n % 5)) for n in range(1_234)}
    leader.forms = dict(forms)
    url = f"{EXPORT}?fields=id,genero"
    async with gateway.get(url, headers={"Accept": "text/csv"}) as response:
        exported = await response.read()
    leader.forms = {}
    assert (await imported(gateway, exported, CSV))[-1] == tally(stored=1_234)
    assert leader.forms == forms


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/csv"])
async def test_another_replica_completes_an_export(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader, kind: str
) -> None:
    leader.forms = {key: form(key, genero="x") for key in "abc"}
    async with gateway.get(EXPORT, headers={"Accept": kind}) as response:
        whole = await response.read()
    other = await cluster.replica("n2")
    other.forms = dict(leader.forms)
    leader.faults.append(Fault.BREAK_STREAM)
    async with gateway.get(EXPORT, headers={"Accept": kind}) as response:
        assert await response.read() == whole
    assert other.reads == 1


async def test_an_export_that_cannot_be_completed_does_not_look_complete(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms = {key: form(key) for key in "abc"}
    leader.faults.extend([Fault.BREAK_STREAM] * 4)
    with pytest.raises(aiohttp.ClientError):
        async with gateway.get(EXPORT) as response:
            await response.read()


@pytest.mark.parametrize("accept", ["application/json", "text/html", "text/csv;q=0"])
async def test_other_formats_are_not_acceptable(
    gateway: aiohttp.ClientSession, accept: str
) -> None:
    async with gateway.get(EXPORT, headers={"Accept": accept}) as response:
        assert await problem(response) == (406, "not-acceptable")


@pytest.mark.parametrize(
    ("name", "query", "accept"),
    [
        ("bare", "", "text/csv"),
        ("bare", "?fields=", "text/csv"),
        ("bare", "?fields=a,a", "text/csv"),
        ("bare", "?fields=a&fields=a", "text/csv"),
        ("bare", "?fields=a", "application/x-ndjson"),
    ],
)
async def test_columns_that_cannot_be_are_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, name: str, query: str, accept: str
) -> None:
    define(leader, "bare")
    path = f"/v1/collections/{name}/records:export{query}"
    async with gateway.get(path, headers={"Accept": accept}) as response:
        assert await problem(response) == (400, "invalid-query")


@pytest.mark.parametrize("kind", ["application/x-ndjson", "text/csv"])
@pytest.mark.parametrize("query", ["genero=F", "limit=1", "at_index=1", "fields[]=id"])
async def test_an_export_does_not_ignore_what_it_does_not_know(
    gateway: aiohttp.ClientSession, kind: str, query: str
) -> None:
    async with gateway.get(f"{EXPORT}?{query}", headers={"Accept": kind}) as response:
        assert await problem(response) == (400, "invalid-query")


async def test_an_export_may_come_from_any_replica(
    gateway: aiohttp.ClientSession, cluster: FakeCluster, leader: FakeLeader
) -> None:
    other = await cluster.replica("n2")
    leader.forms = other.forms = {"a": form("a")}
    cluster.without_leader()
    async with gateway.get(f"{EXPORT}?consistency=local") as response:
        assert response.headers["X-Replicad-Consistency"] == "local"
        assert await response.read() == form("a") + b"\n"
