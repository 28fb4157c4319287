"""A service as one would write it: aiohttp, uvloop, orjson, and asyncpg's pool."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final

import asyncpg
import orjson
import uvloop
from aiohttp import web

from replicad.stack.ports import LOOPBACK
from tests.benchmarks.compare.plan import POSTGRESQL_RESET

_TABLE: Final = "CREATE TABLE forms (id text PRIMARY KEY, value json NOT NULL)"
_INSERT: Final = "INSERT INTO forms (id, value) VALUES ($1, $2)"
_INSERT_NEW: Final = (
    "INSERT INTO forms (id, value) SELECT * FROM unnest($1::text[], $2::json[]) "
    "ON CONFLICT DO NOTHING RETURNING id"
)
_POOL: Final = 32
_BATCH: Final = 1_000
_BATCHES_AT_ONCE: Final = 4
_STORED: Final = b'{"status":"ok"}'

_Store = Callable[[list[str], list[str]], Coroutine[None, None, bytes]]


class _Service:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def insert(self, asked: web.Request) -> web.Response:
        body = await asked.read()
        identity = orjson.loads(body)["id"]
        try:
            await self._pool.execute(_INSERT, identity, body.decode())
        except asyncpg.UniqueViolationError:
            return web.json_response({"status": "error"}, status=409)
        return web.Response(body=_STORED, content_type="application/json")

    async def import_each(self, asked: web.Request) -> web.StreamResponse:
        """NDJSON; the answer has a line for each form: whether it is stored, or was there."""
        return await self._answer_batches(asked, self._insert_new)

    async def import_whole(self, asked: web.Request) -> web.StreamResponse:
        """NDJSON; a form that is there already fails all of its batch."""
        return await self._answer_batches(asked, self._copy)

    async def _insert_new(self, ids: list[str], values: list[str]) -> bytes:
        rows = await self._pool.fetch(_INSERT_NEW, ids, values)
        new = {row["id"] for row in rows}
        told = ({"id": each, "status": "stored" if each in new else "duplicate"} for each in ids)
        return b"".join(map(_line, told))

    async def _copy(self, ids: list[str], values: list[str]) -> bytes:
        rows = zip(ids, values, strict=True)
        await self._pool.copy_records_to_table("forms", records=rows, columns=("id", "value"))
        return _line({"stored": len(ids)})

    async def _answer_batches(self, asked: web.Request, store: _Store) -> web.StreamResponse:
        """Some transactions at once, while the body arrives; answers in the body's order."""
        answer = web.StreamResponse()
        answer.content_type = "application/x-ndjson"
        await answer.prepare(asked)
        under_way: list[asyncio.Task[bytes]] = []
        count = 0
        async with asyncio.TaskGroup() as tasks:
            async for ids, values in _batches(asked):
                if len(under_way) == _BATCHES_AT_ONCE:
                    await answer.write(await under_way.pop(0))
                under_way.append(tasks.create_task(store(ids, values)))
                count += len(ids)
            for each in under_way:
                await answer.write(await each)
        await answer.write(_line({"tally": count}))
        return answer


async def _batches(asked: web.Request) -> AsyncIterator[tuple[list[str], list[str]]]:
    ids: list[str] = []
    values: list[str] = []
    rest = b""
    async for chunk in asked.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            ids.append(orjson.loads(line)["id"])
            values.append(line.decode())
            if len(ids) == _BATCH:
                yield ids, values
                ids, values = [], []
    if ids:
        yield ids, values


def _line(told: object) -> bytes:
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


async def _keep(_connection: asyncpg.Connection) -> None:
    """Spare the round trip by which a pool resets a connection: nothing here leaves traces."""


async def _serve(port: int, dsn: str, *, resets: bool) -> None:
    sizes = {"min_size": _POOL, "max_size": _POOL}
    async with asyncpg.create_pool(dsn, **sizes, reset=None if resets else _keep) as pool:
        await pool.execute(_TABLE)
        service = _Service(pool)
        app = web.Application()
        app.router.add_post("/forms", service.insert)
        app.router.add_post("/forms:import", service.import_each)
        app.router.add_post("/forms:copy", service.import_whole)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], resets=sys.argv[3] == POSTGRESQL_RESET))
