"""Secondary indexes over fields of records, and full-text indexes over several of them.

They are tables of our own, not SQLite's indexes over expressions: to make one of those over a
large collection would hold up the replica for as long as that takes. Here only new rows are
indexed in the transaction that applies them. What was there before an index was defined is added
a little at a time (`work`), and what belongs to an index that nobody wants any more is deleted in
the same way. Which indexes there are to be is what the definitions say, in this same file.

An index holds the rows whose `at` is up to `done` or above `until`; it is complete when these
meet, and used only then.

Source: docs/log-format.md, "The record store".
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson

from replicad.core.write import DEFINITIONS
from replicad.storage.keys import json_path, key_expression, register, text_expression
from replicad.storage.places import INDEX_MAX, at_of, last_at_of

FIELD: Final = "field"
TEXT: Final = "text"

SCHEMA: Final = """
CREATE TABLE indexes (
    id INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    kind TEXT NOT NULL,
    fields TEXT NOT NULL,
    done INTEGER NOT NULL,
    until INTEGER NOT NULL,
    wanted INTEGER NOT NULL
);
CREATE TABLE fields (
    field INTEGER NOT NULL,
    value NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (field, value, key)
) WITHOUT ROWID;
"""

# What is read at once: some milliseconds of work at most.
_ROWS_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 128 * 1024
_FTS_HEAD: Final = 10

_DEFINED: Final = """
SELECT key, json_extract(value, '$.indexes'), json_extract(value, '$.search') FROM records
WHERE number = (SELECT number FROM collections WHERE name = ?)
"""
_ALL: Final = "SELECT id, collection, kind, fields, done, until, wanted FROM indexes ORDER BY id"
_LAST: Final = "SELECT max(at) FROM versions WHERE at BETWEEN ? AND ?"
_NEXT: Final = "SELECT at, length(value) FROM records WHERE at > ? AND at <= ? ORDER BY at LIMIT ?"
_GOING: Final = """
r.at IN (SELECT value FROM json_each(:ats)) AND +r.number = :number
AND (r.at <= :done OR r.at > :until)
"""
_ADDED: Final = "r.at BETWEEN :low AND :high AND +r.number = :number"
# With `field` within the parentheses SQLite would look at all rows of the index.
_DROP_FIELD: Final = """
DELETE FROM fields WHERE field = ?1 AND (value, key) IN
(SELECT value, key FROM fields WHERE field = ?1 LIMIT ?2)
"""


@dataclass(frozen=True, slots=True)
class Index:
    """One index, as far as it got.

    Attributes:
        id: Names it while it exists.
        collection: Whose records.
        kind: FIELD or TEXT.
        fields: The one dotted field, or those whose words are found.
        done, until: See above; values of `at`.
        wanted: Whether the definition still has it.
    """

    id: int
    collection: str
    kind: str
    fields: tuple[str, ...]
    done: int
    until: int
    wanted: bool

    @property
    def complete(self) -> bool:
        """Whether it may be used."""
        return self.wanted and self.done >= self.until

    @property
    def table(self) -> str:
        """The FTS5 table of a TEXT index."""
        return f"texts_{self.id}"

    @property
    def parameters(self) -> dict[str, object]:
        """What `body` refers to."""
        return {f"path{at}": json_path(field) for at, field in enumerate(self.fields)}

    @property
    def body(self) -> str:
        """The SQL expression for what it holds of a record `r`: a key, or words."""
        if self.kind == FIELD:
            return key_expression(self.fields[0], "r.value", ":path0")
        words = (text_expression(f, "r.value", f":path{at}") for at, f in enumerate(self.fields))
        return "||' '||".join(f"({each})" for each in words)


class Indexes:
    """Keeps the indexes of one record store. Runs on its connection, in its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Serve a record store that is open; begin with what its definitions say."""
        register(connection)
        self._connection = connection
        self._indexes: list[Index] = []
        self._numbers: dict[str, int] = {}
        self._load()
        if self._differs():
            connection.execute("BEGIN IMMEDIATE")
            self.redefined()
            connection.execute("COMMIT")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to be told of rows that come and go."""
        return not self._indexes

    @property
    def unfinished(self) -> bool:
        """Whether `work` would find something to do."""
        return any(not index.complete for index in self._indexes)

    def removing(self, ats: Sequence[int]) -> None:
        """Rows that were there before this transaction, or that `added` was told of, will go.

        They must still be there.
        """
        listed = orjson.dumps(ats).decode()
        for index in self._indexes:
            if not index.wanted:
                continue
            parameters = {**self._parameters(index), "ats": listed}
            rows = f"FROM records r WHERE {_GOING}"
            if index.kind == FIELD:
                statement = (
                    "DELETE FROM fields WHERE field = :id AND (value, key) IN "  # noqa: S608
                    f"(SELECT {index.body}, key {rows})"
                )
            else:
                statement = (
                    f"INSERT INTO {index.table}({index.table}, rowid, body) "
                    f"SELECT 'delete', at, {index.body} {rows}"
                )
            self._connection.execute(statement, parameters)

    def added(self, numbers: Iterable[int], first: int, last: int) -> None:
        """All rows of these collections that entries from `first` to `last` wrote are new."""
        for index in self._of(set(numbers)):
            number = self._numbers[index.collection]
            self._insert(
                index, max(index.until + 1, at_of(number, first)), last_at_of(number, last)
            )

    def redefined(self) -> None:
        """Definitions have changed: begin what is wanted now, and let go of what is not."""
        wanted = self._wanted()
        for index in self._indexes:
            if index.wanted and (index.collection, index.kind, index.fields) not in wanted:
                self._put(replace(index, wanted=False))
        there = {(i.collection, i.kind, i.fields) for i in self._indexes if i.wanted}
        for each in sorted(wanted - there):
            self._create(*each)
        self._load()

    def lacking(self, first: int, last: int) -> set[int]:
        """The collections with a complete index that lacks records which these entries wrote.

        Full-text indexes cannot be asked.
        """
        found = set()
        for index in self._indexes:
            if index.kind == FIELD and index.complete:
                number = self._number_of(index.collection)
                parameters = {
                    **self._parameters(index),
                    "low": at_of(number, first),
                    "high": last_at_of(number, last),
                }
                held = (
                    f"SELECT 1 FROM fields f WHERE f.field = :id AND f.value = {index.body} "  # noqa: S608
                    "AND f.key = r.key AND f.at = r.at"
                )
                lacks = f"SELECT 1 FROM records r WHERE {_ADDED} AND NOT EXISTS ({held})"  # noqa: S608
                if self._connection.execute(f"{lacks} LIMIT 1", parameters).fetchone():
                    found.add(number)
        return found

    def rebuild(self, numbers: Iterable[int]) -> None:
        """Rows of these collections were other than they should be: make their indexes anew."""
        for index in self._of(set(numbers)):
            self._put(replace(index, wanted=False))
            self._create(index.collection, index.kind, index.fields)
        self._load()

    def work(self, seconds: float) -> None:
        """Go on with what is unfinished, in a transaction of the caller's.

        Args:
            seconds: After so long no further step is begun; one always is.
        """
        until = time.monotonic() + seconds
        while True:
            unfinished = [at for at, index in enumerate(self._indexes) if not index.complete]
            if not unfinished:
                return
            at = unfinished[0]
            index = self._indexes[at]
            if index.wanted:
                self._indexes[at] = self._build_some(index)
            elif self._drop_some(index):
                del self._indexes[at]
            if time.monotonic() >= until:
                return

    def _build_some(self, index: Index) -> Index:
        upto, size = index.until, 0
        rows = self._connection.execute(_NEXT, (index.done, index.until, _ROWS_AT_ONCE))
        for count, (at, length) in enumerate(rows, 1):
            size += length
            if count == _ROWS_AT_ONCE or size >= _BYTES_AT_ONCE:
                upto = at
                break
        rows.close()
        self._insert(index, index.done + 1, upto)
        further = replace(index, done=upto)
        self._put(further)
        return further

    def _drop_some(self, index: Index) -> bool:
        """Delete a part of an index; True when nothing is left of it."""
        if index.kind == FIELD:
            arguments = (index.id, 16 * _ROWS_AT_ONCE)
            left = self._connection.execute(_DROP_FIELD, arguments).rowcount
        else:
            # Emptied behind FTS5's back: to drop a table at once takes time for every page of it.
            # The first rows are those by which FTS5 opens it.
            data = f"{index.table}_data"
            some = f"SELECT id FROM {data} WHERE id > {_FTS_HEAD} LIMIT {_ROWS_AT_ONCE}"  # noqa: S608
            left = self._connection.execute(f"DELETE FROM {data} WHERE id IN ({some})").rowcount  # noqa: S608
        if left:
            return False
        if index.kind == TEXT:
            self._connection.execute(f"DROP TABLE {index.table}")
        self._connection.execute("DELETE FROM indexes WHERE id = ?", (index.id,))
        return True

    def _insert(self, index: Index, lowest: int, highest: int) -> None:
        parameters = {**self._parameters(index), "low": lowest, "high": highest}
        rows = f"FROM records r WHERE {_ADDED}"
        if index.kind == FIELD:
            # Or replace: what a damaged row has left behind must not be in the way.
            into = f"OR REPLACE INTO fields SELECT :id, {index.body}, key, at {rows}"
        else:
            into = f"INTO {index.table}(rowid, body) SELECT at, {index.body} {rows}"
        self._connection.execute(f"INSERT {into}", parameters)

    def _create(self, collection: str, kind: str, fields: tuple[str, ...]) -> None:
        number = self._number_of(collection)
        low, high = at_of(number, 0), last_at_of(number, INDEX_MAX)
        (last,) = self._connection.execute(_LAST, (low, high)).fetchone()
        cursor = self._connection.execute(
            "INSERT INTO indexes (collection, kind, fields, done, until, wanted) "
            "VALUES (?, ?, ?, ?, ?, 1)",
            (collection, kind, orjson.dumps(fields).decode(), low, last or low),
        )
        if kind == TEXT:
            self._connection.execute(
                f"CREATE VIRTUAL TABLE texts_{cursor.lastrowid} USING fts5(body, content='', "
                "columnsize=0, tokenize='unicode61 remove_diacritics 2')"
            )

    def _parameters(self, index: Index) -> dict[str, object]:
        return {
            **index.parameters,
            "id": index.id,
            "number": self._number_of(index.collection),
            "done": index.done,
            "until": index.until,
        }

    def _put(self, index: Index) -> None:
        self._connection.execute(
            "UPDATE indexes SET done = ?, wanted = ? WHERE id = ?",
            (index.done, index.wanted, index.id),
        )

    def _of(self, numbers: set[int]) -> list[Index]:
        """The wanted indexes of some collections."""
        return [i for i in self._indexes if i.wanted and self._number_of(i.collection) in numbers]

    def _number_of(self, collection: str) -> int:
        """The collection's number; 0, which is none's, while it has never had a record."""
        number = self._numbers.get(collection)
        if number is None:
            row = self._connection.execute(
                "SELECT number FROM collections WHERE name = ?", (collection,)
            ).fetchone()
            if row is None:
                return 0
            number = self._numbers[collection] = row[0]
        return number

    def _wanted(self) -> set[tuple[str, str, tuple[str, ...]]]:
        wanted: set[tuple[str, str, tuple[str, ...]]] = set()
        for collection, indexes, search in self._connection.execute(_DEFINED, (DEFINITIONS,)):
            for field in orjson.loads(indexes or "[]"):
                wanted.add((collection, FIELD, (field,)))
            if words := orjson.loads(search or "[]"):
                wanted.add((collection, TEXT, tuple(words)))
        return wanted

    def _differs(self) -> bool:
        return self._wanted() != {(i.collection, i.kind, i.fields) for i in self._indexes}

    def _load(self) -> None:
        self._indexes = indexes_of(self._connection)


def indexes_of(connection: sqlite3.Connection, collection: str | None = None) -> list[Index]:
    """All indexes of a record store, or of one collection, in the order they were defined."""
    return [
        Index(id_, name, kind, tuple(orjson.loads(fields)), done, until, bool(wanted))
        for id_, name, kind, fields, done, until, wanted in connection.execute(_ALL)
        if collection in (None, name)
    ]
