"""What processes have done, by their own counters: counted work, the same on any machine."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import REQUEST_S, STORE, STORED, Client, form
from tests.support.cluster import Cluster

CONNECTIONS: Final = 64
_LOAD_S: Final = 60.0
_HEAD: Final = (
    f"POST {STORE} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
    "Content-Length: %d\r\n\r\n"
).encode()

Samples = Mapping[str, float]
"""Values by their names, each with the values of its labels: `name`, `name,label`."""


@dataclass(slots=True)
class Work:
    """What was done in a while.

    Attributes:
        leader: Who led all the time.
        gateway: By how much the counters of the gateway have grown.
        replicas: The same for each replica, by name.
    """

    leader: str
    gateway: Samples = field(default_factory=dict)
    replicas: Mapping[str, Samples] = field(default_factory=dict)

    @property
    def followers(self) -> list[str]:
        """Those that did not lead."""
        return [name for name in self.replicas if name != self.leader]


@asynccontextmanager
async def counted(cluster: Cluster, client: Client) -> AsyncIterator[Work]:
    """Count what is done while the block runs, and until all replicas are level after it."""
    leader, gateway, replicas = await _look(cluster, client)
    work = Work(leader)
    yield work
    now = await _look(cluster, client)
    assert now[0] == leader
    work.gateway = _grown(gateway, now[1])
    work.replicas = {name: _grown(before, now[2][name]) for name, before in replicas.items()}


async def _look(cluster: Cluster, client: Client) -> tuple[str, Samples, dict[str, Samples]]:
    """Who leads, and the counters of the client's gateway and of all replicas."""
    view = await cluster.in_sync(client)
    urls = {node["name"]: node["url"] for node in cluster.stack.description["nodes"]}
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        shown = await asyncio.gather(*(_scrape(session, u) for u in (client.url, *urls.values())))
    return view["leader"], shown[0], dict(zip(urls, shown[1:], strict=True))


async def _scrape(session: aiohttp.ClientSession, url: str) -> Samples:
    async with session.get(f"{url}/metrics", raise_for_status=True) as answer:
        families = text_string_to_metric_families(await answer.text())
    return {
        ",".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def _grown(before: Samples, after: Samples) -> Samples:
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


class _Connection(asyncio.Protocol):
    """Stores one form after the other, and does as little as possible besides."""

    def __init__(self, forms: Iterator[bytes], answers: list[bytes]) -> None:
        """Take forms from a common store, and put whole answers into another one."""
        self._forms = forms
        self._answers = answers
        self._received = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._store_next()

    def _store_next(self) -> None:
        body = next(self._forms, None)
        if body is None:
            self._transport.close()
        else:
            self._transport.write(_HEAD % len(body) + body)

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        self._received += data
        if self._received.endswith(STORED):
            self._answers.append(self._received)
            self._received = b""
            self._store_next()

    def connection_lost(self, error: Exception | None) -> None:
        """See Protocol."""
        assert not self._received, self._received
        self.ended.set_result(None)


async def write_many(url: str, writes: int, connections: int = CONNECTIONS) -> list[bytes]:
    """Store as many new forms; returns the answers as they came, which all are 200.

    A client that takes longer for a request than the servers do would keep them from batching.
    """
    prefix = uuid.uuid4().hex
    forms = (form(f"{prefix}-{number}", genero="Femenino") for number in range(writes))
    answers: list[bytes] = []
    loop = asyncio.get_running_loop()
    address = urlsplit(url)
    host, port = str(address.hostname), int(address.port or 0)
    async with asyncio.timeout(_LOAD_S):
        made = await asyncio.gather(
            *(
                loop.create_connection(lambda: _Connection(forms, answers), host, port)
                for _ in range(connections)
            )
        )
        await asyncio.gather(*(connection.ended for _, connection in made))
    assert len(answers) == writes
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    return answers
