"""Which way queries go: by SQLite's own account of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from replicad.core.query import Condition, Order, Place, Query, Relation
from tests.support.record_stores import FORMS, FilledRecords

BY_INDEX = "SEARCH f USING PRIMARY KEY"
BY_KEY = "SEARCH r USING INDEX versions_by_key"
ONLY_KEYS = "SEARCH r USING COVERING INDEX versions_by_key"
FETCHED = "SEARCH versions USING INTEGER PRIMARY KEY (rowid=?)"
SORTED = "USE TEMP B-TREE FOR ORDER BY"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilledRecords]:
    """2,000 records, of which each value of `rare` has two, and each of `common` half."""
    with FilledRecords.open(tmp_path_factory.mktemp("plans")) as opened:
        opened.define(indexes=["rare", "common", "dir.n"], search=["t"])
        for start in range(0, 2000, 1000):
            records = {
                f"k{n:04}": {
                    "id": f"k{n:04}",
                    "rare": f"r{n // 2}",
                    "common": "even" if n % 2 == 0 else "odd",
                    "dir": {"n": n},
                    "t": f"w{n}",
                }
                for n in range(start, start + 1000)
            }
            opened.write(records)
        yield opened


def ask(relation: Relation, field: str, *texts: str) -> Condition:
    return Condition(field, relation, texts)


@pytest.mark.parametrize(
    ("condition", "constraint"),
    [
        (ask(Relation.EQUAL, "rare", "r7"), "(field=? AND value=?)"),
        (ask(Relation.IN, "rare", "r7", "r8"), "(field=? AND value=?)"),
        (ask(Relation.FROM, "dir.n", "1990"), "(field=? AND value>? AND value<?)"),
        (ask(Relation.BELOW, "dir.n", "9"), "(field=? AND value>? AND value<?)"),
        (ask(Relation.PREFIX, "rare", "r77"), "(field=? AND value>? AND value<?)"),
    ],
)
def test_a_condition_is_looked_up_in_its_index(
    filled: FilledRecords, condition: Condition, constraint: str
) -> None:
    steps = filled.plan(Query(FORMS, (condition,)))
    assert f"{BY_INDEX} {constraint}" in steps
    assert FETCHED in steps
    assert not any("SCAN" in step for step in steps)


def test_the_rarer_of_two_conditions_is_looked_up(filled: FilledRecords) -> None:
    common, rare = ask(Relation.EQUAL, "common", "odd"), ask(Relation.EQUAL, "rare", "r7")
    for conditions in ((common, rare), (rare, common)):
        assert filled.ids(Query(FORMS, conditions)) == ["k0015"]
        assert filled.plan(Query(FORMS, conditions)) == filled.plan(Query(FORMS, (rare,)))


def test_pages_of_one_value_are_read_in_the_order_of_ids(filled: FilledRecords) -> None:
    query = Query(FORMS, (ask(Relation.EQUAL, "common", "odd"),), after=Place((), "k1000"))
    assert filled.plan(query) == [f"{BY_INDEX} (field=? AND value=? AND key>?)", FETCHED]


@pytest.mark.parametrize("descending", [False, True])
def test_pages_are_read_in_the_order_of_an_index(filled: FilledRecords, descending: bool) -> None:
    order = (Order("dir.n", descending),)
    side = "<" if descending else ">"
    steps = filled.plan(Query(FORMS, order=order, after=Place((7,), "k0007")))
    assert steps == [f"{BY_INDEX} (field=? AND (value,key){side}(?,?))", FETCHED]
    # What half of the records fulfil is looked at on the way.
    common = ask(Relation.EQUAL, "common", "odd")
    assert filled.plan(Query(FORMS, (common,), order=order, limit=10)) == [
        f"{BY_INDEX} (field=?)",
        FETCHED,
    ]


def test_a_range_and_the_order_share_an_index(filled: FilledRecords) -> None:
    above = ask(Relation.FROM, "dir.n", "100")
    steps = filled.plan(Query(FORMS, (above,), order=(Order("dir.n", True),)))
    assert steps == [f"{BY_INDEX} (field=? AND value>? AND value<?)", FETCHED]


def test_few_records_are_rather_sorted(filled: FilledRecords) -> None:
    rare = ask(Relation.IN, "rare", "r7", "r8")
    steps = filled.plan(Query(FORMS, (rare,), order=(Order("dir.n", True),)))
    assert steps == [f"{BY_INDEX} (field=? AND value=?)", FETCHED, SORTED]


def test_an_order_of_several_fields_begins_with_the_index(filled: FilledRecords) -> None:
    order = (Order("dir.n", True), Order("id", False))
    query = Query(FORMS, order=order, after=Place((7, "k0007"), "k0007"))
    steps = filled.plan(query)
    assert steps[0] == f"{BY_INDEX} (field=? AND value<?)"
    assert "RIGHT PART" in steps[-1] or "LAST TERM" in steps[-1]
    assert filled.ids(query)[:2] == ["k0006", "k0005"]


def test_without_conditions_pages_are_read_by_id(filled: FilledRecords) -> None:
    query = Query(FORMS, after=Place((), "k1000"))
    assert filled.plan(query) == [f"{ONLY_KEYS} (number=? AND key>?)"]
    one = Query(FORMS, (ask(Relation.EQUAL, "id", "k0007"),))
    assert filled.plan(one) == [f"{ONLY_KEYS} (number=? AND key=? AND until=?)"]


def test_words_are_looked_up_in_the_full_text_index(filled: FilledRecords) -> None:
    steps = filled.plan(Query(FORMS, words=("w7",)))
    assert steps[0].startswith("SCAN t VIRTUAL TABLE INDEX")
    assert steps[1:] == [FETCHED, SORTED]


def test_a_field_without_an_index_is_looked_for_in_all_records(filled: FilledRecords) -> None:
    unknown = ask(Relation.EQUAL, "unknown", "x")
    assert filled.plan(Query(FORMS, (unknown,))) == [f"{BY_KEY} (number=?)"]
    everything = filled.plan(Query(FORMS, order=(Order("unknown", False),)))
    assert everything == ["SEARCH versions USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", SORTED]
