"""Which way a query goes through the record store, as SQL.

SQLite is told which index to use; the choice is made here, because SQLite cannot know how many
records fulfil a condition, and here they can be counted, up to a bound. Few of them are fetched
and sorted; many are walked in the order wanted until the page is full.

Source: docs/log-format.md, "The record store".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Final

from replicad.core.query import Query
from replicad.storage.indexes import FIELD, Index
from replicad.storage.keys import Key, json_path, key_expression, key_of
from replicad.storage.places import INDEX_MAX, LIVE, at_of, last_at_of
from replicad.storage.query_spans import Clause, Span

_KEYED: Final = "versions r INDEXED BY versions_by_key"
_ALL: Final = "records r"
_INDEXED: Final = "fields f CROSS JOIN records r ON r.at = f.at"
_SEARCHED: Final = "{0} t CROSS JOIN records r ON r.at = t.rowid"


@dataclass(frozen=True, slots=True)
class Subject:
    """The collection that is asked, as of one moment.

    Attributes:
        number: Its number.
        records: How many records it has.
        key_field: Which field holds a record's id.
        indexes: Those of its indexes over single fields that may be used, by field.
        words: Its full-text index, if that may be used.
    """

    number: int
    records: int
    key_field: str
    indexes: dict[str, Index]
    words: Index | None


class Parameters:
    """The values that a statement refers to by name. Equal ones are named once."""

    def __init__(self) -> None:
        """None yet."""
        self.values: dict[str, object] = {}
        self._names: dict[tuple[type, object], str] = {}

    def add(self, value: object) -> str:
        """The SQL that stands for a value."""
        name = self._names.setdefault((type(value), value), f"v{len(self._names)}")
        self.values[name] = value
        return f":{name}"


@dataclass(frozen=True, slots=True)
class Source:
    """A way to walk through records that fulfil some of the conditions.

    Attributes:
        tables: What stands after FROM.
        where: What it demands.
        key: The SQL of a record's id.
        fulfilled: The clauses that all records on the way fulfil.
        finds_words: Whether they have the words that are searched.
        keyed: The field whose key the way tells as `f.value`, if any.
        gives_ids_in_order: Whether the records come in the order of their ids.
        found: How many records are on it, if that is known and not too many.
    """

    tables: str
    where: tuple[str, ...]
    key: str = "r.key"
    fulfilled: tuple[Clause, ...] = ()
    finds_words: bool = False
    keyed: str | None = None
    gives_ids_in_order: bool = False
    found: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement and its values. Its rows are `at`, the id, and what the order compares."""

    sql: str
    values: dict[str, object]


