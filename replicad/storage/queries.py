"""Answers queries out of the record store, on a connection that only reads.

Everything that one answer says is read in one transaction: the definition, the indexes, the
records, and the log index that they reflect. How much work a query may be is bounded.

Source: docs/api.md, "Queries".
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from replicad.core.query import (
    CURSOR_CHARACTERS_MAX,
    Bound,
    Condition,
    Place,
    Query,
    Refused,
    Relation,
    encode_cursor,
)
from replicad.core.write import DEFINITIONS
from replicad.errors import QueryRefusedError
from replicad.storage.indexes import indexes_of
from replicad.storage.keys import COMPOSITE, MISSING, TRUE, Key, register
from replicad.storage.projection import Projection
from replicad.storage.query_plan import Plan, Planner, Subject, usable
from replicad.storage.query_spans import Clause, Kind, clause_of, kinds_of
from replicad.storage.records_schema import typed_errors

STEPS_MAX: Final = 25_000_000
"""Of SQLite's machine: about a million records of a few hundred bytes are looked at."""
SECONDS_MAX: Final = 2.5
PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""A page ends with the record that reaches this size, however few they are."""

_STEPS_AT_ONCE: Final = 20_000
# Of the way that is tried first when there are two.
_SHARE: Final = 4
_BUILT_IN: Final = "formularios"
_FILE: Final = Path("records.sqlite")

_DEFINITION: Final = """
SELECT value FROM records JOIN collections USING (number) WHERE name = ? AND key = ?
"""
_COLLECTION: Final = "SELECT number, records FROM collections WHERE name = ?"


class Answer(NamedTuple):
    """What a query has found.

    Attributes:
        reflected: The log index up to which it shows everything.
        body: A JSON object with items, next and, when asked for, count.
    """

    reflected: int
    body: bytes


class _TooMuchWorkError(Exception):
    """The bound of the work was reached."""


@dataclass(slots=True)
class Budget:
    """How much work a query may still be.

    Attributes:
        steps: Of SQLite's machine.
        seconds: From now on.
    """

    steps: int = STEPS_MAX
    seconds: float = SECONDS_MAX

    @contextmanager
    def spent_on(self, connection: sqlite3.Connection, *, share: int = 1) -> Iterator[None]:
        """Bound what happens inside by a part of what is left, and subtract it.

        Raises:
            _TooMuchWorkError: It was more.
        """
        started = time.monotonic()
        steps_left, until = self.steps // share, started + self.seconds / share
        steps = 0

        def check() -> bool:
            nonlocal steps
            steps += _STEPS_AT_ONCE
            return steps > steps_left or time.monotonic() > until

        connection.set_progress_handler(check, _STEPS_AT_ONCE)
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            raise _TooMuchWorkError from None
        finally:
            connection.set_progress_handler(None, 0)
            self.steps -= steps
            self.seconds -= time.monotonic() - started


def prepare_reader(connection: sqlite3.Connection) -> None:
    """Make a connection fit for `answer`."""
    register(connection)


def answer(connection: sqlite3.Connection, query: Query, budget: Budget | None = None) -> Answer:
    """Answer a query.

    Args:
        connection: Prepared, and used by nobody else meanwhile.
        query: What is asked.
        budget: How much work it may be, if not as much as usual.

    Raises:
        QueryRefusedError: This collection cannot answer it.
        RecordsDamagedError: The record store is damaged.
        DiskFailedError: It cannot be read.
    """
    with typed_errors(_FILE):
        connection.execute("BEGIN")
        try:
            (reflected,) = connection.execute("SELECT entry_index FROM applied").fetchone()
            return Answer(reflected, _Run(connection, query, budget or Budget()).body())
        finally:
            connection.execute("ROLLBACK")


def explain(connection: sqlite3.Connection, query: Query) -> list[str]:
    """SQLite's plan of the way that a query takes first, a line each; for tests and operators."""
    planner = _Run(connection, query, Budget()).planner
    if planner is None:
        return []
    (plan, *_) = planner.pages()
    rows = connection.execute(f"EXPLAIN QUERY PLAN {plan.sql}", plan.values)
    return [detail for *_, detail in rows]


