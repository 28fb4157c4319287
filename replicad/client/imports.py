"""Sends many records in one request and reads what became of each while they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Final, NamedTuple

import aiohttp
import orjson

from replicad.client.errors import ProtocolError, UnavailableError, problem_error
from replicad.client.transport import Transport, pauses
from replicad.client.types import ImportResult, ImportStatus, Json, Record, encode_json

# Sent and not answered: what is kept to be sent again.
_WINDOW: Final = 10_000
_BLOCK_BYTES: Final = 64 * 1024
NDJSON: Final = "application/x-ndjson"
# While something waits for an answer; the gateway's own deadline for a write is shorter.
_SILENCE_S: Final = 20.0

# Of a problem that ended an import: our own silence, or a limit.
_MAY_PASS: Final = frozenset({408, 429})

Records = Iterable[Json | bytes] | AsyncIterator[Json | bytes]


class _Record(NamedTuple):
    number: int
    data: bytes


class Importer:
    """One import. Its records are taken by a task of its own: no broken connection loses one."""

    def __init__(
        self,
        transport: Transport,
        path: str,
        records: Records,
        get: Callable[[str], Awaitable[Record | None]],
        *,
        content_type: str,
        header: bytes,
    ) -> None:
        """Prepare.

        Args:
            transport: The way to the gateways.
            path: The collection's.
            records: What to store, taken as fast as it is answered.
            get: Reads one record.
            content_type: Of the records' bytes.
            header: Sent before the records: the first row of CSV.
        """
        self._transport = transport
        self._path = f"{path}/records:import"
        self._records = records
        self._get = get
        self._content_type = content_type
        self._header = header
        # What has no answer yet, by number, in order: what was sent, then what was not.
        self._waiting: dict[int, _Record] = {}
        # Of what was sent on this connection and has no answer: its number by its line.
        self._sent: dict[int, int] = {}
        self._last_sent = 0
        self._changed = asyncio.Condition()
        self._ended = False
        # Records up to here were sent on a connection that broke: they may be stored.
        self._in_doubt = 0

    async def results(self) -> AsyncIterator[ImportResult]:
        """What became of each record, in their order.

        Raises:
            ProblemError: The gateway refused the import.
            UnavailableError: No gateway went on with it for as long as a call may take.
        """
        taking = asyncio.create_task(self._take())
        clock = asyncio.get_running_loop().time
        progress_at, retries = clock(), pauses()
        try:
            while not self._ended or self._waiting:
                try:
                    async with aclosing(self._attempt()) as results:
                        async for result in results:
                            progress_at, retries = clock(), pauses()
                            yield result
                except (aiohttp.ClientError, OSError) as error:
                    if clock() > progress_at + self._transport.timeout_s:
                        raise UnavailableError(f"the import cannot go on: {error!r}") from error
                    self._in_doubt = max(self._in_doubt, *self._sent.values(), 0)
                    self._transport.turn()
                    await asyncio.sleep(next(retries))
            await taking  # What its source raised is raised here.
        finally:
            taking.cancel()

    async def _take(self) -> None:
        """Take records as long as there is room for them."""
        number = 0
        try:
            async for record in _each(self._records):
                number += 1
                async with self._changed:
                    await self._changed.wait_for(lambda: len(self._waiting) < _WINDOW)
                    self._waiting[number] = _Record(number, self._encode(record))
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()

    async def _attempt(self) -> AsyncGenerator[ImportResult, None]:
        self._sent = {}
        headers = {"Content-Type": self._content_type}
        stream = self._transport.stream("POST", self._path, headers=headers, data=self._body())
        async with stream as response:
            while line := await self._read(response):
                told = _decode(line)
                if "tally" in told:
                    return
                if "error" in told:
                    self._sent = {}  # What has no answer by now is not stored.
                    _refused(told["error"])
                number = self._sent.pop(told["line"], None)
                if number is None:
                    raise ProtocolError(f"an answer for line {told['line']}, which was not sent")
                async with self._changed:
                    record = self._waiting.pop(number)
                    self._changed.notify_all()
                yield await self._result(record, told)
        raise aiohttp.ClientPayloadError("the answer ended before its tally")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        while True:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    return await response.content.readline()
            except TimeoutError:
                if self._sent:
                    raise
                # The source of the records is slow, not the gateway.

    async def _body(self) -> AsyncIterator[bytes]:
        """All that waits, in blocks, and what comes, until the source has ended."""
        yield self._header
        line = 1 + self._header.count(b"\n")
        self._last_sent = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._ended or self._newest > self._last_sent)
                block = bytearray()
                for record in self._unsent():
                    block += record.data
                    self._sent[line] = self._last_sent = record.number
                    line += record.data.count(b"\n")
                    if len(block) >= _BLOCK_BYTES:
                        break
            if not block:
                return
            yield bytes(block)

    @property
    def _newest(self) -> int:
        return next(reversed(self._waiting), 0)

    def _unsent(self) -> Iterator[_Record]:
        """What waits and was not sent on this connection."""
        first = max(self._last_sent + 1, next(iter(self._waiting), 1))
        numbers = range(first, self._newest + 1)
        return (self._waiting[number] for number in numbers if number in self._waiting)

    def _encode(self, record: Json | bytes) -> bytes:
        if not isinstance(record, bytes):
            return encode_json(record) + b"\n"
        if self._content_type != NDJSON:
            return record.removesuffix(b"\n") + b"\n"
        # A blank line would have no answer.
        return (record.strip().replace(b"\n", b" ") or b"null") + b"\n"

    async def _result(self, record: _Record, told: Json) -> ImportResult:
        status = ImportStatus(told["status"])
        in_doubt = record.number <= self._in_doubt and self._content_type == NDJSON
        if status is ImportStatus.DUPLICATE and in_doubt:
            there = await self._get(told["id"])
            if there is not None and there.value == orjson.loads(record.data):
                status = ImportStatus.STORED
        return ImportResult(record.number, told["id"], status, told.get("reason") or "")


def _refused(problem: Json) -> None:
    """An import that the gateway has ended is gone on with, or (raised) given up.

    Raises:
        aiohttp.ClientPayloadError: Another attempt may succeed.
        ProblemError: None will.
    """
    status = int(problem.get("status", 500))
    if status in _MAY_PASS or status >= 500:
        raise aiohttp.ClientPayloadError(str(problem.get("detail")))
    raise problem_error(status, problem)


async def _each(records: Records) -> AsyncIterator[Json | bytes]:
    if isinstance(records, AsyncIterator):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record


def _decode(line: bytes) -> Json:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"not a line of an import: {line[:60]!r}") from error
    if not isinstance(told, dict):
        raise ProtocolError(f"not a line of an import: {line[:60]!r}")
    return told