@dataclass(slots=True)
class Planner:
    """Makes the statements of one query, in one transaction.

    Attributes:
        connection: On which to count.
        subject: The collection.
        query: What is asked of it.
        clauses: What its conditions mean.
        words: Its words, as FTS5 is asked for them; "" if there are none.
    """

    connection: sqlite3.Connection
    subject: Subject
    query: Query
    clauses: Sequence[Clause]
    words: str
    _parameters: Parameters = field(default_factory=Parameters)
    _best: Source | None = None
    # Where something was found, of each field that has both an index and conditions.
    _spans: dict[str, list[Span]] = field(default_factory=dict)

    def choose(self) -> None:
        """Find out which condition the fewest records fulfil."""
        known = [source for source in self._sources() if source.found is not None]
        self._best = min(known, key=lambda source: source.found or 0, default=None)

    def pages(self) -> list[Plan]:
        """The ways to a page, the most promising one first."""
        best, few = self._best, self._few
        ordered = self._ordered()
        if best is None:
            return [self._page(ordered or self._everything())]
        if ordered is None or ordered == best or (best.found or 0) < few:
            return [self._page(best)]
        return [self._page(ordered), self._page(best)]

    def count(self) -> Plan:
        """The number of records that fulfil all conditions."""
        source = self._best or self._everything()
        conditions = self._left(source)
        tables = source.tables
        if source.keyed is not None and not conditions:
            tables = "fields f"  # Nothing to be seen in the records themselves.
        return self._plan("count(*)", tables, [*source.where, *conditions])

    @property
    def unindexed(self) -> tuple[str, ...]:
        """The fields of the query to which an index might help."""
        named = [clause.field for clause in self.clauses if not clause.negated]
        named += [order.field for order in self.query.order[:1]]
        known = {*self.subject.indexes, self.subject.key_field}
        return tuple(dict.fromkeys(name for name in named if name not in known))

    @property
    def _few(self) -> int:
        """So many are rather sorted than met on the way through all of them."""
        return isqrt(self.query.limit * self.subject.records) + 1

    def _sources(self) -> list[Source]:
        """A way for each condition that an index helps with."""
        ways = [self._by_clause(clause) for clause in self._positive() if self._is_known(clause)]
        if self.words and self.subject.words is not None:
            table = self.subject.words.table
            where = (f"{table} MATCH {self._parameters.add(self.words)}",)
            found = self._count_some(table, where)
            ways.append(Source(_SEARCHED.format(table), where, finds_words=True, found=found))
        return ways

    def _positive(self) -> list[Clause]:
        """What must hold of each field, without what must not."""
        clauses: dict[str, Clause] = {}
        for clause in self.clauses:
            if not clause.negated:
                other = clauses.get(clause.field)
                clauses[clause.field] = other.meet(clause) if other else clause
        return list(clauses.values())

    def _is_known(self, clause: Clause) -> bool:
        return clause.field in self.subject.indexes or clause.field == self.subject.key_field

    def _by_clause(self, clause: Clause) -> Source:
        """The way along an index to what fulfils one clause; what nothing lies in is left out."""
        spans: list[Span] = []
        found = 0
        for span in clause.spans:
            some = (
                self._count_some(*self._within(clause.field, (span,))) if found < self._few else 1
            )
            found += some
            spans += [span] if some else []
        self._spans[clause.field] = spans
        fulfilled = tuple(c for c in self.clauses if c.field == clause.field and not c.negated)
        _, where = self._within(clause.field, spans)
        if clause.field == self.subject.key_field:
            return Source(_KEYED, where, "r.key", fulfilled, gives_ids_in_order=True, found=found)
        return Source(
            _INDEXED,
            where,
            "f.key",
            fulfilled,
            keyed=clause.field,
            gives_ids_in_order=len(spans) == 1 and spans[0].is_point,
            found=found,
        )

    def _within(self, name: str, spans: Sequence[Span]) -> tuple[str, tuple[str, ...]]:
        """The one table, and what it must be asked for, to find a field's key in the spans."""
        if name == self.subject.key_field:
            return _KEYED, (*self._live(), self._inside("r.key", spans))
        index = f"f.field = {self._parameters.add(self.subject.indexes[name].id)}"
        return "fields f", (index, self._inside("f.value", spans))

    def _live(self) -> tuple[str, ...]:
        """What the index of keys must be asked for, not to find versions that have ended."""
        return f"r.number = {self._parameters.add(self.subject.number)}", f"r.until = {LIVE}"

    def _count_some(self, table: str, where: Sequence[str]) -> int:
        """How many there are, up to more than `_few`."""
        some = f"SELECT 1 FROM {table} WHERE {' AND '.join(where)} LIMIT {self._few}"  # noqa: S608
        count = f"SELECT count(*) FROM ({some})"  # noqa: S608
        found: int
        (found,) = self.connection.execute(count, self._parameters.values).fetchone()
        return found

    def _ordered(self) -> Source | None:
        """A way on which the records come in the order wanted, as far as its first field goes."""
        first = self.query.order[0].field if self.query.order else self.subject.key_field
        best = self._best
        if first == self.subject.key_field:
            if best is not None and best.gives_ids_in_order:
                return best
            return Source(_KEYED, self._live(), gives_ids_in_order=True)
        index = self.subject.indexes.get(first)
        if index is None:
            return None
        where = [f"f.field = {self._parameters.add(index.id)}"]
        if first in self._spans:
            where.append(self._inside("f.value", self._spans[first]))
        fulfilled = tuple(c for c in self.clauses if c.field == first and not c.negated)
        return Source(_INDEXED, tuple(where), "f.key", fulfilled, keyed=first)

    def _everything(self) -> Source:
        """All records, in the order in which they were written."""
        number = self.subject.number
        low, high = at_of(number, 0), last_at_of(number, INDEX_MAX)
        bounds = f"{self._parameters.add(low)} AND {self._parameters.add(high)}"
        own = f"+r.number = {self._parameters.add(number)}"
        return Source(_ALL, (f"r.at BETWEEN {bounds}", own))

    def _page(self, source: Source) -> Plan:
        terms = []
        descending = False
        for order in self.query.order:
            descending = order.descending
            if order.field == self.subject.key_field:
                break
            terms.append((self._key(source, order.field), descending))
        terms.append((source.key, descending))
        where = [*source.where, *self._left(source)]
        if self.query.after is not None:
            bounds = [key_of(bound) for bound in self.query.after.bounds[: len(terms) - 1]]
            where.append(self._after(terms, [*bounds, self.query.after.key]))
        columns = ", ".join(
            ["r.at", "r.key", *(self._key(source, o.field) for o in self.query.order)]
        )
        ordered = ", ".join(f"{term} DESC" if down else term for term, down in terms)
        limit = self._parameters.add(self.query.limit + 1)
        return self._plan(columns, source.tables, where, f"ORDER BY {ordered} LIMIT {limit}")

    def _plan(self, what: str, tables: str, where: Sequence[str], end: str = "") -> Plan:
        sql = f"SELECT {what} FROM {tables} WHERE {' AND '.join(where)} {end}"  # noqa: S608
        return Plan(sql, dict(self._parameters.values))

    def _left(self, source: Source) -> list[str]:
        """What the records on a way are still to be asked."""
        conditions = []
        for clause in self.clauses:
            if clause not in source.fulfilled:
                inside = self._inside(self._key(source, clause.field), clause.spans)
                conditions.append(f"NOT {inside}" if clause.negated else inside)
        if self.words and not source.finds_words and self.subject.words is not None:
            table, words = self.subject.words.table, self._parameters.add(self.words)
            found = f"SELECT rowid FROM {table} WHERE {table} MATCH {words}"  # noqa: S608
            conditions.append(f"r.at IN ({found})")
        return conditions

    def _key(self, source: Source, name: str) -> str:
        """The SQL of a field's key."""
        if name == self.subject.key_field:
            return source.key
        if name == source.keyed:
            return "f.value"
        return key_expression(name, "r.value", self._parameters.add(json_path(name)))

    def _inside(self, key: str, spans: Sequence[Span]) -> str:
        """The SQL condition that a key lies in one of the spans."""
        points = [self._parameters.add(span.low) for span in spans if span.is_point]
        parts = [f"{key} = {points[0]}" if len(points) == 1 else f"{key} IN ({','.join(points)})"]
        for span in spans:
            if not span.is_point:
                low, high = self._parameters.add(span.low), self._parameters.add(span.high)
                above, below = ">" if span.low_open else ">=", "<" if span.high_open else "<="
                parts.append(f"({key} {above} {low} AND {key} {below} {high})")
        parts = parts if points else parts[1:]
        return f"({' OR '.join(parts) or '0'})"

    def _after(self, terms: Sequence[tuple[str, bool]], bounds: Sequence[Key]) -> str:
        """The SQL condition that a record comes after another one in the order of the terms."""
        named = [self._parameters.add(bound) for bound in bounds]
        sides = ["<" if down else ">" for _, down in terms]
        names = [term for term, _ in terms]
        if len(set(sides)) == 1:
            return f"({', '.join(names)}) {sides[0]} ({', '.join(named)})"
        ways = []
        for at, (name, side, bound) in enumerate(zip(names, sides, named, strict=True)):
            same = [f"{n} = {b}" for n, b in zip(names[:at], named[:at], strict=True)]
            ways.append(" AND ".join([*same, f"{name} {side} {bound}"]))
        # The first bound once more, for an index to begin there.
        return f"({names[0]} {sides[0]}= {named[0]} AND ({' OR '.join(ways)}))"


def usable(indexes: Sequence[Index]) -> tuple[dict[str, Index], Index | None]:
    """Of a collection's indexes those that are complete: by field, and the full-text one."""
    complete = [index for index in indexes if index.complete]
    by_field = {index.fields[0]: index for index in complete if index.kind == FIELD}
    return by_field, next((index for index in complete if index.kind != FIELD), None)
