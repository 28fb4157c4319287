"""A gateway for tests of clients: some of REST v1 in memory, with faults on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from tests.support.waiting import eventually

Json = dict[str, Any]


class FakeStore:
    """What several fake gateways share.

    Attributes:
        records: By id.
        changes: All of them, in order.
        keys: The answer that each idempotency key got.
        definitions: Of collections other than `c`.
        requests: How many requests reached any gateway.
    """

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, bytes]] = {}
        self.changes: list[Json] = []
        self.keys: dict[str, Json] = {}
        self.definitions: dict[str, Json] = {}
        self.requests = 0

    def write(self, operation: str, id_: str, value: bytes | None) -> Json:
        index = len(self.changes) + 1
        if value is None:
            del self.records[id_]
        else:
            self.records[id_] = index, value
        change = {"index": index, "position": 0, "time": "t", "operation": operation, "id": id_}
        parsed = None if value is None else orjson.loads(value)
        self.changes.append({**change, "value": parsed, "digest": f"d{index}"})
        return {
            "collection": "c",
            "id": id_,
            "operation": operation,
            "index": index,
            "epoch": 1,
            "digest": f"d{index}",
            "replicas": ["n1", "n2"],
            "etag": None if value is None else f'"{index}"',
        }


class FakeGateway:
    """One gateway.

    Attributes:
        url: Where it is.
        faults: What happens to the next requests, one each: a status to answer with, "drop"
            before anything is done, or "lose" the answer after it was done.
        import_lines: After how many answers an import's connection breaks, for the next ones.
        breaks_for_good: Whether nothing is served any more after such a break.
    """

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.url = ""
        self.faults: deque[int | str] = deque()
        self.import_lines: deque[int] = deque()
        self.breaks_for_good = False

    @classmethod
    @asynccontextmanager
    async def running(cls, store: FakeStore) -> AsyncIterator[FakeGateway]:
        gateway = cls(store)
        app = web.Application(middlewares=[gateway._with_faults])
        records = "/v1/collections/c/records"
        app.add_routes(
            [
                web.get(records, gateway._query),
                web.post(records, gateway._insert),
                web.post(f"{records}:import", gateway._import),
                web.get(f"{records}:export", gateway._export),
                web.get(f"{records}/{{id}}", gateway._get),
                web.put(f"{records}/{{id}}", gateway._put),
                web.delete(f"{records}/{{id}}", gateway._delete),
                web.get("/v1/collections/c/changes", gateway._changes),
                web.get("/v1/requests/{key}", gateway._outcome),
                web.get("/v1/cluster", gateway._cluster),
                web.get("/v1/collections", gateway._collections),
                web.get("/v1/collections/{name}", gateway._definition),
                web.put("/v1/collections/{name}", gateway._define),
                web.delete("/v1/collections/{name}", gateway._drop),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield gateway
        finally:
            await runner.cleanup()

    @web.middleware
    async def _with_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.store.requests += 1
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, int):
            return web.Response(status=fault, headers={"Retry-After": "0"})
        if fault == "drop":
            return _break(request)
        response = await handler(request)
        return _break(request) if fault == "lose" else response

    async def _insert(self, request: web.Request) -> web.Response:
        value = await request.read()
        id_ = orjson.loads(value)["id"]
        if id_ in self.store.records and request.headers["Idempotency-Key"] not in self.store.keys:
            return _problem(409, "record-exists")
        return self._written(request, "insert", id_, value)

    async def _put(self, request: web.Request) -> web.Response:
        id_, wanted = request.match_info["id"], request.headers.get("If-Match")
        there = self.store.records.get(id_)
        if wanted is not None and (there is None or wanted != f'"{there[0]}"'):
            return _problem(412, "precondition-failed", etag=f'"{there[0]}"' if there else None)
        operation = "update" if there else "insert"
        return self._written(request, operation, id_, await request.read())

    async def _delete(self, request: web.Request) -> web.Response:
        return self._written(request, "delete", request.match_info["id"], None)

    def _written(
        self, request: web.Request, operation: str, id_: str, value: bytes | None
    ) -> web.Response:
        key = request.headers["Idempotency-Key"]
        again = key in self.store.keys
        if not again:
            self.store.keys[key] = self.store.write(operation, id_, value)
        headers = {"Idempotency-Replayed": "true"} if again else {}
        return _json(self.store.keys[key], 201 if operation == "insert" else 200, headers)

    async def _get(self, request: web.Request) -> web.Response:
        there = self.store.records.get(request.match_info["id"])
        if there is None:
            return _problem(404, "no-such-record")
        headers = {"ETag": f'"{there[0]}"', "X-Replicad-Index": str(len(self.store.changes))}
        return web.Response(body=there[1], headers=headers)

    async def _query(self, request: web.Request) -> web.Response:
        after, limit = request.query.get("cursor", ""), int(request.query.get("limit", "2"))
        ids = sorted(id_ for id_ in self.store.records if id_ > after)
        items = [orjson.loads(self.store.records[id_][1]) for id_ in ids[:limit]]
        return _json({"items": items, "next": ids[limit - 1] if len(ids) > limit else None})

    async def _changes(self, request: web.Request) -> web.Response:
        since = int(request.query["since"].partition(".")[0])
        with suppress(AssertionError):
            wait_s = float(request.query["timeout"])
            await eventually(lambda: len(self.store.changes) > since, wait_s)
        page = self.store.changes[since : since + 2]
        following = page[-1]["index"] if page else since
        body = b"".join(orjson.dumps(change) + b"\n" for change in page)
        return web.Response(body=body, headers={"X-Replicad-Next": str(following)})

    async def _import(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        limit = self.import_lines.popleft() if self.import_lines else None
        number = 0
        async for line in request.content:
            value = line.strip()
            parsed = orjson.loads(value)
            number += 1
            told: Json = {"line": number, "id": None, "status": "invalid", "reason": "no object"}
            if isinstance(parsed, dict):
                there = parsed["id"] in self.store.records
                if not there:
                    self.store.write("insert", parsed["id"], value)
                told = {"id": parsed["id"], "status": "duplicate" if there else "stored"}
                told |= {"line": number, "reason": None}
            if limit is not None and number > limit:
                if self.breaks_for_good:
                    self.faults.extend([503] * 1000)
                return _break(request)
            await response.write(orjson.dumps(told) + b"\n")
        await response.write(orjson.dumps({"tally": {}}) + b"\n")
        await response.write_eof()
        return response

    async def _export(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _, value in self.store.records.values():
            await response.write(value + b"\n")
        if self.import_lines:
            return _break(request)
        return response

    async def _outcome(self, request: web.Request) -> web.Response:
        told = self.store.keys.get(request.match_info["key"])
        if told is None:
            return _json({"state": "unknown"}, 404)
        return _json({"state": "committed", "index": told["index"]})

    async def _cluster(self, _request: web.Request) -> web.Response:
        replica = {"role": "leader", "url": "u", "last_index": 7, "commit_index": 7}
        replica |= {"applied_index": 7, "digest": "d", "lag": 0, "last_contact_ms": 0}
        silent = dict.fromkeys(replica) | {"name": "n2", "role": "unreachable"}
        replicas = [{"name": "n1", **replica}, silent]
        view = {"leader": "n1", "epoch": 3, "isr": ["n1"], "min_in_sync": 1, "replicas": replicas}
        return _json(view)

    async def _collections(self, _request: web.Request) -> web.Response:
        named = ({"name": name, **d, "version": 1} for name, d in self.store.definitions.items())
        return _json({"items": list(named)})

    async def _definition(self, request: web.Request) -> web.Response:
        definition = self.store.definitions.get(request.match_info["name"])
        if definition is None:
            return _problem(404, "no-such-collection")
        return _json({"name": request.match_info["name"], **definition, "version": 1})

    async def _define(self, request: web.Request) -> web.Response:
        if "force" not in request.query and request.match_info["name"] == "strict":
            return _problem(409, "records-would-not-pass")
        self.store.definitions[request.match_info["name"]] = await request.json()
        return _json({"index": 1})

    async def _drop(self, request: web.Request) -> web.Response:
        del self.store.definitions[request.match_info["name"]]
        return _json({"index": 2})


def _break(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


def _json(body: Json, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


def _problem(status: int, slug: str, **members: object) -> web.Response:
    body = {"type": f"urn:replicad:{slug}", "title": slug, "status": status, **members}
    return web.json_response(body, status=status, content_type="application/problem+json")
