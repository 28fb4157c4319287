from __future__ import annotations

import re

import aiohttp
import pytest
import zstandard

FILES = ("start.js", "swagger-ui-bundle.js", "swagger-ui.css")


async def test_the_page_loads_only_what_the_gateway_has(gateway: aiohttp.ClientSession) -> None:
    async with gateway.get("/docs") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert "script-src 'self';" in response.headers["Content-Security-Policy"]
        page = await response.text()
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sorted(set(links) - {"data:,", "openapi.json"}) == sorted(
        f"docs/{name}" for name in FILES
    )
    for link in links:
        if not link.startswith("data:"):
            async with gateway.get(f"/{link}") as response:
                assert response.status == 200, link


@pytest.mark.parametrize("name", FILES)
async def test_files_are_compressed_once_and_known_again(
    gateway: aiohttp.ClientSession, name: str
) -> None:
    async with gateway.get(f"/docs/{name}", headers={"Accept-Encoding": "identity"}) as response:
        plain = await response.read()
        etag = response.headers["ETag"]
    gateway._auto_decompress = False
    for _ in range(2):
        async with gateway.get(f"/docs/{name}", headers={"Accept-Encoding": "zstd"}) as response:
            coded = await response.read()
            assert response.headers["ETag"] == etag
            assert zstandard.ZstdDecompressor().decompressobj().decompress(coded) == plain
    async with gateway.get(f"/docs/{name}", headers={"If-None-Match": f'"x", {etag}'}) as response:
        assert response.status == 304


@pytest.mark.parametrize("path", ["/docs/", "/docs/index.html", "/docs/..%2fapp.py", "/docs/x"])
async def test_nothing_else_is_served(gateway: aiohttp.ClientSession, path: str) -> None:
    async with gateway.get(path) as response:
        assert response.status == 404
        assert response.content_type == "application/problem+json"
