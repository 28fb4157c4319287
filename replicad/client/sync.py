"""The synchronous client: the asynchronous one on the loop of a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from replicad.client.aio import STRONG, TIMEOUT_S, Client, Collection, Reading
from replicad.client.imports import NDJSON
from replicad.client.types import (
    BatchReceipt,
    Change,
    ImportResult,
    Json,
    Receipt,
    Record,
    Version,
)

T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it there, and wait for it here; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate there, a step at a time."""
        try:
            while (item := self.run(_next(items))) is not None:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                self.run(close())

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


class SyncClient:
    """As Client, for programs without an event loop.

    with SyncClient(["http://127.0.0.1:8080"]) as client:
        client.collection("formularios").insert({"id": "A1", "nombres": "Ana"})
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        timeout_s: float = TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """See Client."""
        self._client = Client(urls, timeout_s=timeout_s, headers=headers)
        self._loop: _Loop | None = None

    def __enter__(self) -> Self:
        """Start the thread and open the connection pool."""
        self._loop = _Loop()
        self._loop.run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Close both."""
        loop = self._running()
        self._loop = None
        loop.run(self._client.__aexit__())
        loop.close()

    def collection(self, name: str) -> SyncCollection:
        """See Client."""
        return SyncCollection(self._running(), self._client.collection(name))

    def collections(self) -> list[dict[str, Any]]:
        """See Client."""
        return self._running().run(self._client.collections())

    def outcome(self, key: str) -> dict[str, Any]:
        """See Client."""
        return self._running().run(self._client.outcome(key))

    def cluster(self) -> dict[str, Any]:
        """See Client."""
        return self._running().run(self._client.cluster())

    def _running(self) -> _Loop:
        if self._loop is None:
            raise RuntimeError("use the client within its `with` block")
        return self._loop


class SyncCollection:
    """As Collection; every method waits, and iterators are plain ones."""

    def __init__(self, loop: _Loop, collection: Collection) -> None:
        """Use `SyncClient.collection`."""
        self._loop = loop
        self._collection = collection
        self.name = collection.name

    def definition(self) -> dict[str, Any]:
        """See Collection."""
        return self._loop.run(self._collection.definition())

    def define(
        self, definition: Json, *, force: bool = False, key: str | None = None
    ) -> dict[str, Any]:
        """See Collection."""
        return self._loop.run(self._collection.define(definition, force=force, key=key))

    def drop(self, *, key: str | None = None) -> None:
        """See Collection."""
        self._loop.run(self._collection.drop(key=key))

    def get(self, id: str, *, reading: Reading = STRONG) -> Record | None:  # noqa: A002
        """See Collection."""
        return self._loop.run(self._collection.get(id, reading=reading))

    def insert(self, value: Json | bytes, *, key: str | None = None) -> Receipt:
        """See Collection."""
        return self._loop.run(self._collection.insert(value, key=key))

    def put(
        self,
        id: str,  # noqa: A002
        value: Json | bytes,
        *,
        if_match: str | None = None,
        if_none_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """See Collection."""
        return self._loop.run(
            self._collection.put(id, value, if_match=if_match, if_none_match=if_none_match, key=key)
        )

    def patch(
        self,
        id: str,  # noqa: A002
        changes: Json,
        *,
        if_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """See Collection."""
        return self._loop.run(self._collection.patch(id, changes, if_match=if_match, key=key))

    def delete(
        self,
        id: str,  # noqa: A002
        *,
        if_match: str | None = None,
        key: str | None = None,
    ) -> Receipt:
        """See Collection."""
        return self._loop.run(self._collection.delete(id, if_match=if_match, key=key))

    def batch(self, operations: Sequence[Json], *, key: str | None = None) -> BatchReceipt:
        """See Collection."""
        return self._loop.run(self._collection.batch(operations, key=key))

    def verify(self, id: str) -> dict[str, Any]:  # noqa: A002
        """See Collection."""
        return self._loop.run(self._collection.verify(id))

    def history(self, id: str) -> Iterator[Version]:  # noqa: A002
        """See Collection."""
        return self._loop.each(self._collection.history(id))

    def query(
        self,
        conditions: Mapping[str, str] | None = None,
        *,
        reading: Reading = STRONG,
        **options: str,
    ) -> Iterator[dict[str, Any]]:
        """See Collection."""
        return self._loop.each(self._collection.query(conditions, reading=reading, **options))

    def page(self, params: Mapping[str, str], *, reading: Reading = STRONG) -> dict[str, Any]:
        """See Collection."""
        return self._loop.run(self._collection.page(params, reading=reading))

    def changes(self, since: str | int = 0, *, follow_on: bool = True) -> Iterator[Change]:
        """See Collection."""
        return self._loop.each(self._collection.changes(since, follow_on=follow_on))

    def import_records(
        self,
        records: Iterable[Json | bytes],
        *,
        content_type: str = NDJSON,
        header: bytes = b"",
    ) -> Iterator[ImportResult]:
        """See Collection. The records are taken on the client's own thread."""
        return self._loop.each(
            self._collection.import_records(records, content_type=content_type, header=header)
        )

    def export(self, *, content_type: str = NDJSON) -> Iterator[bytes]:
        """See Collection."""
        return self._loop.each(self._collection.export(content_type=content_type))
