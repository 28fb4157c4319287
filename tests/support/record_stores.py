"""A record store that is filled as a replica fills it: with the entries of a log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from replicad.core.entry import split_lines
from replicad.core.query import Query, decode_cursor
from replicad.core.write import DEFINITIONS, Operation, WriteRequest
from replicad.storage.queries import Budget, answer, explain, prepare_reader
from replicad.storage.records import Records
from tests.support.entries import LogBuilder, batch_of

FORMS = "forms"


class FilledRecords:
    """Records, and the log that they come from.

    Attributes:
        records: The record store.
        log: What was applied to it.
    """

    def __init__(self, records: Records, log: LogBuilder) -> None:
        self.records = records
        self.log = log

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """An empty record store."""
        records = Records.open(path / "records.sqlite")
        try:
            yield cls(records, LogBuilder())
        finally:
            records.close()

    def apply(self, *writes: WriteRequest) -> None:
        """Apply writes in one transaction."""
        lines = b"".join(map(self.log.write, writes))
        self.records.apply(split_lines(lines), self.log.index.last_point.digest)

    def write(
        self, records: Mapping[str, Mapping[str, Any] | bytes | None], collection: str = FORMS
    ) -> None:
        """Store or delete records, in one entry; values may be encoded already."""
        operations = [Operation(key, _encoded(value)) for key, value in records.items()]
        request = f"r{self.log.index.last}"
        self.apply(batch_of(*operations, request=request, collection=collection))

    def define(self, collection: str = FORMS, **members: object) -> None:
        """Define a collection."""
        self.write({collection: members}, DEFINITIONS)

    def finish(self) -> None:
        """Work on the indexes until nothing is left to do."""
        while self.records.indexes.unfinished:
            with self.records.transaction():
                self.records.indexes.work(0.01)

    def body(self, query: Query, budget: Budget | None = None) -> bytes:
        """The answer to a query, as it is sent."""
        reader = self.records.open_reader()
        try:
            prepare_reader(reader)
            found = answer(reader, query, budget)
        finally:
            reader.close()
        assert found.reflected == self.records.applied.index
        return found.body

    def ask(self, query: Query) -> dict[str, Any]:
        """The answer to a query."""
        answered: dict[str, Any] = json.loads(self.body(query))
        return answered

    def ids(self, query: Query) -> list[str]:
        """The ids on one page."""
        return [item["id"] for item in self.ask(query)["items"]]

    def all_ids(self, query: Query) -> list[str]:
        """The ids on all pages, following the cursors."""
        ids: list[str] = []
        while True:
            page = self.ask(query)
            ids += [item["id"] for item in page["items"]]
            assert len(page["items"]) <= query.limit
            if page["next"] is None:
                return ids
            assert page["items"], "an empty page that is not the last"
            query = replace(query, after=decode_cursor(query, page["next"]))

    def plan(self, query: Query) -> list[str]:
        """SQLite's plan."""
        reader = self.records.open_reader()
        try:
            prepare_reader(reader)
            return explain(reader, query)
        finally:
            reader.close()

    def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """What stands in the file."""
        reader = self.records.open_reader()
        try:
            return reader.execute(sql).fetchall()
        finally:
            reader.close()


def scan_all(
    records: Records, collection: str = FORMS, *, upto: int, limit: int = 1000
) -> list[tuple[int, bytes]]:
    """Places and values of all records as of an entry, out of pages of at most `limit`."""
    found: list[tuple[int, bytes]] = []
    after: int | None = 0
    while after is not None:
        page, after = records.scan(collection, after=after, upto=upto, limit=limit)
        assert len(page) <= limit
        found += page
    return found


def _encoded(value: Mapping[str, Any] | bytes | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
