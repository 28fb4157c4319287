"""etcd's three nodes, through the JSON gateway of the one that leads."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from pathlib import Path
from typing import Final

import aiohttp
import orjson
import uvloop

from tests.benchmarks import etcd
from tests.benchmarks.compare.forms import Template, form, forms, record_id, request
from tests.benchmarks.compare.plan import ETCD, LOCAL, STRONG, TRANSACTIONS
from tests.benchmarks.system import BenchmarkError

_JSON: Final = "application/json"
_PUTS: Final = 128
"""Of a transaction; etcd's default limit."""
_AT_ONCE: Final = 8
_LEADER_S: Final = 10.0
_POLL_S: Final = 0.05


class Etcd:
    """Implements Store."""

    name = ETCD
    loads: tuple[str, ...] = (TRANSACTIONS,)

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.url = ""
        self._leader = ""
        self._cluster = etcd.Etcd()

    def up(self, directory: Path) -> None:
        """Start three nodes and wait until one of them leads."""
        self._cluster.up(directory)
        self._leader = uvloop.run(self._await_leader())
        self.url = self._cluster.url(self._leader)

    def down(self) -> None:
        """End them."""
        self._cluster.down()

    def pids(self) -> dict[str, int]:
        """The leader by that name, the followers by theirs."""
        names = iter(("follower 1", "follower 2"))
        pids = self._cluster.pids()
        return {
            "leader" if name == self._leader else next(names): pid for name, pid in pids.items()
        }

    def writes(self) -> list[Template]:
        """Puts. The id stands in the key; the id in the value is another one of its length."""
        bodies = []
        for kind in forms():
            value = b64encode(record_id("same", 0).encode().join(kind))
            bodies.append((b'{"key":"', b'","value":"%b"}' % value))
        return [self._post("put", body) for body in bodies]

    def reads(self) -> dict[str, list[Template]]:
        """Ranges of one key: linearizable, or serializable."""
        tails = {STRONG: b'"}', LOCAL: b'","serializable":true}'}
        return {what: [self._post("range", (b'{"key":"', tail))] for what, tail in tails.items()}

    async def load(
        self, session: aiohttp.ClientSession, way: str, tag: str, numbers: range
    ) -> float:
        """Transactions of 128 puts, 8 at once. Keys are what `reads` asks for."""
        bodies = iter(
            [_transaction(tag, numbers[at : at + _PUTS]) for at in range(0, len(numbers), _PUTS)]
        )

        async def send() -> None:
            for body in bodies:
                async with session.post(f"{self.url}/v3/kv/txn", data=body) as answer:
                    told = await answer.json()
                    if answer.status != 200 or not told.get("succeeded"):
                        raise BenchmarkError(f"a transaction: {answer.status} {told}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(send())
        return time.perf_counter() - began

    def _post(self, call: str, body: Template) -> Template:
        path = (f"/v3/kv/{call}".encode(),)
        return request("POST", self.url.removeprefix("http://"), path, body, _JSON)

    async def _await_leader(self) -> str:
        async with aiohttp.ClientSession() as session:
            deadline = time.monotonic() + _LEADER_S
            while True:
                try:
                    return await self._cluster.leader(session)
                except BenchmarkError:  # None has been elected yet.
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(_POLL_S)


def _transaction(tag: str, numbers: range) -> bytes:
    puts = [
        {
            "requestPut": {
                "key": record_id(tag, number),
                "value": b64encode(form(tag, number)).decode(),
            }
        }
        for number in numbers
    ]
    return orjson.dumps({"success": puts})
