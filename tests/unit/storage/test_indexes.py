"""Indexes hold what the records hold, whenever they were defined and however far they got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.query import Condition, Query, Refused, Relation
from replicad.errors import QueryRefusedError
from replicad.storage import indexes as module
from replicad.storage.records import Records
from tests.support.record_stores import FORMS, FilledRecords

KEYS = [f"k{n}" for n in range(6)]
WORDS = ["maría", "Jose", "LÓPEZ", "o'neil", "x-y"]


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledRecords]:
    with FilledRecords.open(tmp_path) as opened:
        yield opened


def search(filled: FilledRecords, *words: str) -> list[str]:
    return filled.ids(Query(FORMS, words=words))


def step(filled: FilledRecords) -> bool:
    """Do the least work that can be done at once; False if there was none."""
    if not filled.records.indexes.unfinished:
        return False
    with filled.records.transaction():
        filled.records.indexes.work(0)
    return True


# -- full text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("maria",), ["a", "c"]),
        (("MARÍA",), ["a", "c"]),
        (("mari*",), ["a", "b", "c"]),
        (("mari",), []),
        (("maria", "lopez"), ["a"]),
        (("lopez", "mar*"), ["a", "b"]),
        (("nobody",), []),
        (("12",), []),
        (("jose",), ["c"]),
        (('maria" OR "lopez',), []),
        (("maria\x00",), ["a", "c"]),
        (("NEAR",), []),
    ],
)
def test_words_are_found_whatever_their_accents_and_case(
    filled: FilledRecords, words: tuple[str, ...], found: list[str]
) -> None:
    filled.define(search=["nombre", "dir.calle"])
    filled.write(
        {
            "a": {"id": "a", "nombre": "María López", "otro": "nobody"},
            "b": {"id": "b", "nombre": "MARIANO", "dir": {"calle": "Lopez 12b"}, "n": 12},
            "c": b'{"id":"c","nombre":"Mar\\u00eda","dir":{"calle":"Jos\\u0065\\u0301"}}',
            "d": {"id": "d", "nombre": 12, "dir": ["maria"]},
        }
    )
    assert search(filled, *words) == found


def test_words_go_together_with_conditions_and_order(filled: FilledRecords) -> None:
    filled.define(search=["t"], indexes=["n"])
    filled.write(
        {f"k{n}": {"id": f"k{n}", "t": "uno" if n % 2 else "dos", "n": n % 3} for n in range(9)}
    )
    query = Query(FORMS, (Condition("n", Relation.UPTO, ("1",)),), ("uno",), counted=True)
    assert filled.ids(query) == ["k1", "k3", "k7"]
    assert filled.ask(query)["count"] == 3


def test_words_need_search_fields(filled: FilledRecords) -> None:
    filled.define(indexes=["t"])
    with pytest.raises(QueryRefusedError) as refused:
        search(filled, "a")
    assert refused.value.reason == Refused.NO_FULL_TEXT


def test_words_are_not_found_before_all_are_indexed(filled: FilledRecords) -> None:
    filled.write({"a": {"id": "a", "t": "uno"}})
    filled.define(search=["t"])
    with pytest.raises(QueryRefusedError) as refused:
        search(filled, "uno")
    assert refused.value.reason == Refused.BUILDING
    filled.finish()
    assert search(filled, "uno") == ["a"]


# -- how indexes come and go ---------------------------------------------------------------------


def test_without_definitions_there_is_nothing_to_do(filled: FilledRecords) -> None:
    filled.write({"a": {"id": "a"}})
    assert filled.records.indexes.idle
    assert not filled.records.indexes.unfinished


def test_a_large_index_is_made_and_dropped_step_by_step(filled: FilledRecords) -> None:
    for start in range(0, 300, 100):
        some = range(start, start + 100)
        filled.write({f"k{n:03}": {"id": f"k{n:03}", "a": n, "t": f"w{n}"} for n in some})
    filled.define(indexes=["a"], search=["t"])
    sizes = []
    while step(filled):
        sizes.append(filled.rows("SELECT count(*) FROM fields")[0][0])
    assert sizes[0] > 0
    assert max(later - sooner for sooner, later in pairwise(sizes)) <= 64
    assert sizes[-1] == 300
    filled.define()
    steps = 0
    while step(filled):
        steps += 1
    assert steps > 1
    assert filled.rows("SELECT count(*) FROM fields") == [(0,)]
    tables = [name for (name,) in filled.rows("SELECT name FROM sqlite_master")]
    assert not [name for name in tables if name.startswith("texts_")]


def test_the_work_grows_with_the_records_and_no_faster(filled: FilledRecords) -> None:
    """Each step looks only at the rows that it adds."""

    def work() -> int:
        counts = 0

        def count() -> int:
            nonlocal counts
            counts += 1
            return 0

        filled.records._connection.set_progress_handler(count, 100)
        filled.define(indexes=["a"], search=["t"])
        filled.finish()
        filled.write({"k0000": {"id": "k0000"}})
        filled.define()
        filled.finish()
        filled.records._connection.set_progress_handler(None, 0)
        return counts

    works = []
    for start in range(0, 4000, 1000):
        some = range(start, start + 1000)
        filled.write({f"k{n:04}": {"id": f"k{n:04}", "a": n, "t": f"w{n}"} for n in some})
        works.append(work())
    assert works[3] < 6 * works[0]


def test_large_records_are_indexed_one_at_a_time(filled: FilledRecords) -> None:
    for n in range(3):
        filled.write({f"k{n}": {"id": f"k{n}", "a": n, "x": "x" * 200_000}})
    filled.define(indexes=["a"])
    step(filled)
    assert filled.rows("SELECT count(*) FROM fields") == [(1,)]
    filled.finish()
    assert filled.rows("SELECT count(*) FROM fields") == [(3,)]


def test_half_made_indexes_are_gone_on_with_after_a_restart(tmp_path: Path) -> None:
    with FilledRecords.open(tmp_path) as filled:
        filled.write({f"k{n:03}": {"id": f"k{n:03}", "a": n} for n in range(200)})
        filled.define(indexes=["a"])
        step(filled)
        (done,) = filled.rows("SELECT count(*) FROM fields")
    records = Records.open(tmp_path / "records.sqlite")
    again = FilledRecords(records, filled.log)
    assert records.indexes.unfinished
    again.finish()
    assert 0 < done[0] < 200
    assert again.rows("SELECT count(*) FROM fields") == [(200,)]
    records.close()


def test_what_definitions_say_is_made_up_for_on_opening(tmp_path: Path) -> None:
    """A file that was loaded from a snapshot has records and no indexes."""
    with FilledRecords.open(tmp_path) as filled:
        filled.write({"a": {"id": "a", "a": 1, "t": "uno"}})
        filled.define(indexes=["a"], search=["t"])
        filled.finish()
        with filled.records.transaction() as connection:
            connection.execute("DROP TABLE texts_2")
            connection.execute("DELETE FROM indexes")
            connection.execute("DELETE FROM fields")
    records = Records.open(tmp_path / "records.sqlite")
    again = FilledRecords(records, filled.log)
    assert records.indexes.unfinished
    again.finish()
    assert search(again, "uno") == ["a"]
    records.close()


def test_rows_that_were_wrong_have_their_indexes_made_anew(filled: FilledRecords) -> None:
    filled.define(indexes=["a"], search=["t"])
    filled.write({"a": {"id": "a", "a": 1, "t": "uno"}})
    (number,) = filled.rows("SELECT number FROM collections WHERE name = 'forms'")[0]
    with filled.records.transaction() as connection:
        connection.execute("UPDATE fields SET value = 7, key = 'z'")
        filled.records.indexes.rebuild([number])
    filled.finish()
    assert filled.rows("SELECT value, key FROM fields") == [(1, "a")]
    assert search(filled, "uno") == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM fields WHERE key = 'k1'",
        "UPDATE fields SET value = 7 WHERE key = 'k1'",
        "UPDATE fields SET at = at + 1 WHERE key = 'k1'",
    ],
)
def test_an_index_that_lacks_records_is_found_and_made_anew(
    filled: FilledRecords, damage: str
) -> None:
    filled.define(indexes=["a"])
    for n in range(3):
        filled.write({f"k{n}": {"id": f"k{n}", "a": n}})
    intact = fields_of(filled)
    last = filled.records.applied.index
    assert not filled.records.mend_indexes(1, last)
    with filled.records.transaction() as connection:
        connection.execute(damage)
    assert not filled.records.mend_indexes(last, last)
    assert filled.records.mend_indexes(1, last)
    filled.finish()
    assert [row[2:] for row in fields_of(filled)] == [row[2:] for row in intact]


def test_collections_that_share_a_lane_do_not_share_indexes(filled: FilledRecords) -> None:
    """Numbers that differ by 1024 put their records into the same places."""
    filled.define(indexes=["a"])
    filled.write({"a": {"id": "a", "a": 1}})
    (number,) = filled.rows("SELECT number FROM collections WHERE name = 'forms'")[0]
    with filled.records.transaction() as connection:
        for n in range(3, number + 1024):
            connection.execute("INSERT INTO collections VALUES (?, ?, 0)", (n, f"c{n}"))
    filled.records.close()
    filled.records = Records.open(filled.records._path)
    filled.write({"b": {"id": "b", "a": 1}}, "other")
    assert filled.rows("SELECT number FROM collections WHERE name = 'other'") == [(number + 1024,)]
    filled.write({"a": None})
    filled.define("other", indexes=["a"])
    filled.finish()
    assert filled.ids(Query(FORMS)) == []
    asked = Query("other", (Condition("a", Relation.EQUAL, ("1",)),))
    assert filled.ids(asked) == ["b"]
    assert filled.rows("SELECT count(*) FROM fields") == [(1,)]
    filled.records.close()


# -- whatever happens ----------------------------------------------------------------------------

values: st.SearchStrategy[dict[str, Any] | None] = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "a": st.one_of(st.integers(0, 2), st.booleans(), st.just("x"), st.just([])),
            "t": st.lists(st.sampled_from(WORDS), max_size=2).map(" ".join),
            "u": st.sampled_from(WORDS),
        },
    ),
)
actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.lists(
                st.dictionaries(st.sampled_from(KEYS), values, min_size=1), min_size=1, max_size=3
            ),
        ),
        st.tuples(
            st.just("define"),
            st.fixed_dictionaries(
                {
                    "indexes": st.sampled_from([[], ["a"], ["a", "u"]]),
                    "search": st.sampled_from([[], ["t"], ["t", "u"], ["u"]]),
                }
            ),
        ),
        st.tuples(st.just("step"), st.just(None)),
        st.tuples(st.just("reopen"), st.just(None)),
    ),
    max_size=25,
)


@settings(max_examples=50, deadline=None)
@given(actions)
def test_indexes_equal_what_is_made_of_the_records_at_once(
    actions: list[tuple[str, Any]],
) -> None:
    with TemporaryDirectory() as path, FilledRecords.open(Path(path)) as filled, small_steps():
        present: dict[str, Any] = {}
        definition: dict[str, Any] = {}
        for kind, argument in actions:
            if kind == "write":
                for records in argument:
                    write(filled, present, records)
            elif kind == "define":
                definition = argument
                filled.define(**definition)
            elif kind == "step":
                step(filled)
            else:
                filled.records.close()
                filled.records = Records.open(filled.records._path)
        filled.finish()
        assert fields_of(filled) == expected_fields(filled, definition)
        for word in WORDS if definition.get("search") else []:
            told = [
                key
                for key, value in sorted(present.items())
                if word in " ".join(str(value.get(f, "")) for f in definition["search"]).split()
            ]
            assert search(filled, word) == told
        if present:
            write(filled, present, dict.fromkeys(present))
        assert fields_of(filled) == []
        filled.records.close()


class small_steps:  # noqa: N801 - reads as a function
    """Two rows at a time."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "_ROWS_AT_ONCE", 2)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def write(filled: FilledRecords, present: dict[str, Any], records: dict[str, Any]) -> None:
    """Write what makes sense: nothing is deleted that is not there."""
    sensible = {k: v for k, v in records.items() if v is not None or k in present}
    stored = {k: None if v is None else {"id": k, **v} for k, v in sensible.items()}
    if stored:
        filled.write(stored)
    present.update({k: v for k, v in stored.items() if v is not None})
    for key in [k for k, v in stored.items() if v is None]:
        del present[key]


