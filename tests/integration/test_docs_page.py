"""The page of the API's documentation, in a real browser that can reach nothing but the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api_gateway.app import serve_gateway
from api_gateway.openapi.document import describe_api
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from tests.support import tools

_BROWSER_S = 60


@pytest.fixture
async def url() -> AsyncIterator[str]:
    coordinator = MemoryCoordinator(MemoryStore())
    runner = await serve_gateway(coordinator, host="127.0.0.1", port=0)
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


async def render(url: str, profile: Path) -> tuple[str, str]:
    """The document once its scripts have run, and what the browser complained about."""
    process = await asyncio.create_subprocess_exec(
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_BROWSER_S):
            document, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, log.decode(errors="replace")
    return document.decode(), log.decode(errors="replace")


async def test_the_page_shows_every_operation(url: str, tmp_path: Path) -> None:
    tools.require_browser()
    document, log = await render(f"{url}/docs#/Records/putRecord", tmp_path)
    for path, item in describe_api()["paths"].items():
        assert f'data-path="{path}"' in document
        for operation in item.values():
            if isinstance(operation, dict):
                assert f"-{operation['operationId']}" in document
    assert "Idempotency-Key" in document  # One operation is shown in full.
    complaints = [line for line in log.splitlines() if "CONSOLE" in line]
    assert not complaints
