"""A gateway's user: stores and reads forms over HTTP, and retries nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

STORE = "/API/IngresarFormulario"
REQUEST_S = 30.0
"""Well above the gateway's own deadline of 10 s: what takes longer is to be seen, not cut off."""

STORED = b'{"status":"ok","message":"Registro ingresado correctamente."}'
EXISTS = b'{"status":"error","message":"El registro ya existe en el sistema."}'
ABSENT = b'{"status":"error","message":"El registro No existe en el sistema."}'
UNKNOWN_ID = b'{"status":"ok","message":"El registro No existe en el sistema."}'


def form(key: str, **fields: object) -> bytes:
    """A form's bytes, without white space between tokens."""
    return json.dumps({"id": key, **fields}, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read to its end, and how long it took."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    seconds: float

    @property
    def told(self) -> Any:  # noqa: ANN401 (any JSON)
        """What the body says."""
        return json.loads(self.body)

    @property
    def index(self) -> int:
        """Where a write stands in the log."""
        return int(self.headers["X-Replicad-Index"])


class Client:
    """Talks to one gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """A client with connections of its own, as many as it needs."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            yield cls(session, url)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET a path that is sent exactly as given."""
        return await self._request("GET", path, headers=headers)

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, path: str = STORE
    ) -> Answer:
        """Store a form."""
        return await self._request(
            "POST", path, body, {"Content-Type": "application/json", **(headers or {})}
        )

    async def ask(
        self,
        method: str,
        path: str,
        told: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send JSON, bytes as they are, unless there is None."""
        body = told if told is None or isinstance(told, bytes) else json.dumps(told).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        return await self._request(method, path, body, sent)

    async def store(self, key: str, **fields: object) -> Answer:
        """Store a form that must be accepted."""
        answer = await self.post(form(key, **fields))
        assert (answer.status, answer.body) == (200, STORED), answer
        return answer

    async def fetch(self, key: str) -> bytes:
        """Read a form that must be there."""
        answer = await self.get(f"/API/ObtenerUnFormulario/{key}")
        assert answer.status == 200, answer
        return answer.body

    async def all_forms(self) -> list[dict[str, Any]]:
        """All forms."""
        answer = await self.get("/API/ObtenerTodosLosFormularios")
        assert answer.status == 200, answer
        forms: list[dict[str, Any]] = json.loads(answer.body)
        return forms

    async def view(self) -> dict[str, Any]:
        """GET /v1/cluster, which always answers."""
        answer = await self.get("/v1/cluster")
        assert answer.status == 200, answer
        view: dict[str, Any] = json.loads(answer.body)
        return view

    async def last_index(self) -> int:
        """Where the leader's log ends."""
        view = await self.view()
        last: int = next(r["last_index"] for r in view["replicas"] if r["name"] == view["leader"])
        return last

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        clock = asyncio.get_running_loop().time
        began = clock()
        url = URL(f"{self.url}{path}", encoded=True)
        data = None if body is None else BytesIO(body)  # Bytes may hold up the loop, it warns.
        async with self._session.request(method, url, data=data, headers=headers) as response:
            content = await response.read()
            return Answer(
                response.status,
                CIMultiDictProxy(CIMultiDict(response.headers)),
                content,
                clock() - began,
            )


@dataclass(slots=True)
class Load:
    """Clients that store one form after the other, each form once.

    Attributes:
        prefix: Of all ids, so that a test knows its own.
        answers: What became of each form, by id.
    """

    client: Client
    prefix: str
    answers: dict[str, Answer] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)
    _stopping: bool = False

    @classmethod
    @asynccontextmanager
    async def run(cls, client: Client, prefix: str, clients: int = 8) -> AsyncIterator[Self]:
        """Store forms for as long as the block runs, and wait for the last answers after it."""
        load = cls(client, prefix)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(load._work())
            try:
                yield load
            finally:
                load._stopping = True

    @property
    def stored(self) -> list[str]:
        """The ids of all forms that were acknowledged."""
        return [key for key, answer in self.answers.items() if answer.status == 200]

    def assert_all_stored(self, within_s: float) -> None:
        """Every request was answered 200, and in time."""
        others = {k: (a.status, a.body) for k, a in self.answers.items() if a.status != 200}
        assert not others, dict(itertools.islice(others.items(), 5))
        assert max(answer.seconds for answer in self.answers.values()) <= within_s

    async def _work(self) -> None:
        while not self._stopping:
            key = f"{self.prefix}-{next(self._numbers)}"
            self.answers[key] = await self.client.post(form(key, genero="Femenino"))
