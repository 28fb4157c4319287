"""The asynchronous client: see docs/client.md."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp

from replicad.client.changes import follow
from replicad.client.errors import BrokenOffError, NotFoundError, ProtocolError
from replicad.client.imports import NDJSON, Importer
from replicad.client.transport import Answer, Transport
from replicad.client.types import (
    BatchReceipt,
    Change,
    ImportResult,
    Json,
    Receipt,
    Record,
    Version,
    encode_json,
)

TIMEOUT_S: Final = 30.0
# Of a stream: the gateway goes on at another replica well before.
_SILENCE_S: Final = 30.0
_JSON: Final = {"Content-Type": "application/json"}
_MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}


class Client:
    """A connection to a cluster, by any of its gateways.

    async with Client(["http://127.0.0.1:8080"]) as client:
        await client.collection("formularios").insert({"id": "A1", "nombres": "Ana"})
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        timeout_s: float = TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the gateways; `async with` connects.

        Args:
            urls: Of one gateway or of several, which stand in for each other.
            timeout_s: For each call, all attempts together.
            headers: Sent with every request.

        Raises:
            ValueError: There is no URL.
        """
        several = [urls] if isinstance(urls, str) else urls
        self._transport = Transport(several, timeout_s=timeout_s, headers=headers)

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._transport.__aexit__()

    def collection(self, name: str) -> Collection:
        """The records of one collection. Nothing is asked for yet."""
        return Collection(self._transport, name)

    async def collections(self) -> list[dict[str, Any]]:
        """The definitions of all collections.

        Raises:
            ClientError: See errors.py.
        """
        answer = await self._transport.call("GET", "/v1/collections")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def outcome(self, key: str) -> dict[str, Any]:
        """What became of the write with this idempotency key.

        Returns:
            `{"state": "committed", "index": ..., ...}` or `{"state": "unknown"}`.

        Raises:
            ClientError: See errors.py.
        """
        answer = await self._transport.call(
            "GET", f"/v1/requests/{quote(key, safe='')}", accept=(404,)
        )
        outcome: dict[str, Any] = answer.json()
        return outcome

    async def cluster(self) -> dict[str, Any]:
        """Who leads, who is in sync, and how far everybody is.

        Raises:
            ClientError: See errors.py.
        """
        report: dict[str, Any] = (await self._transport.call("GET", "/v1/cluster")).json()
        return report


@dataclass(frozen=True, slots=True)
class Reading:
    """How fresh a read has to be.

    Attributes:
        consistency: `strong`, `session` or `local`.
        min_index: Of a session read: what it must show at least.
    """

    consistency: str = "strong"
    min_index: int | None = None

    def headers(self) -> dict[str, str]:
        """As the gateway takes it."""
        headers = {"X-Replicad-Consistency": self.consistency}
        if self.min_index is not None:
            headers["X-Replicad-Min-Index"] = str(self.min_index)
        return headers


STRONG: Final = Reading()


class Collection:
    """The records of one collection.

    Every write takes an idempotency `key`; if none is given it makes one, and keeps it through all
    attempts. Methods raise ClientError: see errors.py.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        """Use `Client.collection`."""
        self.name = name
        self._transport = transport
        self._path = f"/v1/collections/{quote(name, safe='')}"

    # -- the definition -----------------------------------------------------------------------

    async def definition(self) -> dict[str, Any]:
        """Schema, indexes, searched fields, key field and version."""
        definition: dict[str, Any] = (await self._transport.call("GET", self._path)).json()
        return definition

    async def define(
        self, definition: Json, *, force: bool = False, key: str | None = None
    ) -> dict[str, Any]:
        """Create the collection, or change its definition.

        Args:
            definition: `schema`, `indexes`, `search`, `key`: see docs/api.md.
            force: Also if existing records would not pass the new schema.
            key: The write's idempotency key.
        """
        answer = await self._write(
            "PUT",
            self._path,
            encode_json(definition),
            key,
            params={"force": "true"} if force else None,
        )
        told: dict[str, Any] = answer.json()
        return told

    async def drop(self, *, key: str | None = None) -> None:
        """Delete the collection, which must be empty."""
        await self._write("DELETE", self._path, None, key)

    # -- records ------------------------------------------------------------------------------

    async def get(self, id: str, *, reading: Reading = STRONG) -> Record | None:  # noqa: A002
        """One record; None if there is none."""
        try:
            answer = await self._transport.call("GET", self._record(id), headers=reading.headers())
        except NotFoundError as error:
            if error.slug == "no-such-record":
                return None
            raise
        return Record(id, answer.body, answer.headers["ETag"], _index(answer))

    async def insert(self, value: Json | bytes, *, key: str | None = None) -> Receipt:
        """Store a record whose id is not there yet.

        Raises:
            ConflictError: It is.
        """
        return _receipt(await self._write("POST", f"{self._path}/records", _encode(value), key))

    async def put(
        self,
        id: str,  # noqa: A002
        value: Json | bytes,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Store a record, whatever was there; or on a condition.

        Args:
            id: Its id, which the value repeats.
            value: The record; bytes are sent as they are.
            if_match: Only in the place of the version with this ETag; `*` for any version.
            if_none_match: `*`: only if there is no such record.
            key: The write's idempotency key.

        Raises:
            PreconditionFailedError: The record is not as the condition says.
        """
        headers = _conditions(if_match) | (
            {"If-None-Match": if_none_match} if if_none_match else {}
        )
        body = _encode(value)
        return _receipt(await self._write("PUT", self._record(id), body, key, headers=headers))

    async def patch(
        self,
        id: str,  # noqa: A002
        changes: Json,
        *,
        if_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Change fields of a record: a JSON merge patch (RFC 7396); null removes a field."""
        return _receipt(
            await self._write(
                "PATCH",
                self._record(id),
                encode_json(changes),
                key,
                headers=_MERGE_PATCH | _conditions(if_match),
            )
        )

    async def delete(
        self,
        id: str,  # noqa: A002
        *,
        if_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """Delete a record.

        Raises:
            NotFoundError: There is none.
        """
        return _receipt(
            await self._write("DELETE", self._record(id), None, key, headers=_conditions(if_match))
        )

    async def batch(self, operations: Sequence[Json], *, key: str | None = None) -> BatchReceipt:
        """Do up to 1,000 operations, all or none: see docs/api.md, "Batches"."""
        body = encode_json({"operations": operations})
        answer = await self._write("POST", f"{self._path}/records:batch", body, key)
        told = answer.json()
        return BatchReceipt(
            collection=told["collection"],
            index=told["index"],
            epoch=told["epoch"],
            digest=told["digest"],
            replicas=tuple(told["replicas"]),
            results=tuple(told["results"] or ()),
            replayed="Idempotency-Replayed" in answer.headers,
        )

    async def verify(self, id: str) -> dict[str, Any]:  # noqa: A002
        """This record's digest at every replica, side by side."""
        answer = await self._transport.call("GET", self._record(id), params={"verify": "all"})
        told: dict[str, Any] = answer.json()
        return told

    async def history(self, id: str) -> AsyncIterator[Version]:  # noqa: A002
        """Every version of a record that the log still has, oldest first."""
        path, params = f"{self._record(id)}/history", dict[str, str]()
        while True:
            page = (await self._transport.call("GET", path, params=params)).json()
            for item in page["items"]:
                yield Version(**item)
            if page["next"] is None:
                return
            params = {"cursor": page["next"]}

    async def query(
        self,
        conditions: Mapping[str, str] | None = None,
        *,
        reading: Reading = STRONG,
        **options: str,
    ) -> AsyncIterator[dict[str, Any]]:
        """All records that meet the conditions, a page at a time.

        Args:
            conditions: As in a URL: `{"genero": "Femenino", "edad[gte]": "18"}`.
            reading: How fresh each page has to be.
            options: `sort`, `fields`, `limit` (of a page), `q`: see docs/api.md, "Queries".
        """
        params = {**(conditions or {}), **options}
        while True:
            page = await self.page(params, reading=reading)
            for item in page["items"]:
                yield item
            if page["next"] is None:
                return
            params["cursor"] = page["next"]

    async def page(self, params: Mapping[str, str], *, reading: Reading = STRONG) -> dict[str, Any]:
        """One page of a query: `items`, `next` and, when asked for, `count`."""
        answer = await self._transport.call(
            "GET", f"{self._path}/records", params=params, headers=reading.headers()
        )
        page: dict[str, Any] = answer.json()
        return page

    # -- streams ------------------------------------------------------------------------------

    def changes(self, since: str | int = 0, *, follow_on: bool = True) -> AsyncIterator[Change]:
        """Every change after a cursor, in order, none twice, whatever gateways and leaders do.

        Args:
            since: The cursor of the last change seen; 0 for all; `now`.
            follow_on: Wait for further ones for ever; else end with the newest.
        """
        return follow(self._transport, f"{self._path}/changes", str(since), follow_on=follow_on)

    def import_records(
        self,
        records: Iterable[Json | bytes] | AsyncIterator[Json | bytes],
        *,
        content_type: str = NDJSON,
        header: bytes = b"",
    ) -> AsyncIterator[ImportResult]:
        """Store many new records; a result for each, whose `line` is the record's number, from 1.

        Results come in the records' order, but for those that a broken connection delayed: what has
        no answer yet is sent again then. A record that is there by that time, and equals the one
        sent, counts as stored (of NDJSON; of CSV as duplicate).

        Args:
            records: Objects, or the bytes of a line; of CSV those of a row.
            content_type: Of the bytes: `application/x-ndjson` or `text/csv`.
            header: Of CSV: the first row, with its line end.
        """
        importer = Importer(
            self._transport,
            self._path,
            records,
            self.get,
            content_type=content_type,
            header=header,
        )
        return importer.results()

    async def export(self, *, content_type: str = NDJSON) -> AsyncIterator[bytes]:
        """All records as of one moment, as the bytes of NDJSON or CSV (`text/csv`).

        Raises:
            BrokenOffError: What came is not all. Begin again.
        """
        headers = {"Accept": content_type}
        path = f"{self._path}/records:export"
        try:
            async with self._transport.stream("GET", path, headers=headers) as response:
                while block := await _read_some(response):
                    yield block
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(f"the export broke off: {error!r}") from error

    # -- inner workings -----------------------------------------------------------------------

    def _record(self, id: str) -> str:  # noqa: A002
        return f"{self._path}/records/{quote(id, safe='')}"

    async def _write(
        self,
        method: str,
        path: str,
        body: bytes | None,
        key: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        return await self._transport.call(
            method,
            path,
            params=params,
            headers={**(_JSON if body is not None else {}), **(headers or {})},
            body=body,
            write_key=key if key is not None else secrets.token_hex(16),
        )


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    async with asyncio.timeout(_SILENCE_S):
        return await response.content.readany()


def _conditions(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


def _encode(value: Json | bytes) -> bytes:
    return value if isinstance(value, bytes) else encode_json(value)


def _index(answer: Answer) -> int:
    try:
        return int(answer.headers["X-Replicad-Index"])
    except (KeyError, ValueError) as error:
        raise ProtocolError("the answer does not say what it reflects") from error


def _receipt(answer: Answer) -> Receipt:
    told = answer.json()
    return Receipt(
        collection=told["collection"],
        id=told["id"],
        operation=told["operation"],
        index=told["index"],
        epoch=told["epoch"],
        digest=told["digest"],
        replicas=tuple(told["replicas"]),
        etag=told["etag"],
        replayed="Idempotency-Replayed" in answer.headers,
    )
