"""The least that a write through this architecture takes, for one client.

Two HTTP hops (client to gateway, gateway to leader), one message to an exchange that is routed to
two followers, an acknowledgement from each, and, while these are under way, one fdatasync of the
leader. Nothing is parsed, checked, kept or batched; RabbitMQ runs as in a native stack. There are
two floors: with the libraries as they come (aiohttp's client and server, aiormq), and lowered by
what replicad has in their place for small requests and for its own messages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Final

import aiohttp
import uvloop
from aiohttp import web

from api_gateway.cluster.connections import Connections
from replicad.httpd.connection import Limits
from replicad.httpd.messages import Answer, Request
from replicad.httpd.runner import Runner, Usual
from replicad.stack.ports import LOOPBACK, free_port
from replicad.stack.processes import ProcessId, end, start_detached, wait_until
from replicad.stack.rabbitmq import RabbitMQ, RabbitPorts, amqp_url
from tests.benchmarks.compare.floor_messages import open_messages
from tests.benchmarks.compare.forms import Template, forms, request
from tests.benchmarks.compare.plan import LOWERED_FLOOR
from tests.benchmarks.compare.services import end_service, start_service
from tests.benchmarks.system import BenchmarkError

_FOLLOWERS: Final = 2
_JSON: Final = "application/json"
_TO_FOLLOWERS: Final = "log.all"
_TO_LEADER: Final = "acks"
_NUMBER_BYTES: Final = 8
_START_S: Final = 60.0
_END_S: Final = 30.0
_STORED: Final = b'{"status":"ok"}'


class Floor:
    """Implements Peer."""

    def __init__(self, name: str) -> None:
        """Nothing runs yet; `name` is FLOOR or LOWERED_FLOOR."""
        self.name = name
        ports: list[int] = []
        while len(ports) < 9:
            ports.append(free_port(ports))
        self._ports = dict(
            zip(("gateway", "leader", "follower 1", "follower 2"), ports[5:], strict=True)
        )
        self._rabbit_ports = RabbitPorts(*ports[:5])
        self.url = f"http://{LOOPBACK}:{self._ports['gateway']}"
        self._processes: dict[str, ProcessId] = {}

    def up(self, directory: Path) -> None:
        """Start RabbitMQ, the followers, the leader and the gateway."""
        rabbit = RabbitMQ(
            directory / "rabbitmq", f"floor{os.getpid()}", "floor", self._rabbit_ports
        )
        rabbit.prepare()
        environment = rabbit.environment()
        for name, command in (("epmd", rabbit.epmd_command()), ("RabbitMQ", rabbit.command())):
            log = directory / f"{name}.out"
            self._processes[name] = start_detached(command, environment, log)
        if not wait_until(rabbit.answers, _START_S):
            raise BenchmarkError(f"RabbitMQ does not answer; see {directory}")
        amqp = amqp_url(rabbit.password, rabbit.ports.amqp)
        leader = f"http://{LOOPBACK}:{self._ports['leader']}"
        self._start(directory, "follower 1", amqp)
        self._start(directory, "follower 2", amqp)
        self._start(directory, "leader", amqp, str(directory / "log"))
        self._start(directory, "gateway", leader)

    def down(self) -> None:
        """End everything."""
        for name in ("gateway", "leader", "follower 1", "follower 2"):
            if name in self._processes:
                end_service(self._processes.pop(name))
        for name in ("RabbitMQ", "epmd"):
            if name in self._processes:
                end(self._processes.pop(name), signal.SIGTERM, _END_S)

    def pids(self) -> dict[str, int]:
        """What takes part in a write."""
        return {name: each.pid for name, each in self._processes.items() if name != "epmd"}

    def writes(self) -> list[Template]:
        """Forms, to any path."""
        host, path = self.url.removeprefix("http://"), (b"/",)
        return [request("POST", host, path, kind, _JSON) for kind in forms()]

    def _start(self, directory: Path, name: str, *arguments: str) -> None:
        port = self._ports[name]
        log = directory / f"{name}.out"
        command = [name.split()[0], str(port), self.name, *arguments]
        self._processes[name] = start_service("floor", command, port, log)


async def _gateway(port: int, leader: str, lowered: bool) -> None:
    connections = Connections()
    session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def post_by_library(body: bytes) -> bytes:
        async with session.post(leader, data=body) as answer:
            return await answer.read()

    async def post(body: bytes) -> bytes:
        return (await connections.post(leader, "/", {}, body)).body

    send = post if lowered else post_by_library

    await _listen(port, send, lowered)


async def _leader(port: int, amqp: str, log: str, lowered: bool) -> None:
    waiting: dict[bytes, list[asyncio.Future[None]]] = {}
    numbers = count()

    def acknowledged(number: bytes) -> None:
        waiting[number].pop().set_result(None)

    messages = await open_messages(amqp, _TO_LEADER, acknowledged, lowered=lowered)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def store(body: bytes) -> bytes:
        number = b"%08d" % next(numbers)
        loop = asyncio.get_running_loop()
        acks = [loop.create_future() for _ in range(_FOLLOWERS)]
        waiting[number] = list(acks)
        await messages.send(_TO_FOLLOWERS, number + body)
        os.write(file, body)
        os.fdatasync(file)  # Inline, as that takes less than a thread; the message is under way.
        for ack in acks:
            await ack
        del waiting[number]
        return _STORED

    await _listen(port, store, lowered)


async def _follower(port: int, amqp: str, lowered: bool) -> None:
    def acknowledge(body: bytes) -> tuple[str, bytes]:
        return _TO_LEADER, body[:_NUMBER_BYTES]

    await open_messages(amqp, _TO_FOLLOWERS, acknowledge, lowered=lowered)
    await _listen(port, _nothing, lowered)  # So that whoever starts it knows that it consumes.


async def _nothing(_body: bytes) -> bytes:
    return b""


async def _listen(port: int, answer: Callable[[bytes], Awaitable[bytes]], lowered: bool) -> None:
    """Answer each request's body with another one, for good."""

    async def by_library(asked: web.BaseRequest) -> web.Response:
        return web.Response(body=await answer(await asked.read()), content_type=_JSON)

    async def usual(asked: Request) -> Answer:
        return Answer(200, {"Content-Type": _JSON}, await answer(asked.body))

    runner: web.BaseRunner = web.ServerRunner(web.Server(by_library, access_log=None))
    if lowered:
        runner = Runner(web.Application(), Usual(usual, Limits(64 * 1024, keepalive_s=60.0)))
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    await asyncio.Event().wait()


async def _run(role: str, port: int, lowered: bool, arguments: list[str]) -> None:
    match role, arguments:
        case "gateway", [leader]:
            await _gateway(port, leader, lowered)
        case "leader", [amqp, log]:
            await _leader(port, amqp, log, lowered)
        case "follower", [amqp]:
            await _follower(port, amqp, lowered)


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3] == LOWERED_FLOOR, sys.argv[4:]))
