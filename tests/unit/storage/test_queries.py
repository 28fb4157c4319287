"""Queries give what a plain model of the language gives, with and without indexes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.query import Condition, Order, Query, Refused, Relation, decode_cursor, is_field
from replicad.errors import QueryRefusedError
from replicad.storage import queries as module
from replicad.storage.queries import Budget
from tests.support.query_model import find
from tests.support.record_stores import FORMS, FilledRecords

FIELDS = ["a", "b", "c.d", "c", "año"]
LETTERS = "aáAñzé01\U0001f600 "
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**53 + 1, 2**63 - 2, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1e300]),
    st.integers(-8, 8).map(lambda n: n / 4),
    st.sampled_from(["", "1", "007", "7", "true", "null", "a\x00b", "a", "\x00", 'x"y', "\\u0061"]),
    st.text(LETTERS, max_size=3),
)
values = st.one_of(scalars, st.fixed_dictionaries({}, optional={"d": scalars}), st.just([1]))
records = st.dictionaries(
    st.sampled_from([f"k{n}" for n in range(12)]),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("a", "b", "c", "año", "x"), values)),
    max_size=12,
)
texts = st.one_of(
    st.text(LETTERS, max_size=2),
    st.sampled_from(["0", "1", "-1", "1.0", "1e0", "007", "7", "true", "false", "a\x00b", "0.25"]),
    st.sampled_from([str(2**63), str(2**63 - 1), str(2**53 + 1), "1E300", "-0", "k3", "k"]),
)
TESTS = [each for each in Relation if each not in (Relation.IN, Relation.EXISTS)]
conditions = st.one_of(
    st.builds(
        Condition, st.sampled_from([*FIELDS, "id"]), st.sampled_from(TESTS), st.tuples(texts)
    ),
    st.builds(
        Condition,
        st.sampled_from([*FIELDS, "id"]),
        st.just(Relation.IN),
        st.lists(texts, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(
        Condition,
        st.sampled_from([*FIELDS, "id"]),
        st.just(Relation.EXISTS),
        st.sampled_from([("true",), ("false",)]),
    ),
)
orders = st.lists(
    st.builds(Order, st.sampled_from([*FIELDS, "id"]), st.booleans()),
    max_size=3,
    unique_by=lambda order: order.field,
).map(tuple)
asked = st.builds(
    Query,
    collection=st.just(FORMS),
    conditions=st.lists(conditions, max_size=3).map(tuple),
    order=orders,
    limit=st.integers(1, 5),
    counted=st.just(True),
)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledRecords]:
    with FilledRecords.open(tmp_path) as opened:
        yield opened


def encoded(record: dict[str, Any], *, escaped: bool) -> bytes:
    return json.dumps(record, ensure_ascii=escaped, separators=(",", ":")).encode()


@settings(max_examples=60, deadline=None)
@given(
    given_records=records,
    changed=records,
    gone=st.sets(st.sampled_from([f"k{n}" for n in range(12)])),
    wanted=st.lists(asked, min_size=1, max_size=6),
    indexed=st.sets(st.sampled_from(FIELDS)),
    is_early=st.booleans(),
    escaped=st.booleans(),
)
def test_queries_find_what_the_model_finds(
    given_records: dict[str, dict[str, Any]],
    changed: dict[str, dict[str, Any]],
    gone: set[str],
    wanted: list[Query],
    indexed: set[str],
    is_early: bool,
    escaped: bool,
) -> None:
    """Whatever was inserted, changed and deleted, and whenever the indexes were defined."""
    with TemporaryDirectory() as path, FilledRecords.open(Path(path)) as filled:
        filled.define(indexes=sorted(indexed) if is_early else [])
        present: dict[str, dict[str, Any]] = {}
        for key, record in [*given_records.items(), *changed.items()]:
            present[key] = {"id": key, **record}
            filled.write({key: encoded(present[key], escaped=escaped)})
        for key in sorted(gone & present.keys()):
            del present[key]
            filled.write({key: None})
        filled.define(indexes=sorted(indexed))
        filled.finish()
        for query in wanted:
            expected = find(query, present.values())
            assert filled.all_ids(query) == expected, query
            assert filled.ask(query)["count"] == len(expected)


def eq(field: str, text: str) -> Condition:
    return Condition(field, Relation.EQUAL, (text,))


def of(*conditions: Condition, **members: Any) -> Query:  # noqa: ANN401
    return Query(FORMS, conditions, **members)


# -- pages ---------------------------------------------------------------------------------------


def test_pages_survive_inserts_and_deletes(filled: FilledRecords) -> None:
    """What is there all the time is seen once; also when the record that a page ended with goes."""
    filled.define(indexes=["a"])
    filled.write({f"k{n:02}": {"id": f"k{n:02}", "a": n % 3} for n in range(20)})
    query = of(order=(Order("a", True),), limit=4)
    first = filled.ask(query)
    shown = [item["id"] for item in first["items"]]
    filled.write({shown[-1]: None, "k00a": {"id": "k00a", "a": 2}, "k99": {"id": "k99", "a": 9}})
    rest = filled.all_ids(replace(query, after=decode_cursor(query, first["next"])))
    stayed = [f"k{n:02}" for n in range(20) if f"k{n:02}" != shown[-1]]
    assert sorted({*shown, *rest} & {*stayed}) == stayed
    assert not {*shown} & {*rest}


def test_a_page_of_large_records_ends_early(
    filled: FilledRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES_MAX", 1000)
    filled.define()
    filled.write({f"k{n}": {"id": f"k{n}", "x": "x" * 600} for n in range(7)})
    assert len(filled.ask(of())["items"]) == 2
    assert filled.all_ids(of()) == [f"k{n}" for n in range(7)]


def test_the_last_page_has_no_cursor(filled: FilledRecords) -> None:
    filled.define()
    filled.write({f"k{n}": {"id": f"k{n}"} for n in range(4)})
    assert filled.ask(of(limit=4))["next"] is None
    assert filled.ask(of(limit=3))["next"] is not None


def test_a_page_that_ends_with_a_value_too_long_to_name_is_refused(filled: FilledRecords) -> None:
    filled.define()
    filled.write({f"k{n}": {"id": f"k{n}", "a": "x" * 20_000} for n in range(2)})
    with pytest.raises(QueryRefusedError) as refused:
        filled.ask(of(order=(Order("a", False),), limit=1))
    assert refused.value.reason == Refused.PLACE_TOO_LONG


def test_the_key_may_be_another_field(filled: FilledRecords) -> None:
    filled.define(key="clave")
    filled.write({n: {"clave": n, "id": -int(n)} for n in ("10", "9", "8")})
    query = of(eq("clave", "9"), order=(Order("clave", True),))
    assert filled.ask(query)["items"] == [{"clave": "9", "id": -9}]
    assert [r["clave"] for r in filled.ask(of(order=(Order("clave", True),)))["items"]] == [
        "9",
        "8",
        "10",
    ]


# -- what is shown -------------------------------------------------------------------------------

EXACT = (
    b'{"id":"e","n":1.10,"big":18446744073709551615,"e":1E+2,"s":"\\u00e9\\/","o":{"p":[1.0,{}]}}'
)


def test_records_are_shown_as_they_are_stored(filled: FilledRecords) -> None:
    filled.define()
    filled.write({"e": EXACT})
    assert filled.body(of()) == b'{"items":[%b],"next":null}' % EXACT


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (("n", "e"), b'{"n":1.10,"e":1E+2}'),
        (("s", "id"), b'{"s":"\\u00e9\\/","id":"e"}'),
        (("o.p", "big"), b'{"o":{"p":[1.0,{}]},"big":18446744073709551615}'),
        (("o.p", "o"), b'{"o":{"p":[1.0,{}]}}'),
        (("o.q", "nope", "n.m"), b"{}"),
        (("n", "n"), b'{"n":1.10}'),
        (("id' --", "n"), b'{"n":1.10}'),
    ],
)
def test_chosen_fields_keep_their_bytes(
    filled: FilledRecords, fields: tuple[str, ...], shown: bytes
) -> None:
    filled.define()
    filled.write({"e": EXACT})
    assert filled.body(of(fields=fields)) == b'{"items":[%b],"next":null}' % shown


def test_fields_with_escaped_names_are_found(filled: FilledRecords) -> None:
    """Many clients escape what is not ASCII, and any character may stand escaped."""
    filled.define()
    value = b'{"\\u0069d":"e","a\\u00f1o":1.50,"\\u006e":null,"o":{"\\u00e1":[2.0,"x\\u0000y"]}}'
    filled.write({"e": value})
    query = of(eq("año", "1.5"), fields=("id", "año", "n", "o.á", "z"))
    shown = '{"id":"e","año":1.50,"n":null,"o":{"á":[2.0,"x\\u0000y"]}}'.encode()
    assert filled.body(query) == b'{"items":[%b],"next":null}' % shown


# -- what is refused -----------------------------------------------------------------------------

SCHEMA = {
    "properties": {
        "edad": {"type": "integer"},
        "vivo": {"type": ["boolean", "null"]},
        "id": {"type": "string"},
        "dir": {"properties": {"calle": {"type": "string"}}},
    }
}


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (eq("edad", "7"), ["a"]),
        (eq("edad", "7.0"), ["a"]),
        (Condition("edad", Relation.FROM, ("6",)), ["a"]),
        (eq("vivo", "true"), ["a"]),
        (eq("dir.calle", "7"), ["b"]),
        (eq("otro", "7"), ["a", "b"]),
        (Condition("edad", Relation.PREFIX, ("7",)), []),
        (eq("id", "a"), ["a"]),
    ],
)
def test_a_schema_says_as_what_a_field_is_compared(
    filled: FilledRecords, condition: Condition, found: list[str]
) -> None:
    filled.define(schema=SCHEMA)
    filled.write(
        {
            "a": {"id": "a", "edad": 7, "vivo": True, "dir": {"calle": 7}, "otro": 7},
            "b": {"id": "b", "edad": "7", "vivo": "true", "dir": {"calle": "7"}, "otro": "7"},
        }
    )
    assert filled.ids(of(condition)) == found


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (eq("edad", "siete"), Refused.NOT_A_NUMBER),
        (eq("edad", "007"), Refused.NOT_A_NUMBER),
        (Condition("edad", Relation.BELOW, ("",)), Refused.NOT_A_NUMBER),
        (Condition("edad", Relation.IN, ("1", "x")), Refused.NOT_A_NUMBER),
        (eq("vivo", "1"), Refused.NOT_A_BOOLEAN),
    ],
)
def test_a_text_that_a_field_can_never_be_is_refused(
    filled: FilledRecords, condition: Condition, reason: Refused
) -> None:
    filled.define(schema=SCHEMA)
    with pytest.raises(QueryRefusedError) as refused:
        filled.ask(of(condition))
    assert (refused.value.reason, refused.value.fields) == (reason, (condition.field,))


def test_a_collection_that_is_not_defined_is_refused(filled: FilledRecords) -> None:
    filled.write({"a": {"id": "a"}})
    with pytest.raises(QueryRefusedError) as refused:
        filled.ask(of())
    assert refused.value.reason == Refused.NO_COLLECTION


def test_a_collection_without_records_is_empty(filled: FilledRecords) -> None:
    filled.define()
    assert filled.ask(of(eq("a", "1"), counted=True)) == {"items": [], "next": None, "count": 0}
    assert filled.ask(Query("formularios")) == {"items": [], "next": None}


def test_too_much_work_is_refused_and_says_which_index_would_help(filled: FilledRecords) -> None:
    filled.define(indexes=["genero"])
    many = {f"k{n}": {"id": f"k{n}", "genero": "F", "a": n} for n in range(1000)}
    filled.write(many)
    query = of(eq("genero", "F"), eq("a", "-1"), order=(Order("b.c", False),))
    with pytest.raises(QueryRefusedError) as refused:
        filled.body(query, Budget(steps=5_000))
    assert (refused.value.reason, refused.value.fields) == (Refused.TOO_BROAD, ("a", "b.c"))
    filled.define(indexes=["genero", "a"])
    filled.finish()
    assert filled.body(query, Budget(steps=5_000)) == b'{"items":[],"next":null}'


def test_time_is_bounded_too(filled: FilledRecords) -> None:
    filled.define()
    filled.write({f"k{n}": {"id": f"k{n}"} for n in range(1000)})
    with pytest.raises(QueryRefusedError):
        filled.body(of(eq("a", "1")), Budget(seconds=-1.0))


def test_a_way_that_leads_too_far_is_left_for_another_one(filled: FilledRecords) -> None:
    """Sorted by an index, all that is wanted comes last."""
    filled.define(indexes=["a", "b"])
    for start in range(0, 6000, 1000):
        some = range(start, start + 1000)
        filled.write({f"k{n:04}": {"id": f"k{n:04}", "a": n, "b": n >= 5000} for n in some})
    query = of(eq("b", "true"), order=(Order("a", False),), limit=1)
    assert filled.ids(query) == ["k5000"]
    steps = next(n for n in range(0, 10**6, 5000) if works(filled, query, n))
    assert filled.body(query, Budget(steps=steps)) == filled.body(query)


def works(filled: FilledRecords, query: Query, steps: int) -> bool:
    try:
        filled.body(query, Budget(steps=steps))
    except QueryRefusedError:
        return False
    return True


# -- hostile input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a' OR 1=1 --", "a);DROP TABLE records;--", "$", "?1", ":v0", "%"]
)
def test_names_and_texts_are_never_code(filled: FilledRecords, name: str) -> None:
    filled.define(indexes=[name])
    filled.write({"a": {"id": "a", name: name}, "b": {"id": "b"}})
    assert filled.ids(of(eq(name, name), order=(Order(name, True),), fields=("id", name))) == ["a"]
    assert filled.ids(of(eq("x", name))) == []


@settings(max_examples=30, deadline=None)
@given(
    name=st.text(min_size=1, max_size=8)
    .filter(is_field)
    .filter(lambda name: not name.startswith("id.")),
    text=st.text(max_size=8),
)
def test_any_name_and_any_text_can_be_asked_for(name: str, text: str) -> None:
    with TemporaryDirectory() as path, FilledRecords.open(Path(path)) as filled:
        filled.define(indexes=[name])
        record: dict[str, Any] = {"id": "a"}
        *above, last = name.split(".")
        at = record
        for part in above:
            at = at.setdefault(part, {}) if isinstance(at.get(part, {}), dict) else {}
        if name != "id":
            at[last] = text
        text = "a" if name == "id" else text
        filled.write({"a": encoded(record, escaped=False), "b": {"id": "b"}})
        assert filled.ids(of(eq(name, text), order=(Order(name, False),))) == ["a"]


def test_huge_lists_and_deep_records(filled: FilledRecords) -> None:
    filled.define(indexes=["a"])
    deep = b'{"id":"d","a":' + b'{"a":' * 31 + b"1" + b"}" * 32
    filled.write({"d": deep, "e": {"id": "e", "a": "999"}})
    many = tuple(str(n) for n in range(1000))
    assert filled.ids(of(Condition("a", Relation.IN, many))) == ["e"]
    assert filled.ids(of(eq(".".join("a" * 32), "1"))) == ["d"]
