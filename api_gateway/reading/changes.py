"""Follows the feed of changes at any replica that answers.

A place in the feed is the same at every replica: when one fails, the next one goes on after the
last change that was seen.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from api_gateway.cluster.leader import LeaderClient
from api_gateway.cluster.watch import ClusterWatch, Source
from api_gateway.errors import (
    GoneError,
    HistoryGoneError,
    LeaderError,
    NoAnswerError,
    NoSuchCollectionError,
    UnavailableError,
)
from api_gateway.metrics import Metrics
from api_gateway.reading.reads import Reads
from api_gateway.reading.spread import Spread
from api_gateway.records.definitions import FORMS, Definitions
from replicad.core.feed import Cursor
from replicad.core.write import DEFINITIONS

# A replica is asked anew after so long, and another one: one that is cut off would stay silent.
_WAIT_S: Final = 2.0
# How much longer it may take: to read what is there, and to send it.
_ANSWER_S: Final = 2.0
# How each line begins: see `LoggedChange.encode`.
_LINE: Final = re.compile(
    rb'\{"index":(\d+),"position":(\d+),"time":"[^"]*","operation":"([a-z]+)"'
)


@dataclass(frozen=True, slots=True)
class Page:
    """Changes that follow each other.

    Attributes:
        lines: A JSON object each, with its newline; empty if there was nothing.
        next: The place after them, and after what was passed over.
        applied: The replica that answered had applied the log up to here.
    """

    lines: bytes
    next: Cursor
    applied: int

    def events(self) -> bytes:
        """The same as Server-Sent Events, each with the place after it as its id.

        Without changes it is a comment and the place: a browser keeps that, and tells nobody.
        """
        lines = self.lines.splitlines()
        heads = [_head(line) for line in lines]
        within = -1 if self.next.position is None else self.next.index
        following = [index for index, _, _ in heads[1:]] + [within]
        events = []
        for line, (index, position, operation), after in zip(lines, heads, following, strict=False):
            cursor = Cursor(index, position if after == index else None)
            told = (str(cursor).encode(), operation, line)
            events.append(b"id: %b\nevent: %b\ndata: %b\n\n" % told)
        return b"".join(events) or b":\nid: %b\n\n" % str(self.next).encode()


def _head(line: bytes) -> tuple[int, int, bytes]:
    match = _LINE.match(line)
    if match is None:
        raise NoAnswerError(f"a replica sent a line that is no change: {line[:60]!r}")
    return int(match[1]), int(match[2]), match[3]


class Changes:
    """The way to the feed of changes."""

    def __init__(
        self,
        client: LeaderClient,
        watch: ClusterWatch,
        metrics: Metrics,
        reads: Reads,
        definitions: Definitions,
        *,
        deadline_s: float,
    ) -> None:
        """Ask the replicas that `watch` knows; give up when none answers for `deadline_s`."""
        self._client = client
        self._watch = watch
        self._spread = Spread(watch)
        self._retries = metrics.retries.labels("changes")
        self._reads = reads
        self._definitions = definitions
        self._deadline_s = deadline_s

    async def check_exists(self, collection: str) -> None:
        """Make sure that there is, or was a moment ago, such a collection.

        Raises:
            NoSuchCollectionError: There is none.
            UnavailableError: Nobody could tell.
        """
        if collection != FORMS:
            await self._definitions.of(collection)

    async def now(self, collection: str) -> Cursor:
        """The place after everything that was acknowledged before the call.

        Raises:
            NoSuchCollectionError, UnavailableError: As `check_exists`.
        """
        stored, seen = await self._reads.get(DEFINITIONS, collection)
        if stored is None and collection != FORMS:
            raise NoSuchCollectionError
        return Cursor(seen.index)

    async def page(
        self,
        collection: str,
        since: Cursor,
        *,
        limit: int,
        wait_s: float,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Page:
        """What comes next, as soon as there is something.

        Args:
            collection: Whose changes.
            since: The place to go on from.
            limit: Of changes.
            wait_s: How long to wait when there is nothing yet.
            is_wanted: Whether anybody still waits for the answer.

        Returns:
            The page; without changes once `wait_s` has passed (and what there is was read, if that
            does not take too long), or when nobody wants it any more.

        Raises:
            HistoryGoneError: No replica's log reaches back so far.
            UnavailableError: No replica answered for too long.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_s
        patience, failures = clock() + self._deadline_s, 0
        while True:
            left_s = max(0.0, deadline - clock())
            page = await self._ask(collection, since, limit, left_s, is_final=clock() > patience)
            if page is None:
                failures += 1
                await self._watch.pause(failures, self._watch.leader)
                continue
            since, patience, failures = page.next, clock() + self._deadline_s, 0
            is_at_the_end = since.next_entry > page.applied
            ends_at = deadline if is_at_the_end else deadline + self._deadline_s
            if page.lines or not is_wanted() or clock() >= ends_at:
                return page

    async def _ask(
        self, collection: str, since: Cursor, limit: int, left_s: float, *, is_final: bool
    ) -> Page | None:
        """Ask one replica after the other until one answers; None if none does."""
        wait_s = min(_WAIT_S, left_s)
        query = {
            "collection": collection,
            "since": str(since),
            "limit": str(limit),
            "wait_ms": str(round(wait_s * 1000)),
        }
        gone, sources = 0, self._spread.sources(0)
        for source in sources:
            try:
                async with asyncio.timeout(wait_s + _ANSWER_S):
                    return await self._ask_one(source, query)
            except GoneError:
                gone += 1
            except (LeaderError, TimeoutError):
                self._spread.avoid(source)
                self._retries.inc()
        # Who did not answer may have it: but not for ever.
        if gone and (gone == len(sources) or is_final):
            raise HistoryGoneError
        if is_final:
            raise UnavailableError(
                "No replica answers at the moment. Try again.",
                "Ninguna réplica responde en este momento. Intente de nuevo.",
            )
        return None

    async def _ask_one(self, source: Source, query: dict[str, str]) -> Page:
        body, headers, seen = await self._client.read(source, "changes", query)
        try:
            return Page(body, Cursor.parse(headers["X-Replicad-Next"]), seen.index)
        except (KeyError, ValueError) as error:
            raise NoAnswerError(f"{source.name} did not say how far its answer goes") from error