class _Run:
    """One query inside its transaction.

    Attributes:
        planner: Ready to plan; None when the collection has never had a record.
    """

    def __init__(self, connection: sqlite3.Connection, query: Query, budget: Budget) -> None:
        self._connection = connection
        self._query = query
        self._budget = budget
        self.planner = self._prepare()

    def body(self) -> bytes:
        """The whole answer."""
        if self.planner is None:
            return b'{"items":[],"next":null%b}' % (b',"count":0' if self._query.counted else b"")
        count = self._count(self.planner) if self._query.counted else None
        items, place = self._items(self._rows(self.planner))
        cursor = None if place is None else self._cursor(place)
        counted = b"" if count is None else b',"count":%d' % count
        return b'{"items":[%b],"next":%b%b}' % (b",".join(items), orjson.dumps(cursor), counted)

    def _prepare(self) -> Planner | None:
        """Give the query its meaning.

        Raises:
            QueryRefusedError: It has none here, or is too much work already.
        """
        query = self._query
        definition = self._definition()
        key_field = definition.get("key", "id")
        clauses = [self._clause(each, definition, key_field) for each in query.conditions]
        if query.words and not definition.get("search"):
            raise QueryRefusedError(Refused.NO_FULL_TEXT)
        row = self._connection.execute(_COLLECTION, (query.collection,)).fetchone()
        if row is None:
            return None
        by_field, words = usable(indexes_of(self._connection, query.collection))
        if query.words and words is None:
            raise QueryRefusedError(Refused.BUILDING)
        number, records = row
        subject = Subject(number, records, key_field, by_field, words)
        planner = Planner(self._connection, subject, query, clauses, _fts(query.words))
        try:
            with self._budget.spent_on(self._connection):
                planner.choose()
        except _TooMuchWorkError:
            raise QueryRefusedError(Refused.TOO_BROAD, planner.unindexed) from None
        return planner

    def _definition(self) -> Mapping[str, Any]:
        name = self._query.collection
        row = self._connection.execute(_DEFINITION, (DEFINITIONS, name)).fetchone()
        if row is not None:
            stored: dict[str, Any] = orjson.loads(row[0])
            return stored
        if name != _BUILT_IN:
            raise QueryRefusedError(Refused.NO_COLLECTION)
        return _built_in()

    def _clause(
        self, condition: Condition, definition: Mapping[str, Any], key_field: str
    ) -> Clause:
        if condition.field != key_field:
            kinds = kinds_of(definition.get("schema"), condition.field)
            return clause_of(condition, kinds, self._number)
        if condition.relation is not Relation.EXISTS:
            return clause_of(condition, frozenset({Kind.STRING}), self._number)
        # Every record has an id.
        return Clause(condition.field, (), negated=condition.texts[0] == "true")

    def _number(self, text: str) -> int | float:
        """The key of a JSON number, by the same arithmetic as that of stored ones."""
        number: int | float
        (number,) = self._connection.execute("SELECT json_extract(?, '$')", (text,)).fetchone()
        return number

    def _count(self, planner: Planner) -> int:
        query = self._query
        if not query.conditions and not query.words:
            return planner.subject.records
        ((count,),) = self._fetch([planner.count()], planner)
        return int(count)

    def _rows(self, planner: Planner) -> list[tuple[Any, ...]]:
        return self._fetch(planner.pages(), planner)

    def _fetch(self, plans: Sequence[Plan], planner: Planner) -> list[tuple[Any, ...]]:
        for at, plan in enumerate(plans, 1):
            try:
                with self._budget.spent_on(
                    self._connection, share=1 if at == len(plans) else _SHARE
                ):
                    return self._connection.execute(plan.sql, plan.values).fetchall()
            except _TooMuchWorkError:
                continue
        raise QueryRefusedError(Refused.TOO_BROAD, planner.unindexed)

    def _items(self, rows: Sequence[tuple[Any, ...]]) -> tuple[list[bytes], Place | None]:
        """What a page shows, and where it ends if there is more."""
        projection = Projection(self._query.fields)
        items: list[bytes] = []
        size = 0
        for count, (at, key, *keys) in enumerate(rows, 1):
            item = projection.read(self._connection, at)
            items.append(item)
            size += len(item)
            is_full = count == self._query.limit or size >= PAGE_BYTES_MAX
            if is_full and count < len(rows):
                return items, Place(tuple(map(_bound, keys)), key)
        return items, None

    def _cursor(self, place: Place) -> str:
        cursor = encode_cursor(self._query, place)
        if len(cursor) > CURSOR_CHARACTERS_MAX:
            fields = tuple(order.field for order in self._query.order)
            raise QueryRefusedError(Refused.PLACE_TOO_LONG, fields)
        return cursor


def _bound(key: Key) -> Bound:
    """What a cursor tells of a key; `key_of` gives the key back."""
    if isinstance(key, bytes):
        return {} if key == COMPOSITE else key == TRUE
    return None if key == MISSING else key


def _fts(words: Sequence[str]) -> str:
    """Words as FTS5 wants them: each quoted, so that none of its operators is one."""
    quoted = []
    for word in words:
        stem = word.rstrip("*")
        text = stem.replace('"', '""').replace("\0", " ")
        quoted.append(f'"{text}"*' if stem != word else f'"{text}"')
    return " AND ".join(quoted)


@cache
def _built_in() -> Mapping[str, Any]:
    """How `formularios` is defined until somebody defines it otherwise."""
    schema = resources.files("replicad").joinpath("examples", "formularios.schema.json")
    return {"schema": orjson.loads(schema.read_bytes())}
