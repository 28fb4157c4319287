"""The one process of an embedded stack: all replicas and gateways on one event loop.

Broker and coordinator live in memory; the logs are as real as in any other stack. What ZooKeeper
would keep is in DIR/coordinator.json.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from pathlib import Path
from typing import Final

import orjson
import uvloop
from aiohttp import web

from api_gateway.app import serve_gateway
from replicad.broker.memory import MemoryBroker, MemoryExchange
from replicad.coordination.bootstrap import initialise
from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.errors import ReplicadError, StackError
from replicad.node.daemon import Node, NodeSettings
from replicad.stack import control
from replicad.stack.control import Answer, Request
from replicad.stack.description import http_url
from replicad.stack.ports import LOOPBACK
from replicad.stack.record import CLUSTER, Record, load

_FIRST_START_S: Final = 30.0


class EmbeddedCluster:
    """The replicas and gateways of one process, started and stopped by name."""

    def __init__(self, record: Record) -> None:
        """Start nothing yet."""
        self._record = record
        self._store = MemoryStore(path=record.directory / "coordinator.json")
        self._exchange = MemoryExchange()
        self._nodes: dict[str, Node] = {}
        self._gateways: dict[str, web.AppRunner] = {}

    def running(self) -> tuple[str, ...]:
        """What runs now, by name."""
        nodes = (name for name, node in self._nodes.items() if node.failed is None)
        return (*nodes, *self._gateways)

    async def handle(self, request: Request) -> Answer:
        """Do what a command asks; whatever replicad itself objects to is part of the answer."""
        try:
            match request.verb:
                case "start":
                    await self._start(request.name)
                case "stop":
                    self._check(request.name)
                    await self._stop(request.name)
                case "crash":
                    self._check(request.name)
                    await self._crash(request.name)
                case "init":
                    await self._init()
                case "status":
                    pass
        except (ReplicadError, OSError) as error:
            return Answer(self.running(), str(error))
        return Answer(self.running())

    async def stop_all(self) -> None:
        """Stop the gateways, then the replicas together."""
        for name in tuple(self._gateways):
            await self._stop(name)
        await asyncio.gather(*(self._stop(name) for name in tuple(self._nodes)))

    async def _start(self, name: str) -> None:
        self._check(name)
        if name in self.running():
            return
        if name in self._record.settings.gateway_names:
            self._gateways[name] = await serve_gateway(
                MemoryCoordinator(self._store), host=LOOPBACK, port=self._record.ports[name]
            )
        else:
            await self._stop(name)  # One that failed still holds its port and its directory.
            await self._start_node(name)

    def _check(self, name: str) -> None:
        settings = self._record.settings
        names = (*settings.node_names, *settings.gateway_names)
        if name not in names:
            raise StackError(f"this stack has no {name!r}, only {', '.join(names)}")

    async def _start_node(self, name: str) -> None:
        settings = NodeSettings(
            name=name,
            cluster=CLUSTER,
            data_dir=self._record.data_dir(name),
            zookeeper="",
            amqp="",
            host=LOOPBACK,
            port=self._record.ports[name],
            url=http_url(self._record, name),
        )
        node = Node(
            settings,
            MemoryBroker(self._exchange, name),
            MemoryCoordinator(self._store),
            incarnation=secrets.token_hex(8),
        )
        await node.start()
        self._nodes[name] = node

    async def _stop(self, name: str) -> None:
        if name in self._gateways:
            await self._gateways.pop(name).cleanup()
        elif name in self._nodes:
            await self._nodes.pop(name).stop()

    async def _crash(self, name: str) -> None:
        if name in self._nodes:
            await self._nodes.pop(name).crash()
        else:
            await self._stop(name)

    async def _init(self) -> None:
        settings = self._record.settings
        coordinator = MemoryCoordinator(self._store)
        await initialise(coordinator, settings.node_names, settings.min_in_sync, _FIRST_START_S)


def serve(directory: Path) -> None:
    """Be the process of the stack in `directory` until SIGTERM or SIGINT.

    Raises:
        StackError: There is no stack.
    """
    record = load(directory)
    if record is None:
        raise StackError(f"there is no stack in {directory}")
    uvloop.run(_serve(record))


async def _serve(record: Record) -> None:
    cluster = EmbeddedCluster(record)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = Request(**orjson.loads(await reader.readline()))
        writer.write(orjson.dumps(await cluster.handle(request)) + b"\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(on_connection, sock=control.bind(record.directory))
    async with server:
        await ended.wait()
    await cluster.stop_all()
