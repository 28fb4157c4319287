"""Followers of the feed of changes as other systems write them, and what they should have seen."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import aio_pika
import aiohttp

from tests.support.logs import changes_of, entries

_PAUSE_S = 0.05


class Seen(NamedTuple):
    """One change, as every feed tells it."""

    place: tuple[int, int]
    operation: str
    key: str
    value: str
    digest: str


def seen_in(line: bytes | str) -> Seen:
    """Decode what a feed told."""
    told = json.loads(line)
    value = json.dumps(told["value"])
    place = told["index"], told["position"]
    return Seen(place, told["operation"], told["id"], value, told["digest"])


def seen_in_log(data_dir: Path, collection: str) -> list[Seen]:
    """All changes of a collection, read from a replica's files."""
    return [
        Seen((entry["index"], position), operation, key, json.dumps(value), entry["digest"])
        for entry in entries(data_dir)
        if entry["collection"] == collection
        for position, (operation, key, value) in enumerate(changes_of(entry))
    ]


@dataclass(slots=True)
class Follower:
    """Follows a collection for as long as a block runs, and connects again whenever it must.

    Attributes:
        url: Of its gateway.
        collection: Whose changes.
        seen: In the order of arrival.
        since: Where it goes on.
    """

    url: str
    collection: str
    seen: list[Seen] = field(default_factory=list)
    since: str = "0"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        task = asyncio.create_task(self._run())
        try:
            yield self
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
        async with aiohttp.ClientSession(self.url, timeout=timeout) as session:
            while True:
                try:
                    await self._follow(session)
                except aiohttp.ClientError:
                    await asyncio.sleep(_PAUSE_S)

    @property
    def path(self) -> str:
        return f"/v1/collections/{self.collection}/changes"

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        raise NotImplementedError


class LongPoller(Follower):
    """Asks for a few changes at a time."""

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        limit = random.randint(1, 7)  # noqa: S311 - any will do
        query = {"since": self.since, "limit": str(limit), "timeout": "5"}
        async with session.get(self.path, params=query) as response:
            response.raise_for_status()
            lines = (await response.read()).splitlines()
            self.seen += map(seen_in, lines)
            self.since = response.headers["X-Replicad-Next"]


class EventReader(Follower):
    """Reads Server-Sent Events, as a browser does."""

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": self.since}
        async with session.get(self.path, headers=headers) as response:
            response.raise_for_status()
            while True:
                try:
                    event = await response.content.readuntil(b"\n\n")
                except asyncio.IncompleteReadError:
                    return
                lines = event.decode().splitlines()
                fields = dict(line.split(": ", 1) for line in lines if ": " in line)
                if "data" in fields:
                    self.seen.append(seen_in(fields["data"]))
                self.since = fields["id"]


@asynccontextmanager
async def bound_queue(amqp: str, key: str) -> AsyncIterator[list[Seen]]:
    """What a queue of another system is given; bound before the block runs."""
    seen: list[Seen] = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        told = seen_in(message.body)
        assert message.message_id == "{}.{}".format(*told.place)
        assert message.headers["digest"] == told.digest
        seen.append(told)

    connection = await aio_pika.connect(amqp)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("replicad.local.changes", "topic", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, key)
        await queue.consume(take, no_ack=True)
        yield seen


@dataclass(slots=True)
class Writers:
    """Clients that put, delete and batch a few records of one collection again and again.

    Each request is repeated with its idempotency key until it is answered for good.

    Attributes:
        acknowledged: How many writes were.
    """

    url: str
    collection: str
    acknowledged: int = 0
    _numbers: Any = field(default_factory=itertools.count)
    _stopping: bool = False

    @asynccontextmanager
    async def running(self, clients: int = 4) -> AsyncIterator[Self]:
        async with aiohttp.ClientSession(self.url) as session, asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(self._work(session, random.Random(number)))  # noqa: S311
            try:
                yield self
            finally:
                self._stopping = True

    async def _work(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        while not self._stopping:
            number = next(self._numbers)
            headers = {"Idempotency-Key": f"{self.collection}-{number}"}
            method, path, body = self._request(rng, number)
            while True:
                try:
                    async with session.request(
                        method, path, json=body, headers=headers
                    ) as response:
                        await response.read()
                        if response.status < 500:
                            assert response.status in (200, 201, 404), await response.text()
                            break
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(_PAUSE_S)
            self.acknowledged += response.status != 404

    def _request(self, rng: random.Random, number: int) -> tuple[str, str, Any]:
        records = f"/v1/collections/{self.collection}/records"
        key = f"k{rng.randrange(20)}"
        match rng.randrange(4):
            case 0:
                return "DELETE", f"{records}/{key}", None
            case 1:
                keys = rng.sample(range(20), 5)
                operations = [
                    {"id": f"k{each}", "value": {"id": f"k{each}", "n": number}} for each in keys
                ]
                return "POST", f"{records}:batch", {"operations": operations}
        return "PUT", f"{records}/{key}", {"id": key, "n": number, "t": "ñandú"}
