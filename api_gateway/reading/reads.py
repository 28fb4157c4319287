"""Reads records: from the leader, linearizably, or from any replica that knows enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import aiohttp

from api_gateway.bulk.streams import RecordStream
from api_gateway.cluster.coalescer import Call, Coalescer
from api_gateway.cluster.leader import LeaderClient, RecordName, Stored
from api_gateway.cluster.watch import ClusterWatch, Leader, Source
from api_gateway.errors import BehindError, LeaderError, NoAnswerError, UnavailableError
from api_gateway.metrics import Metrics
from api_gateway.reading.consistency import STRONG, Level, Seen, Wish
from api_gateway.reading.gathering import READS_IN_BATCH_MAX, SOURCE_S, Found, Gathering
from api_gateway.reading.spread import Spread

ANSWER = TypeVar("ANSWER")

_READ_BATCH_BYTES_MAX: Final = 64 * 1024


class Reads:
    """Reads records, and what became of writes."""

    def __init__(
        self, client: LeaderClient, watch: ClusterWatch, metrics: Metrics, *, deadline_s: float
    ) -> None:
        """Prepare; the coalescer's workers are started by the application."""
        self._client = client
        self._watch = watch
        self._spread = Spread(watch)
        self._deadline_s = deadline_s
        self._gathering = Gathering(client, metrics)
        self._retries = metrics.retries
        self.coalescer: Coalescer[RecordName, Found] = Coalescer(
            "read",
            self._send,
            watch,
            metrics,
            batch_calls_max=READS_IN_BATCH_MAX,
            batch_bytes_max=_READ_BATCH_BYTES_MAX,
        )

    async def get(
        self, collection: str, key: str, wish: Wish = STRONG, *, deadline: float | None = None
    ) -> Found:
        """The record, or None when there is none, and what that reflects.

        Args:
            collection: Whose record.
            key: Its id.
            wish: How fresh it has to be.
            deadline: When there must be an answer to a strong read, in the event loop's time, if
                that is not as long as usual from now.

        Raises:
            UnavailableError: Nobody could serve such a read by the deadline.
        """
        name = (collection, key)
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + self._deadline_s
        if wish.level is not Level.STRONG:
            return await self._get_anywhere(name, wish, deadline)
        call: Call[RecordName, Found] = Call(name, len(collection) + len(key), deadline)
        try:
            return await self.coalescer.run(call)
        except TimeoutError:
            raise UnavailableError from None

    async def _get_anywhere(self, name: RecordName, wish: Wish, deadline: float) -> Found:
        source = self._spread.first()
        if source is not None:
            try:
                stored, seen = await self._gathering.get(source, name)
                if seen.index >= wish.min_index:
                    return stored, seen
            except NoAnswerError:
                self._spread.avoid(source)
                self._retries.labels(wish.level).inc()

        async def ask(source: Source) -> Found:
            (stored,), seen = await self._client.get(source, [name])
            return stored, seen

        return await self._anywhere(wish, ask, deadline=deadline)

    async def get_all(self, names: Sequence[RecordName], wish: Wish) -> list[Stored | None]:
        """Several records, all as of one index; otherwise as `get`."""

        async def ask(source: Leader | Source) -> list[Stored | None]:
            found, _ = await self._client.get(source, names)
            return found

        if wish.level is Level.STRONG:
            return await self._at_leader("read", ask)
        return await self._anywhere(wish, ask)

    async def _send(self, leader: Leader, calls: Sequence[Call[RecordName, Found]]) -> None:
        found, seen = await self._client.get(leader, [call.payload for call in calls])
        for call, stored in zip(calls, found, strict=True):
            call.settle((stored, seen))

    async def records(self, collection: str, genero: str | None, wish: Wish) -> RecordStream:
        """Begin to read all records, or those of one genero, as one JSON array.

        The caller closes the stream.

        Raises:
            UnavailableError: Nobody could serve such a read by the deadline.
        """
        query = {"collection": collection} | ({} if genero is None else {"genero": genero})
        return await self._stream("records", query, wish)

    async def export(self, collection: str, wish: Wish) -> RecordStream:
        """Begin to read all records as they are stored, a line each; otherwise as `records`."""
        return await self._stream("export", {"collection": collection}, wish)

    async def _stream(self, path: str, query: Mapping[str, str], wish: Wish) -> RecordStream:
        async def ask(source: Leader | Source) -> tuple[aiohttp.ClientResponse, Seen]:
            return await self._client.stream(source, path, query)

        response, seen = await self.ask(path, wish, ask)

        async def ask_again(source: Source) -> aiohttp.ClientResponse:
            response, _ = await self._client.stream(source, path, query, seen.index)
            return response

        same_index = Wish(Level.SESSION, seen.index)
        return RecordStream(response, seen, lambda: self._anywhere(same_index, ask_again))

    async def outcome(self, request: str) -> tuple[Mapping[str, Any], Seen]:
        """What became of the write with this request id, linearizably.

        Returns:
            `{"state": "committed", ...}` or `{"state": "unknown"}`, and what that reflects.

        Raises:
            UnavailableError: No leader could confirm the read by the deadline.
        """

        async def ask(leader: Leader) -> tuple[Mapping[str, Any], Seen]:
            outcome, seen = await self._client.outcome(leader, request)
            if outcome.get("state") not in ("committed", "unknown"):
                raise NoAnswerError(f"{leader.name} told no outcome")
            return outcome, seen

        return await self._at_leader("request", ask)

    async def ask(
        self,
        kind: str,
        wish: Wish,
        ask: Callable[[Leader | Source], Awaitable[ANSWER]],
        *,
        source_s: float = SOURCE_S,
    ) -> ANSWER:
        """Ask the leader, or any replica, as the wish allows, until one answers.

        Args:
            kind: Of read, for the metrics.
            wish: How fresh the answer has to be.
            ask: Asks one replica.
            source_s: How long a replica that is not asked as the leader may take.

        Raises:
            UnavailableError: Nobody could serve such a read by the deadline.
        """
        if wish.level is Level.STRONG:
            return await self._at_leader(kind, ask)
        return await self._anywhere(wish, ask, source_s)

    async def _at_leader(self, kind: str, ask: Callable[[Leader], Awaitable[ANSWER]]) -> ANSWER:
        failures = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    leader = self._watch.leader
                    if leader is not None:
                        try:
                            return await self._watch.attempt(leader, ask(leader))
                        except (LeaderError, TimeoutError):
                            self._retries.labels(kind).inc()
                    failures += 1
                    await self._watch.pause(failures, leader)
        except TimeoutError:
            raise UnavailableError from None

    async def _anywhere(
        self,
        wish: Wish,
        ask: Callable[[Source], Awaitable[ANSWER]],
        source_s: float = SOURCE_S,
        deadline: float | None = None,
    ) -> ANSWER:
        rounds = 0
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + self._deadline_s
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    for source in self._spread.sources(wish.min_index):
                        try:
                            async with asyncio.timeout(source_s):
                                return await ask(source)
                        except BehindError:
                            continue
                        except (LeaderError, TimeoutError):
                            self._spread.avoid(source)
                            self._retries.labels(wish.level).inc()
                    rounds += 1
                    await self._watch.pause(rounds, self._watch.leader)
        except TimeoutError:
            raise UnavailableError(*_nobody_for(wish)) from None


def _nobody_for(wish: Wish) -> tuple[str, str]:
    if wish.level is Level.LOCAL:
        return (
            "No replica answers at the moment. Try again.",
            "Ninguna réplica responde en este momento. Intente de nuevo.",
        )
    return (
        f"No replica has index {wish.min_index} yet. Try again.",
        f"Ninguna réplica tiene todavía el índice {wish.min_index}. Intente de nuevo.",
    )
