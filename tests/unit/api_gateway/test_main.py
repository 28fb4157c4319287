"""The gateway as a process of its own, on a machine without ZooKeeper."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from contextlib import suppress

import aiohttp
import pytest

RUN = """
import sys
from api_gateway.main import GatewaySettings, run_gateway
run_gateway(GatewaySettings("c1", sys.argv[1], "127.0.0.1", int(sys.argv[2])))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def answer_to(client: aiohttp.ClientSession, path: str) -> int:
    """The status, once the process listens."""
    async with asyncio.timeout(20):
        while True:
            with suppress(aiohttp.ClientConnectorError):
                async with client.get(path) as response:
                    return response.status
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_without_zookeeper_and_ends_in_time(number: signal.Signals) -> None:
    nobody, port = f"127.0.0.1:{free_port()}", free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, nobody, str(port))
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            assert await answer_to(client, "/healthz") == 200
            assert await answer_to(client, "/v1/cluster") == 200
            assert await answer_to(client, "/readyz") == 503
            waiting = asyncio.create_task(client.get("/API/ObtenerUnFormulario/a"))
            await asyncio.wait([waiting], timeout=0.1)
            started = time.monotonic()
            process.send_signal(number)
            assert await process.wait() == 0
            assert time.monotonic() - started < 3
            assert (await waiting).status == 503
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
