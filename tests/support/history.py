"""Concurrent clients that store and read forms, and note down what they saw and when.

Part of what they do is about a few records that all of them want at the same time, and that
change as the run goes on; part is about records of their own. Each operation goes to any gateway.
What they note is judged afterwards: see linearizability.py and judgement.py.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Self

import aiohttp

from tests.support.client import ABSENT, EXISTS, STORED, UNKNOWN_ID, Answer, Client, form
from tests.support.linearizability import Kind, Operation
from tests.support.waiting import until

CLIENTS = 8
ATTEMPTS = 3
"""How often one insert is sent, with one request id, while its outcome is not known."""
PACE_S = 0.01
"""Between two operations of a client: a load, not a stampede of refusals."""
_SHARED = 6
"""Records that all clients want at the same time."""
_USES = 60
"""Operations of all clients after which the oldest of these makes room for a new one."""
_NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)


@dataclass(slots=True)
class Insert:
    """One insert, whatever became of it.

    Attributes:
        key: The record's id.
        value: What it stores; no two inserts store the same.
        index: Where it stands in the log, if it was acknowledged.
        refused: The status that said that nothing was stored, or None.
        acknowledged_at: When, in seconds of the loop's clock.
    """

    key: str
    value: str
    index: int | None = None
    refused: int | None = None
    acknowledged_at: float | None = None


@dataclass(slots=True)
class History:
    """Clients at work, and what they noted.

    Attributes:
        urls: The gateways.
        prefix: Of all ids, so that one history's records are its own.
        operations: Of which the outcome is known, and inserts of which it is not.
        inserts: All of them.
        statuses: How often each status was answered; 0 stands for no answer.
    """

    urls: Sequence[str]
    prefix: str
    seed: int
    operations: list[Operation] = field(default_factory=list)
    inserts: list[Insert] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _stopping: bool = False

    @classmethod
    @asynccontextmanager
    async def record(cls, urls: Sequence[str], prefix: str, seed: int = 1) -> AsyncIterator[Self]:
        """Let clients work for as long as the block runs, and wait for their last answers."""
        history = cls(urls, prefix, seed)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(_Worker(history, number).run())
            try:
                yield history
            finally:
                history._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether clients begin nothing more."""
        return self._stopping

    @property
    def acknowledged(self) -> list[Insert]:
        """The inserts that were answered 200."""
        return [insert for insert in self.inserts if insert.index is not None]

    async def progress(self, count: int = 40, timeout_s: float = 30.0) -> None:
        """Wait until as many more inserts are acknowledged."""
        wanted = len(self.acknowledged) + count

        async def reached() -> bool:
            return len(self.acknowledged) >= wanted

        await until(reached, timeout_s, lambda: self.statuses)

    def longest_gap_s(self) -> float:
        """The longest time between two acknowledgements that followed each other."""
        times = sorted(i.acknowledged_at for i in self.inserts if i.acknowledged_at is not None)
        return max((after - before for before, after in itertools.pairwise(times)), default=0.0)

    def next_number(self) -> int:
        """Counts the operations of all clients."""
        return next(self._numbers)


class _Worker:
    """One client; does one thing after the other."""

    def __init__(self, history: History, number: int) -> None:
        self._history = history
        self._number = number
        self._random = Random(f"{history.seed}-{number}")  # noqa: S311 - reproducible
        self._own = ""
        self._gateways: list[Client] = []

    async def run(self) -> None:
        async with _clients(self._history.urls) as self._gateways:
            while not self._history.stopping:
                await self._act(self._history.next_number())
                await asyncio.sleep(PACE_S)

    async def _act(self, number: int) -> None:
        shared = f"{self._history.prefix}-c{number // _USES - number % _SHARED}"
        match self._random.randrange(10):
            case 0 | 1 | 2:
                await self._insert(shared, number)
            case 3 | 4:
                self._own = f"{self._history.prefix}-{number}"
                await self._insert(self._own, number)
            case 5 | 6 | 7:
                await self._read(self._random.choice((shared, self._own or shared)))
            case _:
                await self._verify(self._random.choice((shared, self._own or shared)))

    def _gateway(self) -> Client:
        return self._random.choice(self._gateways)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _insert(self, key: str, number: int) -> None:
        insert = Insert(key, f"{self._history.prefix}-v{number}")
        self._history.inserts.append(insert)
        invoked = self._now()
        stored = await self._send(insert)
        if insert.refused is None:
            returned = None if stored is None else self._now()
            self._note(Kind.INSERT, key, (invoked, returned), insert.value, stored is not False)

    async def _send(self, insert: Insert) -> bool | None:
        """Whether it was stored; None if that is not known, or if it was refused."""
        body, in_doubt = form(insert.key, valor=insert.value), False
        for _ in range(ATTEMPTS):
            answer = await self._ask("POST", "", body, insert.value)
            match answer:
                case None | Answer(status=504):
                    in_doubt = True
                case Answer(status=200):
                    assert answer.body == STORED, answer
                    insert.index, insert.acknowledged_at = answer.index, self._now()
                    return True
                case Answer(status=409):
                    return False
                case Answer(status=503 | 507) if not in_doubt:
                    insert.refused = answer.status
                    return None
                case Answer(status=503 | 507):
                    await asyncio.sleep(PACE_S)
                case _:
                    raise AssertionError(f"{insert}: {answer}")
        return None

    async def _read(self, key: str) -> None:
        invoked = self._now()
        answer = await self._ask("GET", f"/API/ObtenerUnFormulario/{key}")
        match answer:
            case Answer(status=200):
                found = json.loads(answer.body)
                assert found["id"] == key, answer
                self._note(Kind.READ, key, (invoked, self._now()), found["valor"])
            case Answer(status=404):
                assert answer.body == ABSENT, answer
                self._note(Kind.READ, key, (invoked, self._now()))
            case None | Answer(status=503):
                return
            case _:
                raise AssertionError(f"read of {key}: {answer}")

    async def _verify(self, key: str) -> None:
        invoked = self._now()
        answer = await self._ask("GET", f"/API/VerificaFormularioDuplicado/{key}")
        if answer is None or answer.status == 503:
            return
        assert answer.status == 200, answer
        assert answer.body in (EXISTS, UNKNOWN_ID), answer
        there = answer.body == EXISTS
        self._note(Kind.VERIFY, key, (invoked, self._now()), succeeded=there)

    async def _ask(
        self, method: str, path: str, body: bytes = b"", request_id: str = ""
    ) -> Answer | None:
        """One request to any gateway; None when no answer came."""
        try:
            gateway = self._gateway()
            answer = await (
                gateway.post(body, {"Idempotency-Key": request_id})
                if method == "POST"
                else gateway.get(path)
            )
        except _NO_ANSWER:
            answer = None
            await asyncio.sleep(PACE_S)
        status = 0 if answer is None else answer.status
        self._history.statuses[status] = self._history.statuses.get(status, 0) + 1
        return answer

    def _note(
        self,
        kind: Kind,
        key: str,
        when: tuple[float, float | None],
        value: str | None = None,
        succeeded: bool = True,
    ) -> None:
        self._history.operations.append(
            Operation(self._number, key, kind, when[0], when[1], value, succeeded)
        )


@asynccontextmanager
async def _clients(urls: Sequence[str]) -> AsyncIterator[list[Client]]:
    timeout = aiohttp.ClientTimeout(total=15.0)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield [Client(session, url) for url in urls]
