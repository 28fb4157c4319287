"""Faults of RabbitMQ: alarms, connections, channels and queues ended by force, odd messages."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aio_pika
import aiohttp
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

from replicad.stack.rabbitmq import RabbitMQ, RabbitPorts
from replicad.stack.record import CLUSTER
from tests.support.commands import run
from tests.support.faults.cluster import FaultCluster
from tests.support.waiting import until

EXCHANGE: Final = f"replicad.{CLUSTER}"
_DEFAULT_WATERMARK: Final = "0.4"


class Broker:
    """The stack's RabbitMQ, as its operator and its worst user."""

    def __init__(self, cluster: FaultCluster) -> None:
        """Take its addresses and its password from the stack."""
        record = cluster.record
        names = ("amqp", "management", "prometheus", "distribution", "epmd")
        ports = RabbitPorts(**{name: record.ports[name] for name in names})
        directory = record.directory / "rabbitmq"
        node = f"replicad-{record.identity}"
        self._server = RabbitMQ(directory, node, record.password, ports)
        self._description = cluster.stack.description["rabbitmq"]

    @property
    def port(self) -> int:
        """Where AMQP is spoken."""
        return self._server.ports.amqp

    async def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl; it takes about two seconds."""
        script = Path(self._server.command()[0]).with_name("rabbitmqctl")
        environment = self._server.environment()
        return await asyncio.to_thread(run, str(script), "--quiet", *arguments, env=environment)

    @asynccontextmanager
    async def memory_alarm(self) -> AsyncIterator[None]:
        """Be out of memory, as it believes, for as long as the block runs."""
        await self.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            await until(self._has_alarm)
            yield
        finally:
            await self.ctl("set_vm_memory_high_watermark", _DEFAULT_WATERMARK)

    async def _has_alarm(self) -> bool:
        nodes: list[dict[str, Any]] = await self._get("nodes")
        return bool(nodes[0].get("mem_alarm"))  # It takes a while to know about itself.

    async def queue(self, replica: str, kind: str) -> str:
        """The name of a replica's queue, `log` or `acks`."""
        name = await self.queue_or_none(replica, kind)
        assert name is not None
        return name

    async def queue_or_none(self, replica: str, kind: str) -> str | None:
        """The same, and None while there is none, or more than one."""
        prefix = f"{EXCHANGE}.{replica}.{kind}."
        names = [queue["name"] for queue in await self._get("queues")]
        found = [name for name in names if name.startswith(prefix)]
        return found[0] if len(found) == 1 else None

    async def delete_queue(self, name: str) -> None:
        """Delete a queue, although it belongs to a connection of its own."""
        found = f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>))'
        delete = 'rabbit_amqqueue:delete(Q, false, false, <<"test">>)'
        await self.ctl("eval", f"{{ok, Q}} = {found}, {{ok, _}} = {delete}.")

        async def is_gone() -> bool:
            return name not in {queue["name"] for queue in await self._get("queues")}

        await until(is_gone)

    async def unbind(self, queue: str, key: str) -> None:
        """Let what is published under a key no longer reach a queue: it is lost."""
        said = await self.ctl("eval", f'rabbit_binding:remove({_binding(queue, key)}, <<"t">>).')
        assert said.strip() == "ok", said

    async def bind(self, queue: str, key: str) -> None:
        """Undo it."""
        said = await self.ctl("eval", f'rabbit_binding:add({_binding(queue, key)}, <<"t">>).')
        assert said.strip() == "ok", said

    async def close_connections(self, replica: str) -> int:
        """End a replica's connections by force; returns how many there were.

        Two, and one more of who leads or has led.
        """
        # The management interface would do, but what it lists is some seconds old.
        found = (
            "[P || P <- rabbit_networking:connections(), "
            "[{client_properties, Ps}] <- [rabbit_reader:info(P, [client_properties])], "
            '{<<"connection_name">>, _, N} <- Ps, '
            f'binary:match(N, <<"replicad {CLUSTER} {replica}:">>) =/= nomatch]'
        )
        close = 'rabbit_networking:close_connection(P, "test")'
        said = await self.ctl("eval", f"L = {found}, [{close} || P <- L], length(L).")
        return int(said)

    async def close_channels(self) -> None:
        """End all channels of all connections by force."""
        end = 'exit(P, {amqp_error, internal_error, "test", none})'
        said = await self.ctl("eval", f"L = rabbit_channel:list(), [{end} || P <- L], length(L).")
        assert int(said) > 0, said

    async def _get(self, path: str) -> Any:  # noqa: ANN401
        """What the management interface lists."""
        amqp = urlsplit(self._description["amqp"])
        credentials = base64.b64encode(f"{amqp.username}:{amqp.password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        async with (
            aiohttp.ClientSession(self._description["management"], headers=headers) as session,
            session.get(f"/api/{path}") as answer,
        ):
            assert answer.status == 200, (path, answer.status, await answer.text())
            return await answer.json()

    @asynccontextmanager
    async def tapped(
        self, on_message: Callable[[AbstractIncomingMessage, AbstractExchange], Any]
    ) -> AsyncIterator[None]:
        """See every message of the cluster, for as long as the block runs, and answer back."""
        connection = await aio_pika.connect(self._description["amqp"])
        async with connection:
            channel = await connection.channel(publisher_confirms=False)
            exchange = await channel.get_exchange(EXCHANGE)
            tap = await channel.declare_queue(exclusive=True)
            await tap.bind(exchange, "#")

            async def on_tapped(message: AbstractIncomingMessage) -> None:
                await on_message(message, exchange)

            await tap.consume(on_tapped, no_ack=True)
            yield


def _binding(queue: str, key: str) -> str:
    exchange = f'rabbit_misc:r(<<"/">>, exchange, <<"{EXCHANGE}">>)'
    destination = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
    return f'{{binding, {exchange}, <<"{key}">>, {destination}, []}}'


def copy_of(message: AbstractIncomingMessage, body: bytes | None = None) -> aio_pika.Message:
    """The same message once more, or with another body."""
    return aio_pika.Message(
        message.body if body is None else body,
        headers=message.headers,
        content_type=message.content_type,
        type=message.type,
        app_id=message.app_id,
        message_id=message.message_id,
    )
