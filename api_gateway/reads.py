"""Reads forms: from the leader, linearizably, or from any replica that knows enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import aiohttp

from api_gateway.coalescer import Call, Coalescer
from api_gateway.consistency import Level, Seen, Wish
from api_gateway.errors import BehindError, LeaderError, NoAnswerError, UnavailableError
from api_gateway.leader import LeaderClient
from api_gateway.metrics import Metrics
from api_gateway.spread import Spread
from api_gateway.streams import FormStream
from api_gateway.watch import ClusterWatch, Leader, Source

ANSWER = TypeVar("ANSWER")
Form = tuple[bytes | None, Seen]

# A form may have 1 MiB: this bounds the answer, of which a read's own size says nothing.
_READS_IN_BATCH_MAX: Final = 64
_READ_BATCH_BYTES_MAX: Final = 64 * 1024
# For one replica of several: it only looks into its own records.
_SOURCE_S: Final = 0.5


class Reads:
    """Reads forms, and what became of writes."""

    def __init__(
        self, client: LeaderClient, watch: ClusterWatch, metrics: Metrics, *, deadline_s: float
    ) -> None:
        """Prepare; the coalescer's workers are started by the application."""
        self._client = client
        self._watch = watch
        self._spread = Spread(watch)
        self._deadline_s = deadline_s
        self._retries = metrics.retries
        self.coalescer: Coalescer[str, Form] = Coalescer(
            "read",
            self._send,
            watch,
            metrics,
            batch_calls_max=_READS_IN_BATCH_MAX,
            batch_bytes_max=_READ_BATCH_BYTES_MAX,
        )

    async def get(self, key: str, wish: Wish) -> Form:
        """The form's bytes as stored, or None when there is none, and what that reflects.

        Raises:
            UnavailableError: Nobody could serve such a read by the deadline.
        """
        if wish.level is not Level.STRONG:

            async def ask(source: Source) -> Form:
                (value,), seen = await self._client.get(source, [key])
                return value, seen

            return await self._anywhere(wish, ask)
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        call: Call[str, Form] = Call(key, len(key), deadline)
        try:
            return await self.coalescer.run(call)
        except TimeoutError:
            raise UnavailableError from None

    async def _send(self, leader: Leader, calls: Sequence[Call[str, Form]]) -> None:
        values, seen = await self._client.get(leader, [call.payload for call in calls])
        for call, value in zip(calls, values, strict=True):
            call.settle((value, seen))

    async def records(self, genero: str | None, wish: Wish) -> FormStream:
        """Begin to read all forms, or those of one genero. The caller closes the stream.

        Raises:
            UnavailableError: Nobody could serve such a read by the deadline.
        """

        async def ask(source: Leader | Source) -> tuple[aiohttp.ClientResponse, Seen]:
            return await self._client.records(source, genero)

        if wish.level is Level.STRONG:
            response, seen = await self._at_leader("records", ask)
        else:
            response, seen = await self._anywhere(wish, ask)

        async def ask_again(source: Source) -> aiohttp.ClientResponse:
            response, _ = await self._client.records(source, genero, seen.index)
            return response

        same_index = Wish(Level.SESSION, seen.index)
        return FormStream(response, seen, lambda: self._anywhere(same_index, ask_again))

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

    async def _at_leader(self, kind: str, ask: Callable[[Leader], Awaitable[ANSWER]]) -> ANSWER:
        failures = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    leader = self._watch.leader
                    if leader is not None:
                        try:
                            async with self._watch.attempt(leader):
                                return await ask(leader)
                        except (LeaderError, TimeoutError):
                            self._retries.labels(kind).inc()
                    failures += 1
                    await self._watch.pause(failures, leader)
        except TimeoutError:
            raise UnavailableError from None

    async def _anywhere(self, wish: Wish, ask: Callable[[Source], Awaitable[ANSWER]]) -> ANSWER:
        rounds = 0
        try:
            async with asyncio.timeout(self._deadline_s):
                while True:
                    for source in self._spread.sources(wish.min_index):
                        try:
                            async with asyncio.timeout(_SOURCE_S):
                                return await ask(source)
                        except BehindError:
                            continue
                        except (LeaderError, TimeoutError):
                            self._spread.avoid(source)
                            self._retries.labels(wish.level).inc()
                    rounds += 1
                    await self._watch.pause(rounds, self._watch.leader)
        except TimeoutError:
            raise UnavailableError(_nobody_for(wish)) from None


def _nobody_for(wish: Wish) -> str:
    if wish.level is Level.LOCAL:
        return "Ninguna réplica responde en este momento. Intente de nuevo."
    return f"Ninguna réplica tiene todavía el índice {wish.min_index}. Intente de nuevo."
