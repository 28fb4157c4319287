"""A daemon's internal HTTP interface over a dictionary, with faults on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum, auto
from typing import Any

import orjson
from aiohttp import web

from replicad.coordination.memory import MemoryCoordinator, MemoryStore
from replicad.core.cluster import ClusterConfig, ClusterState, Disk, Member
from replicad.core.effects import Reason, Rejected
from replicad.core.entry import split_lines
from replicad.core.feed import Cursor, LoggedChange
from replicad.core.query import decode_query
from replicad.core.write import DEFINITIONS, WriteRequest, decode_write
from replicad.node.news import News

REPLICAS = ("n1", "n2", "n3")
FORMS = "formularios"
DIGEST = "ab" * 32
TIMING = {"fsync": 0.5, "ack_n2": 1.25}


class Fault(Enum):
    """What happens to one internal request instead of a proper answer."""

    HANG = auto()  # Nothing is done, and no answer comes until `release` is set.
    HANG_AFTERWARDS = auto()  # It is done, and no answer comes until `release` is set.
    RESET = auto()  # Nothing is done, and the connection breaks.
    RESET_AFTERWARDS = auto()  # It is done, and the connection breaks.
    NOT_LEADER = auto()  # 421: nothing is done.
    UNCONFIRMED = auto()  # 503
    GARBAGE = auto()  # It is done, and the answer is nonsense.
    BREAK_STREAM = auto()  # The connection breaks in the middle of the answer.
    STALL_STREAM = auto()  # The second half of the answer does not come until `release` is set.


class FakeLeader:
    """Answers as the daemon does; `faults` are used up one by one.

    It leads in `epoch` as far as it knows; reads that name an index instead it answers anyway.
    Definitions of collections, which a gateway reads once, it gives without faults or counting.

    Attributes:
        forms: The records of the built-in collection by id, in the order of arrival.
        records: Those of all collections.
        versions: Of the records that were written by requests; others have version 1.
        writes: Every write that came, in order.
        definitions_read: The collections whose definitions were read, in order.
        garbage: What `Fault.GARBAGE` answers to writes.
        refusal: While set, every write is refused for this reason.
        unknown: How many of the next writes are appended and answered as unknown.
        batches: How many writes or keys each request carried, by path.
        status: Members of /internal/status to replace.
        applied: The log index that answers name; None follows what is stored.
        staleness_ms: What answers name; None leaves it out.
        reads: How many reads were answered that named an index.
        history: The answer of /internal/history, without the name.
        feed: The changes, in their order, up to the index that is applied.
        feed_first: The first entry that the log still holds.
        news: To be told when there is more in the feed.
        followed: The places from which the feed was read.
        record_digest: The answer of /internal/record-digest.
        found: The answers of /internal/query, versions and past.
        asked: What these were asked.
    """

    def __init__(self, name: str, epoch: int) -> None:
        self.name = name
        self.epoch = epoch
        self.url = ""
        self.records: dict[str, dict[str, bytes]] = {FORMS: {}}
        self.versions: dict[tuple[str, str], int] = {}
        self.writes: list[WriteRequest] = []
        self.definitions_read: list[str] = []
        self.last = 0
        self.requests: dict[str, tuple[str, dict[str, Any]]] = {}
        self.written: dict[str, dict[str, Any]] = {}
        self.faults: deque[Fault] = deque()
        self.refusal: str | None = None
        self.garbage = b"{}"
        self.unknown = 0
        self.batches: dict[str, list[int]] = {"writes": [], "gets": []}
        self.status: dict[str, Any] = {}
        self.applied: int | None = None
        self.staleness_ms: int | None = 0
        self.reads = 0
        self.history: dict[str, Any] = {"epochs": [], "kept": []}
        self.feed: list[LoggedChange] = []
        self.feed_first = 1
        self.news = News()
        self.followed: list[str] = []
        self.record_digest: dict[str, Any] = {"version": 0, "sha256": None}
        self.found: dict[str, bytes] = {}
        self.asked: list[Any] = []
        self.release = asyncio.Event()
        self.seen = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/internal/writes", self._writes)
        app.router.add_post("/internal/gets", self._gets)
        app.router.add_get("/internal/records", self._records)
        app.router.add_get("/internal/export", self._export)
        app.router.add_get("/internal/changes", self._changes)
        app.router.add_get("/internal/record-digest", self._record_digest)
        app.router.add_post("/internal/query", self._find)
        app.router.add_get("/internal/versions", self._find)
        app.router.add_get("/internal/past", self._find)
        app.router.add_post("/internal/requests", self._requests)
        app.router.add_get("/internal/status", self._status)
        app.router.add_get("/internal/history", self._history)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0])

    async def stop(self) -> None:
        self.release.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _before(self, request: web.Request) -> Fault | None:
        self.seen.set()
        fault = self.faults.popleft() if self.faults else None
        if fault is Fault.HANG:
            await self.release.wait()
            raise web.HTTPMisdirectedRequest
        if fault is Fault.RESET:
            _reset(request)
        if fault is Fault.UNCONFIRMED:
            raise web.HTTPServiceUnavailable
        if fault is Fault.NOT_LEADER:
            raise web.HTTPMisdirectedRequest
        if "X-Replicad-Min-Index" in request.headers:
            if self.index < int(request.headers["X-Replicad-Min-Index"]):
                raise web.HTTPPreconditionFailed
            self.reads += 1
        elif request.headers["X-Replicad-Epoch"] != str(self.epoch):
            raise web.HTTPMisdirectedRequest
        else:
            assert request.headers["X-Replicad-Leader"].startswith("incarnation-")
        return fault

    @property
    def forms(self) -> dict[str, bytes]:
        return self.records[FORMS]

    @forms.setter
    def forms(self, forms: dict[str, bytes]) -> None:
        self.records[FORMS] = forms

    @property
    def index(self) -> int:
        """What is applied here."""
        return max(len(self.forms), self.last) if self.applied is None else self.applied

    def version(self, collection: str, key: str) -> int:
        """Of a record; 0 if there is none."""
        if key not in self.records.get(collection, {}):
            return 0
        return self.versions.get((collection, key), 1)

    def copy_of(self, other: FakeLeader) -> None:
        """Hold all that the other one has stored."""
        self.records = {name: dict(records) for name, records in other.records.items()}
        self.versions = dict(other.versions)
        self.requests = dict(other.requests)
        self.written = dict(other.written)
        self.last = other.last

    def _as_of(self, index: int) -> dict[str, str]:
        headers = {"X-Replicad-Index": str(index), "X-Replicad-Replica": self.name}
        if self.staleness_ms is not None:
            headers["X-Replicad-Staleness-Ms"] = str(self.staleness_ms)
        return headers

    async def _after(self, request: web.Request, fault: Fault | None) -> None:
        if fault is Fault.HANG_AFTERWARDS:
            await self.release.wait()
        if fault is Fault.RESET_AFTERWARDS:
            _reset(request)

    async def _writes(self, request: web.Request) -> web.Response:
        fault = await self._before(request)
        lines = list(split_lines(await request.read()))
        self.batches["writes"].append(len(lines))
        answers = [self._write(line) for line in lines]
        await self._after(request, fault)
        if fault is Fault.GARBAGE:
            return web.Response(body=self.garbage)
        told = {"acks": ["n1", "n2"], "timing": TIMING, "outcomes": answers}
        return web.Response(body=orjson.dumps(told))

    def _write(self, line: bytes) -> dict[str, Any]:
        write = decode_write(line)
        self.writes.append(write)
        if write.request in self.requests:
            fingerprint, outcome = self.requests[write.request]
            if fingerprint == write.fingerprint:
                return outcome | {"again": True}
            return _rejection(Rejected(Reason.MISMATCH))
        if self.refusal is not None:
            return {"status": "refused", "reason": self.refusal}
        rejected = self._objection(write)
        if rejected is not None:
            return _rejection(rejected)
        outcome = {
            "status": "committed",
            "index": self.index + 1,
            "epoch": self.epoch,
            "digest": DIGEST,
            "done": self._apply(write, self.index + 1),
            "again": False,
        }
        self.requests[write.request] = (write.fingerprint, outcome)
        key = write.operations[0].key if len(write.operations) == 1 else None
        self.written[write.request] = {"collection": write.collection, "key": key}
        if self.unknown:
            self.unknown -= 1
            return {"status": "unknown"}
        return outcome

    def _objection(self, write: WriteRequest) -> Rejected | None:
        definition = self.version(DEFINITIONS, write.collection)
        if write.collection != DEFINITIONS and write.definition != definition:
            return Rejected(Reason.DEFINITION, 0, definition)
        for position, operation in enumerate(write.operations):
            if operation.key in write.must_be_empty and self.records.get(operation.key):
                return Rejected(Reason.NOT_EMPTY)
            version = self.version(write.collection, operation.key)
            objection = operation.objection(version)
            if objection is not None:
                return Rejected(Reason(objection.value), position, version)
        return None

    def _apply(self, write: WriteRequest, index: int) -> str:
        self.last = index
        records = self.records.setdefault(write.collection, {})
        done = ""
        for operation in write.operations:
            if operation.value is None:
                del records[operation.key]
                done += "d"
                continue
            done += "u" if operation.key in records else "i"
            records[operation.key] = operation.value
            self.versions[write.collection, operation.key] = index
        return done

    async def _gets(self, request: web.Request) -> web.Response:
        keys = orjson.loads(await request.read())["keys"]
        if all(collection == DEFINITIONS for collection, _ in keys):
            fault = None
            self.definitions_read.extend(key for _, key in keys)
        else:
            fault = await self._before(request)
            self.batches["gets"].append(len(keys))
        await self._after(request, fault)
        body = b"".join(self._record(collection, key) + b"\n" for collection, key in keys)
        return web.Response(body=body, headers=self._as_of(self.index))

    def _record(self, collection: str, key: str) -> bytes:
        version = self.version(collection, key)
        return b"%d %b" % (version, self.records[collection][key]) if version else b"0"

    async def _requests(self, request: web.Request) -> web.Response:
        fault = await self._before(request)
        key = orjson.loads(await request.read())["request"]
        outcome: dict[str, Any] = {"state": "unknown"}
        if key in self.requests:
            index = self.requests[key][1]["index"]
            outcome = {"state": "committed", "index": index} | self.written[key]
        if fault is Fault.GARBAGE:
            outcome = {}
        return web.Response(body=orjson.dumps(outcome), headers=self._as_of(self.index))

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        fault = await self._before(request)
        query = request.query
        since, limit = Cursor.parse(query["since"]), int(query["limit"])
        self.followed.append(query["since"])
        if since.next_entry < self.feed_first:
            raise web.HTTPGone
        found = self._fed(query["collection"], since, limit)
        if not found:
            await self.news.wait(int(query["wait_ms"]) / 1000)
            found = self._fed(query["collection"], since, limit)
        after = found[-1].cursor if len(found) == limit else Cursor(max(self.index, since.index))
        if fault is Fault.GARBAGE:
            found = []
        body = b"".join(change.encode() + b"\n" for change in found)
        response = web.StreamResponse(headers=self._as_of(self.index))
        response.headers["X-Replicad-Next"] = "?" if fault is Fault.GARBAGE else str(after)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if fault is Fault.BREAK_STREAM:
            _reset(request)
        await response.write(body[len(body) // 2 :])
        return response

    def _fed(self, collection: str, since: Cursor, limit: int) -> list[LoggedChange]:
        return [
            change
            for change in self.feed
            if since.is_before(change.index, change.position)
            and change.index <= self.index
            and change.collection == collection
        ][:limit]

    async def _find(self, request: web.Request) -> web.Response:
        fault = await self._before(request)
        body = await request.read()
        self.asked.append(decode_query(body) if body else dict(request.query))
        await self._after(request, fault)
        told = b"?" if fault is Fault.GARBAGE else self.found[request.path.rpartition("/")[2]]
        return web.Response(body=told, headers=self._as_of(self.index))

    async def _record_digest(self, request: web.Request) -> web.Response:
        await self._before(request)
        return web.Response(body=orjson.dumps(self.record_digest), headers=self._as_of(self.index))

    async def _history(self, _request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"name": self.name, **self.history}))

    async def _records(self, request: web.Request) -> web.StreamResponse:
        fault = await self._before(request)
        genero = request.query.get("genero")
        upto = int(request.query.get("upto", self.index))
        records = self.records.get(request.query["collection"], {})
        values = [
            value
            for value in list(records.values())[:upto]
            if genero is None
            or orjson.loads(value).get("genero", "").casefold() == genero.casefold()
        ]
        response = web.StreamResponse(headers=self._as_of(upto))
        await response.prepare(request)
        await response.write(b"[" + b",".join(values))
        if fault is Fault.BREAK_STREAM:
            _reset(request)
        if fault is Fault.STALL_STREAM:
            await self.release.wait()
        await response.write(b"]")
        return response

    async def _export(self, request: web.Request) -> web.StreamResponse:
        fault = await self._before(request)
        response = web.StreamResponse(headers=self._as_of(self.index))
        values = list(self.records.get(request.query["collection"], {}).values())
        await response.prepare(request)
        for value in values:
            await response.write(value + b"\n")
            if fault is Fault.BREAK_STREAM:
                _reset(request)
        return response

    async def _status(self, request: web.Request) -> web.Response:
        status: dict[str, Any] = {
            "name": self.name,
            "role": "leader",
            "url": self.url,
            "epoch": self.epoch,
            "last_index": 7,
            "commit_index": 6,
            "applied_index": 5,
            "digest": DIGEST,
            "leader": self.name,
            "isr": ["n1", "n2"],
            "min_in_sync": 2,
            "writable": True,
            "reason": "",
            "followers": {"n2": {"matched": 4, "last_contact_ms": 12}},
        }
        return web.Response(body=orjson.dumps(status | self.status))


def _rejection(rejected: Rejected) -> dict[str, Any]:
    return {
        "status": "rejected",
        "reason": rejected.reason.value,
        "position": rejected.position,
        "version": rejected.version,
    }


def _reset(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    raise ConnectionResetError


class FakeCluster:
    """The coordinator's content, and fake leaders that can be made to lead."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._sessions: dict[str, MemoryCoordinator] = {}
        self._leaders: list[FakeLeader] = []

    async def replica(self, name: str, *, epoch: int = 1) -> FakeLeader:
        """Start one replica and register it. It leads only once elected."""
        leader = FakeLeader(name, epoch)
        await leader.start()
        self._leaders.append(leader)
        await self.register(name, leader.url)
        return leader

    async def register(self, name: str, url: str) -> None:
        session = MemoryCoordinator(self.store)
        await session.start(lambda view: None)
        await session.register(
            lambda: Member(name, f"incarnation-{name}", url, f"disk-{name}", 0, 0, "", 0, "")
        )
        self._sessions[name] = session

    def deregister(self, name: str) -> None:
        """The replica's session expires."""
        self._sessions.pop(name).crash()

    def elect(self, name: str, url: str, epoch: int) -> None:
        """Name the leader in the state; n1 and n2 are in sync."""
        config = self.store.config or ClusterConfig("c1", REPLICAS, 2)
        state = ClusterState(
            epoch, name, f"incarnation-{name}", url, _disks("n1", "n2"), f"nonce-{epoch}"
        )
        self.store.keep(config, state, self.store.version + 1)

    def in_sync(self, *names: str) -> None:
        """Name others as in sync."""
        assert self.store.config is not None
        assert self.store.state is not None
        state = replace(self.store.state, isr=_disks(*names))
        self.store.keep(self.store.config, state, self.store.version + 1)

    def fail_over(self, old: FakeLeader, new: FakeLeader) -> None:
        """Let `new` lead in the next epoch, with all that `old` has stored."""
        new.epoch = old.epoch + 1
        new.copy_of(old)
        self.elect(new.name, new.url, new.epoch)

    def without_leader(self) -> None:
        """The state before the first election."""
        assert self.store.config is not None
        assert self.store.state is not None
        state = replace(self.store.state, leader=None, incarnation=None, url=None)
        self.store.keep(self.store.config, state, self.store.version + 1)

    async def stop(self) -> None:
        for leader in self._leaders:
            await leader.stop()


def _disks(*names: str) -> tuple[Disk, ...]:
    return tuple(Disk(name, f"disk-{name}") for name in names)


@asynccontextmanager
async def one_leader() -> AsyncIterator[tuple[FakeCluster, FakeLeader]]:
    """A cluster whose n1 leads in epoch 1."""
    cluster = FakeCluster()
    leader = await cluster.replica("n1")
    cluster.elect("n1", leader.url, 1)
    try:
        yield cluster, leader
    finally:
        await cluster.stop()


def form(key: str, **fields: Any) -> bytes:  # noqa: ANN401 (any JSON)
    """A form's canonical bytes."""
    document: Mapping[str, Any] = {"id": key, **fields}
    return orjson.dumps(document)
