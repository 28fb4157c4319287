"""Reads of one replica travel together: while it answers some, the next ones gather."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from api_gateway.cluster.leader import LeaderClient, RecordName, Stored
from api_gateway.cluster.watch import Source
from api_gateway.errors import LeaderError, NoAnswerError
from api_gateway.metrics import Metrics
from api_gateway.reading.consistency import Seen

SOURCE_S: Final = 0.5
"""For one replica of several: it only looks into its own records."""
READS_IN_BATCH_MAX: Final = 64
"""A record may have 1 MiB: this bounds the answer, of which a read's own size says nothing."""
Found = tuple[Stored | None, Seen]


@dataclass(slots=True)
class _Read:
    name: RecordName
    since: float
    answer: asyncio.Future[Found]


@dataclass(slots=True)
class _Gathered:
    reads: deque[_Read] = field(default_factory=deque)
    asking: asyncio.Task[None] | None = None


class Gathering:
    """What is to be read of each replica. Tries nothing twice: that is the callers'."""

    def __init__(self, client: LeaderClient, metrics: Metrics) -> None:
        """Nothing is to be read yet."""
        self._client = client
        self._batch_size = metrics.batch_size.labels("local")
        self._gathered: dict[Source, _Gathered] = {}

    async def get(self, source: Source, name: RecordName) -> Found:
        """A record as this replica has it, whatever it has applied, and what that reflects.

        Raises:
            NoAnswerError: It did not answer within SOURCE_S, or could not.
        """
        loop = asyncio.get_running_loop()
        read = _Read(name, loop.time(), loop.create_future())
        gathered = self._gathered.setdefault(source, _Gathered())
        gathered.reads.append(read)
        if gathered.asking is None:
            # It begins in the loop's next turn: what came with the same poll goes along.
            gathered.asking = loop.create_task(self._ask(source, gathered.reads))
        return await read.answer

    async def _ask(self, source: Source, reads: deque[_Read]) -> None:
        """Read until there is nothing more to be read."""
        batch: list[_Read] = []
        try:
            while reads:
                batch = [reads.popleft() for _ in range(min(len(reads), READS_IN_BATCH_MAX))]
                self._batch_size.observe(len(batch))
                async with asyncio.timeout(SOURCE_S):
                    found, seen = await self._client.get(source, [read.name for read in batch])
                for read, stored in zip(batch, found, strict=True):
                    if not read.answer.done():
                        read.answer.set_result((stored, seen))
                oldest = asyncio.get_running_loop().time() - SOURCE_S
                while reads and reads[0].since < oldest:
                    _fail(reads.popleft(), source)
        except (LeaderError, TimeoutError):
            pass  # Those who wait for it ask another replica.
        finally:
            del self._gathered[source]
            for read in (*batch, *reads):
                _fail(read, source)


def _fail(read: _Read, source: Source) -> None:
    if not read.answer.done():
        read.answer.set_exception(NoAnswerError(f"no answer from {source.name} in time"))
