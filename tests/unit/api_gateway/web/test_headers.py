from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from api_gateway.metrics import Metrics
from api_gateway.web.headers import completing
from api_gateway.web.limits import DEFAULT_LIMITS, Admission
from api_gateway.web.middleware import Around
from tests.support.web import serving

FRIEND = {"Origin": "https://forms.example"}
STRANGER = {"Origin": "https://elsewhere.example"}
PREFLIGHT = {"Access-Control-Request-Method": "PUT"}


async def get(request: web.Request) -> web.Response:
    return web.Response(headers={"ETag": '"1"'} if "etag" in request.query else {})


def app_for(*origins: str) -> web.Application:
    around = Around(Metrics(), Admission(DEFAULT_LIMITS), frozenset(origins))
    app = web.Application(middlewares=[around.middleware()])
    app.add_routes([web.get("/v1/a", get)])
    app.on_response_prepare.append(completing(frozenset(origins)))
    return app


@pytest.fixture
async def closed() -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(app_for()) as client:
        yield client


@pytest.fixture
async def shared() -> AsyncIterator[aiohttp.ClientSession]:
    async with serving(app_for("https://forms.example")) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/a", "/v1/nothing", "/nothing"])
async def test_every_answer_is_safe_to_look_at(closed: aiohttp.ClientSession, path: str) -> None:
    async with closed.get(path) as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert response.headers["Server"] == "replicad"
        assert response.headers["Cache-Control"] == "no-store"


async def test_what_has_an_etag_may_be_kept_and_is_asked_about_again(
    closed: aiohttp.ClientSession,
) -> None:
    async with closed.get("/v1/a?etag") as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["Vary"] == "Accept-Encoding"


async def test_other_origins_get_nothing_by_default(closed: aiohttp.ClientSession) -> None:
    async with closed.get("/v1/a", headers=FRIEND) as response:
        assert not any(name.startswith("Access-Control") for name in response.headers)
    async with closed.options("/v1/a", headers=FRIEND | PREFLIGHT) as response:
        assert response.status == 405


async def test_a_named_origin_may_read_and_others_may_not(shared: aiohttp.ClientSession) -> None:
    for path in ("/v1/a", "/v1/nothing"):
        async with shared.get(path, headers=FRIEND) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "https://forms.example"
            assert "ETag" in response.headers["Access-Control-Expose-Headers"]
            assert "Accept-Encoding, Origin" in response.headers.getall("Vary")
        async with shared.get(path, headers=STRANGER) as response:
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "Accept-Encoding, Origin" in response.headers.getall("Vary")
    async with shared.get("/v1/a") as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_preflights(shared: aiohttp.ClientSession) -> None:
    async with shared.options("/v1/a", headers=FRIEND | PREFLIGHT) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "https://forms.example"
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in response.headers["Access-Control-Allow-Headers"]
    async with shared.options("/v1/a", headers=STRANGER | PREFLIGHT) as response:
        assert response.status == 405
    async with shared.options("/v1/a", headers=FRIEND) as response:
        assert response.status == 405


async def test_any_origin() -> None:
    async with (
        serving(app_for("*")) as client,
        client.get("/v1/a", headers=STRANGER) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers.getall("Vary") == ["Accept-Encoding"]
