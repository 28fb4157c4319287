from __future__ import annotations

import aiohttp
import pytest

from api_gateway import routes_operations
from tests.support.gateway import send_raw


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


async def test_a_defect_is_told_in_json_without_a_trace(
    gateway: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> dict[str, object]:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(routes_operations, "report_cluster", broken)
    async with gateway.get("/v1/cluster", headers={"Accept": "text/html"}) as response:
        assert response.status == 500
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert await response.json() == {
            "status": "error",
            "message": "Ocurrió un error interno en el sistema.",
        }
    async with gateway.get("/metrics") as response:
        assert 'route="/v1/cluster",status="500"} 1.0' in await response.text()
