"""The rows of the REST API's table, with their errors."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.support.fake_leader import DIGEST, FakeLeader, Fault, form
from tests.support.gateway import raw_url

EXISTS = {"status": "error", "message": "El registro ya existe en el sistema."}
MISSING = "El registro No existe en el sistema."
INSERT = "/API/IngresarFormulario"
JSON = "application/json; charset=utf-8"
BAD_IDS = [
    "",
    ".",
    "..",
    "%2e%2e",
    "-a",
    "a%0A",
    "a%20b",
    "a/b",
    "a%2Fb",
    "a%2541",
    "%C3%B1",
    "%FF",
    "a%00",
    "x" * 129,
    "x" * 20_000,
]


async def answer_of(response: aiohttp.ClientResponse) -> tuple[int, Any]:
    assert response.headers["Content-Type"] == JSON
    return response.status, await response.json()


async def test_a_new_form_is_stored(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    body = '{"id": "a-1",\n "nombres": "Íñigo", "n": 1.0}'
    async with gateway.post(INSERT, data=body.encode()) as response:
        assert await answer_of(response) == (
            200,
            {"status": "ok", "message": "Registro ingresado correctamente."},
        )
    assert leader.forms == {"a-1": '{"id":"a-1","nombres":"Íñigo","n":1.0}'.encode()}
    assert response.headers["X-Replicad-Index"] == "1"
    assert response.headers["X-Replicad-Epoch"] == "1"
    assert response.headers["X-Replicad-Digest"] == DIGEST
    assert response.headers["X-Replicad-Acks"] == "n1,n2"
    assert response.headers["Server-Timing"] == "fsync;dur=0.5, ack_n2;dur=1.25"


async def test_a_known_id_is_refused(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    leader.forms["a"] = form("a")
    async with gateway.post(INSERT, data=form("a", x=1)) as response:
        assert await answer_of(response) == (409, EXISTS)
    assert leader.forms == {"a": form("a")}


async def test_a_retry_gets_the_first_answer(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    key = {"Idempotency-Key": 'k/1,"value":'}
    for body in (form("a", x=1), b' {"id" : "a","x" : 1}'):
        async with gateway.post(INSERT, data=body, headers=key) as response:
            assert response.status == 200
            assert response.headers["X-Replicad-Index"] == "1"
    assert list(leader.requests) == [key["Idempotency-Key"]]


async def test_a_retry_whose_entry_the_log_has_no_longer(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    key = {"Idempotency-Key": "k"}
    async with gateway.post(INSERT, data=form("a"), headers=key):
        pass
    leader.requests["k"][1].update(epoch=None, digest=None)
    async with gateway.post(INSERT, data=form("a"), headers=key) as response:
        assert response.status == 200
        assert response.headers["X-Replicad-Index"] == "1"
        assert "X-Replicad-Epoch" not in response.headers
        assert "X-Replicad-Digest" not in response.headers


async def test_a_key_with_another_form_is_refused(gateway: aiohttp.ClientSession) -> None:
    key = {"Idempotency-Key": "k"}
    async with gateway.post(INSERT, data=form("a"), headers=key):
        pass
    async with gateway.post(INSERT, data=form("b"), headers=key) as response:
        status, answer = await answer_of(response)
    assert status == 422
    assert "Idempotency-Key" in answer["message"]


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ñ"])
async def test_a_bad_idempotency_key_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, key: str
) -> None:
    async with gateway.post(INSERT, data=form("a"), headers={"Idempotency-Key": key}) as response:
        status, answer = await answer_of(response)
    assert status == 400
    assert "Idempotency-Key" in answer["message"]
    assert not leader.forms


async def test_an_idempotency_key_must_be_one(gateway: aiohttp.ClientSession) -> None:
    keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    async with gateway.post(INSERT, data=form("a"), headers=keys) as response:
        assert response.status == 400


async def test_the_longest_idempotency_key_is_taken(gateway: aiohttp.ClientSession) -> None:
    key = {"Idempotency-Key": "~" * 128}
    async with gateway.post(INSERT, data=form("a"), headers=key) as response:
        assert response.status == 200


async def test_a_bad_body_is_refused(gateway: aiohttp.ClientSession, leader: FakeLeader) -> None:
    twice, genero = b'{"id":"a","id":"a"}', b'{"id":"a","genero":7}'
    for body in (b"", b"hola", b"[]", b"{}", b'{"id":7}', twice, genero, b"[" * 1000):
        async with gateway.post(INSERT, data=body) as response:
            status, answer = await answer_of(response)
        assert status == 400, body
        assert answer["status"] == "error"
        assert answer["message"]
    async with gateway.post(INSERT, data=genero) as response:
        assert await answer_of(response) == (
            400,
            {
                "status": "error",
                "message": "El registro no es como su colección lo pide. "
                "/genero: el valor no es de tipo nulo o texto",
            },
        )
    assert not leader.batches["writes"]


async def test_verifies_whether_an_id_is_known(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a")
    async with gateway.get("/API/VerificaFormularioDuplicado/a") as response:
        assert await answer_of(response) == (200, EXISTS)
    async with gateway.get("/API/VerificaFormularioDuplicado/b") as response:
        assert await answer_of(response) == (200, {"status": "ok", "message": MISSING})


async def test_gives_a_form_back_as_it_was_sent(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = b'{"z":1.0,"id":"a","b":"\\u00e9"}'
    async with gateway.get("/API/ObtenerUnFormulario/a?x=1") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == JSON
        assert await response.read() == leader.forms["a"]
    async with gateway.get("/API/ObtenerUnFormulario/b") as response:
        assert await answer_of(response) == (404, {"status": "error", "message": MISSING})


@pytest.mark.parametrize("path", ["VerificaFormularioDuplicado", "ObtenerUnFormulario"])
@pytest.mark.parametrize("key", BAD_IDS, ids=lambda key: key[:8])
async def test_a_bad_id_in_a_path_is_refused(
    gateway: aiohttp.ClientSession, leader: FakeLeader, path: str, key: str
) -> None:
    url = raw_url(gateway, f"/API/{path}/{key}")
    async with gateway.get(url) as response:
        status, answer = await answer_of(response)
    assert status == 400
    assert answer["message"].startswith("El id debe ser")
    assert not leader.batches["gets"]


@pytest.mark.parametrize("tail", ["", "/", "/todo", "/a/b/c", "/%2e%2e"])
async def test_streams_all_forms_in_their_order(
    gateway: aiohttp.ClientSession, leader: FakeLeader, tail: str
) -> None:
    for key in "cab":
        leader.forms[key] = form(key)
    url = raw_url(gateway, f"/API/ObtenerTodosLosFormularios{tail}")
    async with gateway.get(url) as response:
        assert await answer_of(response) == (200, [{"id": key} for key in "cab"])


@pytest.mark.parametrize("genero", ["Masculino", "ÑANDÚ", "a/b", "50%", "{x}", " ", "x" * 128])
async def test_streams_the_forms_of_one_genero(
    gateway: aiohttp.ClientSession, leader: FakeLeader, genero: str
) -> None:
    leader.forms["a"] = form("a", genero=genero)
    leader.forms["b"] = form("b", genero="otro")
    url = raw_url(gateway, f"/API/ObtenerGeneros/{quote(genero, safe='')}")
    async with gateway.get(url) as response:
        assert await answer_of(response) == (200, [{"id": "a", "genero": genero}])


async def test_too_long_a_genero_is_refused(gateway: aiohttp.ClientSession) -> None:
    async with gateway.get("/API/ObtenerGeneros/" + "ñ" * 129) as response:
        status, answer = await answer_of(response)
    assert status == 400
    assert "128" in answer["message"]


async def test_an_array_cut_short_does_not_look_complete(
    gateway: aiohttp.ClientSession, leader: FakeLeader
) -> None:
    leader.forms["a"] = form("a")
    leader.faults.extend([Fault.BREAK_STREAM] * 4)
    with pytest.raises(aiohttp.ClientError):
        async with gateway.get("/API/ObtenerTodosLosFormularios") as response:
            await response.read()


async def test_an_unknown_path_is_not_found(gateway: aiohttp.ClientSession) -> None:
    for path in (
        "/",
        "/API",
        "/API/ObtenerGeneros/",
        "/internal/status",
        "/API/ObtenerGeneros/a/b",
    ):
        async with gateway.get(path) as response:
            assert await answer_of(response) == (
                404,
                {"status": "error", "message": "La ruta solicitada no existe."},
            )


async def test_a_wrong_method_is_not_allowed(gateway: aiohttp.ClientSession) -> None:
    async with gateway.get(INSERT) as response:
        status, answer = await answer_of(response)
    assert status == 405
    assert answer["message"] == "El método no está permitido en esta ruta."
    assert response.headers["Allow"] == "POST"
