from __future__ import annotations

import aiohttp
import pytest

from api_gateway.reading.reads import Reads
from api_gateway.routes import operations as routes_operations
from tests.support.gateway import raw_url, send_raw


@pytest.mark.parametrize(
    ("request_line", "reason"),
    [
        (b"GET /API/ObtenerGeneros/\xc3\xb1 HTTP/1.1", "codificado con %"),
        (b"GET /API/ObtenerGeneros/\xff HTTP/1.1", "codificado con %"),
        (b"GARBAGE", "no es HTTP"),
        (b"GET / HTTP/1.1\r\nContent-Length: x", "no es HTTP"),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1", "no es HTTP"),
    ],
    ids=["utf-8", "no-utf-8", "garbage", "length", "long"],
)
async def test_what_is_not_http_is_told_in_json(
    gateway: aiohttp.ClientSession, request_line: bytes, reason: str
) -> None:
    status, answer = await send_raw(gateway, request_line + b"\r\nHost: x\r\n\r\n")
    assert status == 400
    assert answer["status"] == "error"
    assert reason in answer["message"]


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v1/collections/\xc3\xb1 HTTP/1.1",
        b"GET /v1/collections/\x00 HTTP/1.1",
        b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1",
        b"GET /v1/collections HTTP/1.1\r\nContent-Length: x",
        b"GET /v1/collections HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"GET /v1/collections HTTP/1.1\r\nno colon",
        b"GET /v1/collections HTTP/1.1\r\nX: \x00",
        b"GET /v1/collections HTTP/1.1\r\nX: " + b"y" * 100_000,
        b"GET /v1/collections HTTP/9.9",
        b"GET /v1/collections HTTP/1.1" + b"\r\nX: y" * 200_000,
    ],
    ids=[
        "utf-8",
        "nul",
        "long",
        "length",
        "both lengths",
        "no header",
        "nul in a header",
        "long header",
        "version",
        "flood",
    ],
)
async def test_under_v1_it_is_told_as_a_problem(
    gateway: aiohttp.ClientSession, request_line: bytes
) -> None:
    status, answer = await send_raw(gateway, request_line + b"\r\nHost: x\r\n\r\n")
    assert status == 400
    assert answer["type"] == "urn:replicad:invalid-request"
    assert answer["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/v1", 404, "no-such-route"),
        ("GET", "/v1/", 404, "no-such-route"),
        ("GET", "/v1/nothing", 404, "no-such-route"),
        ("GET", "/v1/%00", 404, "no-such-route"),
        ("GET", "/v1/%2e%2e/%2e%2e/etc/passwd", 404, "no-such-route"),
        ("GET", "/v1/%zz%", 404, "no-such-route"),
        ("POST", "/v1/cluster", 405, "method-not-allowed"),
        ("TRACE", "/v1/cluster", 405, "method-not-allowed"),
        ("DELETE", "/docs", 405, "method-not-allowed"),
        ("GET", "/v1/requests/" + "x" * 60_000, 400, "invalid-request"),
        ("GET", "/v1/requests/%00", 400, "invalid-request"),
    ],
)
async def test_refusals_under_v1_are_problems(
    gateway: aiohttp.ClientSession, method: str, path: str, status: int, slug: str
) -> None:
    async with gateway.request(method, raw_url(gateway, path)) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/problem+json"
        answer = await response.json(content_type=None)
    assert answer["type"] == f"urn:replicad:{slug}"
    assert answer["status"] == status


async def test_refusals_are_told_in_spanish_to_those_who_prefer_it(
    gateway: aiohttp.ClientSession,
) -> None:
    spanish = {"Accept-Language": "es-MX, en;q=0.5"}
    async with gateway.get("/v1/nothing", headers=spanish) as response:
        assert response.headers["Content-Language"] == "es"
        assert (await response.json(content_type=None))["title"] == "La ruta no existe"


@pytest.mark.parametrize("path", ["/v1/cluster", "/API/ObtenerUnFormulario/a"])
async def test_other_expectations_are_refused(gateway: aiohttp.ClientSession, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"
    status, answer = await send_raw(gateway, head.encode())
    assert status == 417
    if path.startswith("/v1"):
        assert answer["type"] == "urn:replicad:expectation-failed"
    else:
        assert answer["status"] == "error"


async def test_a_defect_under_v1_is_told_without_a_trace(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> dict[str, object]:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(routes_operations, "report_cluster", broken)
    async with gateway.get("/v1/cluster", headers={"Accept": "text/html"}) as response:
        assert response.status == 500
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        text = await response.text()
    assert "urn:replicad:internal-error" in text
    assert "secret" not in text
    async with gateway.get("/metrics") as response:
        assert 'route="/v1/cluster",status="500"} 1.0' in await response.text()


async def test_a_defect_of_an_older_path_is_told_as_ever(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Reads, "get", broken)
    async with gateway.get("/API/ObtenerUnFormulario/a") as response:
        assert response.status == 500
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert await response.json() == {
            "status": "error",
            "message": "Ocurrió un error interno en el sistema.",
        }