def fields_of(filled: FilledRecords) -> list[tuple[Any, ...]]:
    return sorted(
        filled.rows(
            "SELECT collection, fields, key, at, hex(value), typeof(value) "
            "FROM fields JOIN indexes ON id = field"
        )
    )


def expected_fields(filled: FilledRecords, definition: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What the index must hold, computed for each record by the one expression for keys."""
    expected = []
    for name in definition.get("indexes", []):
        index = module.Index(0, FORMS, module.FIELD, (name,), 0, 0, True)
        rows = filled.records._connection.execute(
            f"SELECT key, at, hex({index.body}), typeof({index.body}) "  # noqa: S608
            "FROM records r JOIN collections USING (number) WHERE name = 'forms'",
            index.parameters,
        )
        expected += [(FORMS, json.dumps([name]), *row) for row in rows]
    return sorted(expected)


def test_rows_are_deleted_without_a_look_at_all_the_others(filled: FilledRecords) -> None:
    """Else each update would take as long as its index is large."""
    filled.write({"a": {"n": 1}, "b": {"n": 2}})
    filled.define(indexes=["n"])
    filled.finish()
    ran: list[str] = []
    connection = filled.records._connection
    connection.set_trace_callback(ran.append)
    filled.write({"a": {"n": 2}, "b": None})
    filled.define()
    filled.finish()
    filled.records.prune(filled.log.index.last)
    filled.write({"c": {"n": 1}})
    filled.write({"d": {"n": 1}})
    connection.set_trace_callback(None)
    plans = {
        table: {
            connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchone()[3]
            for sql in ran
            if sql.split()[:3] == ["DELETE", "FROM", table]
        }
        for table in ("fields", "versions")
    }
    assert plans == {
        "fields": {"SEARCH fields USING PRIMARY KEY (field=? AND value=? AND key=?)"},
        "versions": {"SEARCH versions USING INTEGER PRIMARY KEY (rowid=?)"},
    }
