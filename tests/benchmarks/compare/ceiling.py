"""What aiohttp takes in one process: forms are parsed and answered, and nothing is stored."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import orjson
import uvloop
from aiohttp import web

from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.processes import ProcessId
from tests.benchmarks.compare.forms import Template, forms, request
from tests.benchmarks.compare.plan import CEILING
from tests.benchmarks.compare.services import end_service, start_service

_PATH = "/forms"
_STORED = b'{"status":"ok"}'


class Ceiling:
    """Implements Peer."""

    name = CEILING

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._port = free_port(())
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._process: ProcessId | None = None

    def up(self, directory: Path) -> None:
        """Start the one process."""
        arguments, log = [str(self._port)], directory / "ceiling.out"
        self._process = start_service("ceiling", arguments, self._port, log)

    def down(self) -> None:
        """End it."""
        if self._process is not None:
            end_service(self._process)

    def pids(self) -> dict[str, int]:
        """Of the service."""
        return {} if self._process is None else {"service": self._process.pid}

    def writes(self) -> list[Template]:
        """What the service takes."""
        host = f"{LOOPBACK}:{self._port}"
        path = (_PATH.encode(),)
        return [request("POST", host, path, kind, "application/json") for kind in forms()]


async def _insert(asked: web.Request) -> web.Response:
    orjson.loads(await asked.read())
    return web.Response(body=_STORED, content_type="application/json")


async def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_post(_PATH, _insert)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
