"""A TCP hop between a client and a server that a test can cut."""

from __future__ import annotations

import asyncio

from replicad.stack.ports import LOOPBACK, free_port


class Proxy:
    """Listens on a loopback port of its own and forwards to another one."""

    def __init__(self, target_port: int) -> None:
        """Choose the port; nothing listens yet."""
        self.port = free_port(())
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    def cut(self) -> None:
        """Break all connections, and refuse new ones until `open`."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        ends = {to_client, to_server}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(from_client, to_server))
                group.create_task(_pump(from_server, to_client))
        finally:
            self._writers -= ends


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
