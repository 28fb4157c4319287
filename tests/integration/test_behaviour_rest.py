"""The REST API, row by row, through a gateway of a whole cluster."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from urllib.parse import quote, urlsplit

import pytest

from tests.support.client import ABSENT, EXISTS, STORED, UNKNOWN_ID, Answer, Client, form
from tests.support.cluster import Cluster
from tests.support.logs import entries, log_lines

JSON = "application/json; charset=utf-8"
MIB = 1024 * 1024
VALUE = re.compile(rb',"value":(.*),"digest":"[0-9a-f]{64}"\}\Z')


def new_key(name: str) -> str:
    """An id that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def assert_error(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == JSON
    body = json.loads(answer.body)
    assert list(body) == ["status", "message"]
    assert body["status"] == "error"
    assert body["message"]


def assert_is(answer: Answer, status: int, body: bytes) -> None:
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (status, body, JSON)


async def test_a_form_before_and_after_it_is_stored(client: Client) -> None:
    key = new_key("uno")
    verify, fetch = f"/API/VerificaFormularioDuplicado/{key}", f"/API/ObtenerUnFormulario/{key}"
    assert_is(await client.get(verify), 200, UNKNOWN_ID)
    assert_is(await client.get(fetch), 404, ABSENT)

    assert_is(await client.post(form(key, nombres="Ángela")), 200, STORED)

    assert_is(await client.get(verify), 200, EXISTS)
    assert_is(await client.get(fetch), 200, form(key, nombres="Ángela"))
    assert_is(await client.post(form(key, nombres="Ángela")), 409, EXISTS)
    assert_is(await client.post(form(key, nombres="Otra")), 409, EXISTS)
    assert await client.fetch(key) == form(key, nombres="Ángela")


async def test_a_write_says_where_it_is(client: Client, cluster: Cluster) -> None:
    await cluster.in_sync(client)
    answers = [await client.store(new_key("prueba")) for _ in range(3)]
    view = await cluster.in_sync(client)

    indexes = [answer.index for answer in answers]
    assert indexes == sorted(set(indexes))
    for answer in answers:
        headers = answer.headers
        assert headers["X-Replicad-Epoch"] == str(view["epoch"])
        assert headers["X-Replicad-Acks"] == ",".join(cluster.names)
        parts = dict(part.split(";dur=") for part in headers["Server-Timing"].split(", "))
        followers = {f"ack_{name}" for name in cluster.names if name != view["leader"]}
        assert parts.keys() == {"fsync"} | followers
        assert all(0 <= float(milliseconds) < 10_000 for milliseconds in parts.values())
        for name in cluster.names:
            line = log_lines(cluster.data_dir(name))[answer.index - 1]
            assert json.loads(line)["digest"] == headers["X-Replicad-Digest"]


RAW = (
    '{"zeta":1.0,"id":"%s","n":1e2,"exp":1E+2,"e":"\\u00e9","E":"é","s":"\\/","neg":-0,'
    '"max":18446744073709551615,"min":-9223372036854775808,"anidado":{"b":[],"a":{}},"":null}'
)


async def test_what_was_sent_is_what_is_kept(client: Client, cluster: Cluster) -> None:
    key = new_key("crudo")
    sent = (RAW % key).encode()
    answer = await client.post(sent)
    assert_is(answer, 200, STORED)
    assert await client.fetch(key) == sent

    await cluster.in_sync(client)
    for name in cluster.names:
        assert b',"value":' + sent in log_lines(cluster.data_dir(name))[answer.index - 1]


async def test_white_space_between_tokens_goes_and_no_other(client: Client) -> None:
    key = new_key("blancos")
    sent = f' \r\n{{ "id" :\t"{key}" , "a" : [ 1 , 2 ] , "t" : "  a : [ b ]  " }}\n'
    assert_is(await client.post(sent.encode()), 200, STORED)
    assert await client.fetch(key) == f'{{"id":"{key}","a":[1,2],"t":"  a : [ b ]  "}}'.encode()


@pytest.mark.parametrize("rest", ["", "/", "/algo", "/a/b%2Fc", "/%C3%B1?x=1"])
async def test_all_forms_in_the_order_they_were_stored(
    client: Client, cluster: Cluster, rest: str
) -> None:
    keys = [new_key(name) for name in ("zz", "aa", "mm")]
    for key in keys:
        await client.store(key, t="ñ")
    await cluster.in_sync(client)
    values = [VALUE.search(line) for line in log_lines(cluster.data_dir("n1"))]
    inserts = [
        (entry["collection"], entry["operation"]) == ("formularios", "insert")
        for entry in entries(cluster.data_dir("n1"))
    ]
    stored = [v[1] for v, insert in zip(values, inserts, strict=True) if v and insert]

    answer = await client.get(f"/API/ObtenerTodosLosFormularios{rest}")
    assert_is(answer, 200, b"[" + b",".join(stored) + b"]")
    assert [each["id"] for each in json.loads(answer.body)][-3:] == keys


async def test_forms_of_one_genero_ignoring_case(client: Client) -> None:
    mark = uuid.uuid4().hex[:8]
    generos = [f"Ñandú {mark}", f"ÑANDÚ {mark.upper()}", f"ñandú {mark}", f"nandu {mark}", None]
    forms = [form(new_key("genero"), genero=genero) for genero in generos]
    for each in forms:
        assert (await client.post(each)).status == 200
    expected = b"[" + b",".join(forms[:3]) + b"]"
    for asked in (f"ÑANDÚ {mark}", f"ñandú {mark}", f"ñAnDú {mark.upper()}"):
        assert_is(await client.get(f"/API/ObtenerGeneros/{quote(asked)}"), 200, expected)
    assert_is(await client.get(f"/API/ObtenerGeneros/{mark}"), 200, b"[]")


async def test_a_retry_with_its_key_finds_the_first_outcome(client: Client) -> None:
    key, other = new_key("llave"), new_key("otra")
    idempotency = {"Idempotency-Key": new_key("k")}
    first = await client.post(form(key, n=1), idempotency)
    again = await client.post(b" " + form(key, n=1), idempotency)
    assert_is(first, 200, STORED)
    assert_is(again, 200, STORED)
    for header in ("X-Replicad-Index", "X-Replicad-Epoch", "X-Replicad-Digest"):
        assert again.headers[header] == first.headers[header]

    last = await client.last_index()
    assert_error(await client.post(form(key, n=2), idempotency), 422)
    assert_error(await client.post(form(other, n=1), idempotency), 422)
    assert_is(await client.post(form(key, n=1)), 409, EXISTS)
    assert_is(await client.post(form(key, n=1), {"Idempotency-Key": new_key("k")}), 409, EXISTS)
    assert await client.last_index() == last
    assert await client.fetch(key) == form(key, n=1)


async def test_the_same_form_from_many_at_once_is_stored_once(client: Client) -> None:
    key = new_key("carrera")
    answers = await asyncio.gather(*(client.post(form(key)) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + 19 * [409]

    key = new_key("carrera")
    headers = {"Idempotency-Key": key}
    answers = await asyncio.gather(*(client.post(form(key), headers) for _ in range(20)))
    assert {(answer.status, answer.index) for answer in answers} == {(200, answers[0].index)}


def nested(depth: int, key: str = "hondo") -> bytes:
    """A form whose innermost array is at this depth; the form itself is the first."""
    arrays = depth - 1
    return b'{"id":"%b","x":%b%b}' % (key.encode(), b"[" * arrays, b"]" * arrays)


NOT_FORMS = {
    "empty": b"",
    "cut": b'{"id":"x"',
    "garbage behind": b'{"id":"x"} {}',
    "single quotes": b"{'id':'x'}",
    "NaN": b'{"id":"x","n":NaN}',
    "leading zero": b'{"id":"x","n":01}',
    "raw control character": b'{"id":"x","n":"\n"}',
    "not UTF-8": b'{"id":"x","n":"\xff"}',
    "array": b'[{"id":"x"}]',
    "string": b'"x"',
    "null": b"null",
    "no id": b'{"nombres":"x"}',
    "id in another case": b'{"ID":"x"}',
    "number as id": b'{"id":7}',
    "null as id": b'{"id":null}',
    "object as id": b'{"id":{"a":"b"}}',
    "empty id": b'{"id":""}',
    "id of 129": form("x" * 129),
    "id with a space": b'{"id":"a b"}',
    "id with a line end": b'{"id":"a\\n"}',
    "id with a slash": b'{"id":"a/b"}',
    "id not ASCII": '{"id":"ñ"}'.encode(),
    "id begins with a dot": b'{"id":".a"}',
    "id begins with a dash": b'{"id":"-a"}',
    "id begins with an underscore": b'{"id":"_a"}',
    "two ids": b'{"id":"a","id":"a"}',
    "two ids, one escaped": b'{"id":"a","\\u0069d":"b"}',
    "duplicate key inside": b'{"id":"x","y":[{"k":1,"k":1}]}',
    "lone high surrogate": b'{"id":"x","y":"\\ud800"}',
    "lone low surrogate": b'{"id":"x","y":"\\udc00\\ud800"}',
    "lone surrogate in a name": b'{"id":"x","\\udfff":1}',
    "33 levels": nested(33),
    "100,000 levels": nested(100_000),
    "integer beyond 64 bits": b'{"id":"x","n":18446744073709551616}',
    "integer below 64 bits": b'{"id":"x","n":-9223372036854775809}',
    "million digits": b'{"id":"x","n":%b}' % (b"9" * 1_000_000),
    "beyond a double": b'{"id":"x","n":1e999}',
    "beyond a double, negative": b'{"id":"x","n":[-1.5E+400]}',
}


@pytest.mark.parametrize("body", NOT_FORMS.values(), ids=NOT_FORMS)
async def test_bad_input_is_refused_and_not_stored(client: Client, body: bytes) -> None:
    before = await client.last_index()
    assert_error(await client.post(body), 400)
    assert await client.last_index() == before


async def test_the_last_that_is_allowed(client: Client) -> None:
    key = new_key("borde")
    deepest = nested(32, key)
    longest = form(key.ljust(128, "x"))
    head = form(new_key("grande"), t="")[:-2]
    biggest = head + b"x" * (MIB - len(head) - 2) + b'"}'
    assert len(biggest) == MIB
    for body in (deepest, longest, biggest):
        assert_is(await client.post(body), 200, STORED)
        assert await client.fetch(json.loads(body)["id"]) == body


async def test_a_body_over_1_mib(client: Client) -> None:
    before = await client.last_index()
    for length in (MIB + 1, 8 * MIB):
        head = form(new_key("gigante"), t="")[:-2]
        answer = await client.post(head + b"x" * (length - len(head) - 2) + b'"}')
        assert_error(answer, 413)
    assert await client.last_index() == before


async def test_a_body_that_does_not_arrive(client: Client) -> None:
    before = await client.last_index()
    gateway = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(gateway.hostname, gateway.port)
    try:
        writer.write(
            b"POST /API/IngresarFormulario HTTP/1.1\r\nHost: gateway\r\n"
            b'Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"id":"lento"'
        )
        async with asyncio.timeout(15):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["status"] == "error"
    assert await client.last_index() == before


@pytest.mark.parametrize("value", ["", "x" * 129, "con espacio", "ñ"])
async def test_a_bad_idempotency_key(client: Client, value: str) -> None:
    before = await client.last_index()
    assert_error(await client.post(form("x"), {"Idempotency-Key": value}), 400)
    assert await client.last_index() == before


BAD_IDS = [
    "",
    "%2E%2E",
    "a%2Fb",
    "a/b",
    "%2e%2e%2fcluster",
    "%00",
    "a%00",
    "a%0A",
    "a%20b",
    "%20a",
    "a+b",
    "%C3%B1",
    "%FF",
    "%2561",
    "x" * 129,
    "a;b",
    "a'%20OR%20'1'='1",
    "..%5C..%5Cstate",
]


@pytest.mark.parametrize("path", ["VerificaFormularioDuplicado", "ObtenerUnFormulario"])
@pytest.mark.parametrize("key", BAD_IDS)
async def test_an_id_that_is_none(client: Client, path: str, key: str) -> None:
    assert_error(await client.get(f"/API/{path}/{key}"), 400)


async def test_an_id_may_be_percent_encoded(client: Client) -> None:
    key = new_key("a.b_c")
    await client.store(key)
    encoded = "".join(f"%{byte:02x}" for byte in key.encode())
    assert_is(await client.get(f"/API/ObtenerUnFormulario/{encoded}"), 200, form(key))
    assert_is(await client.get(f"/API/VerificaFormularioDuplicado/{encoded}"), 200, EXISTS)


async def test_paths_and_methods_that_are_none(client: Client) -> None:
    before = await client.last_index()
    assert_error(await client.get("/API/NoHay"), 404)
    assert_error(await client.get("/API/../internal/status"), 404)
    assert_error(await client.get("/API/ObtenerUnFormulario/%2e%2e/%2e%2e/healthz"), 400)
    assert_error(await client.get("/API/IngresarFormulario"), 405)
    assert_error(await client.post(form("x"), path="/API/ObtenerTodosLosFormularios"), 405)
    assert await client.last_index() == before


async def test_the_cluster_as_it_is_told(client: Client, cluster: Cluster) -> None:
    view = await cluster.in_sync(client)
    assert list(view) == ["leader", "epoch", "isr", "min_in_sync", "replicas"]
    assert view["leader"] in cluster.names
    assert view["epoch"] >= 1
    assert sorted(view["isr"]) == cluster.names
    assert view["min_in_sync"] == 2
    urls = {node["name"]: node["url"] for node in cluster.stack.description["nodes"]}
    assert [replica["name"] for replica in view["replicas"]] == cluster.names
    for replica in view["replicas"]:
        name = replica["name"]
        positions = ["last_index", "commit_index", "applied_index", "digest"]
        known = [*positions, "lag", "scrub", "last_contact_ms"]
        assert list(replica) == ["name", "role", "url", *known]
        assert replica["role"] == ("leader" if name == view["leader"] else "follower")
        assert cluster.backend == "compose" or replica["url"] == urls[name]
        line = log_lines(cluster.data_dir(name))[replica["last_index"] - 1]
        assert replica["digest"] == json.loads(line)["digest"]
        assert replica["lag"] == 0
        assert 0 <= replica["last_contact_ms"] < 1000


async def test_it_is_alive_and_ready(client: Client) -> None:
    assert (await client.get("/healthz")).status == 200
    assert (await client.get("/readyz")).status == 200
