"""What conditions mean, and that keys compare in Python as they do in SQLite."""

from __future__ import annotations

import sqlite3
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.core.query import Condition, Relation
from replicad.storage.keys import COMPOSITE, FALSE, MISSING, TRUE, Key, rank
from replicad.storage.query_spans import ANY_KIND, Clause, Kind, Span, clause_of, kinds_of

texts = st.one_of(
    st.text(max_size=3), st.text("ab\ud7ff\ue000\uffff\U0001f600\U0010ffff\x00", max_size=3)
)
keys: st.SearchStrategy[Key] = st.one_of(
    st.just(MISSING),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-2, 2),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.sampled_from([FALSE, TRUE, COMPOSITE]),
)
spans = st.builds(Span, keys, keys, st.booleans(), st.booleans())


def is_in(key: Key, span: Span) -> bool:
    above = rank(key) > rank(span.low) or (rank(key) == rank(span.low) and not span.low_open)
    below = rank(key) < rank(span.high) or (rank(key) == rank(span.high) and not span.high_open)
    return above and below


def meaning(relation: Relation, text: str, *more: str) -> Clause:
    return clause_of(Condition("f", relation, (text, *more)), ANY_KIND, float)


@given(prefix=texts, other=texts)
def test_a_prefix_is_what_strings_begin_with(prefix: str, other: str) -> None:
    (span,) = meaning(Relation.PREFIX, prefix).spans
    for text in (other, prefix, prefix + other, prefix[:-1] + other):
        assert is_in(text, span) == text.startswith(prefix)
    for key in (1, TRUE, COMPOSITE, MISSING):
        assert not is_in(key, span)


@given(key=keys, first=spans, second=spans)
def test_what_lies_in_both_spans_lies_where_they_meet(key: Key, first: Span, second: Span) -> None:
    met = first.meet(second)
    assert is_in(key, met) == (is_in(key, first) and is_in(key, second))
    if met.is_empty:
        assert not is_in(key, met)
    if met.is_point:
        assert is_in(met.low, met)


@given(st.lists(keys, min_size=2, max_size=2))
def test_keys_compare_as_in_sqlite(pair: list[Key]) -> None:
    connection = sqlite3.connect(":memory:")
    (less, same) = connection.execute("SELECT ?1 < ?2, ?1 = ?2", pair).fetchone()
    connection.close()
    assert (rank(pair[0]) < rank(pair[1]), rank(pair[0]) == rank(pair[1])) == (less, same)


@pytest.mark.parametrize(
    ("relation", "text", "inside", "outside"),
    [
        (Relation.EQUAL, "18", [18, 18.0, "18"], [17, "18.0", TRUE, MISSING]),
        (Relation.EQUAL, "007", ["007"], [7, "7"]),
        (Relation.EQUAL, "true", [TRUE, "true"], [1, FALSE, "TRUE"]),
        (Relation.EQUAL, "", [""], [0, MISSING]),
        (Relation.ABOVE, "18", [19, 18.5, "19", "18a"], [18, "18", "17", TRUE, MISSING]),
        (Relation.FROM, "b", ["b", "c", "ñ"], ["B", "a", 7, TRUE, COMPOSITE]),
        (Relation.BELOW, "18", [17, -1e300, "17", ""], [18, "18", MISSING, FALSE]),
        (Relation.UPTO, "18", [18, "18"], [19, "19", MISSING, COMPOSITE]),
        (Relation.EXISTS, "true", [0, "", FALSE, COMPOSITE], [MISSING]),
        (Relation.EXISTS, "false", [MISSING], [0, "", FALSE, COMPOSITE]),
        (Relation.ABOVE, "true", ["trueno"], [TRUE, FALSE, 1]),
    ],
)
def test_conditions(relation: Relation, text: str, inside: list[Key], outside: list[Key]) -> None:
    clause = meaning(relation, text)
    assert all(any(is_in(key, span) for span in clause.spans) for key in inside)
    assert not any(is_in(key, span) for key in outside for span in clause.spans)


def test_conditions_on_one_field_meet() -> None:
    clauses = [meaning(Relation.FROM, "18"), meaning(Relation.BELOW, "21")]
    clauses.append(meaning(Relation.IN, "17", "20", "21"))
    met = reduce(Clause.meet, clauses)
    assert [span for span in met.spans if span.is_point] == list(met.spans)
    assert sorted(map(str, (span.low for span in met.spans))) == ["20", "20.0"]


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        (None, ANY_KIND),
        ({}, ANY_KIND),
        ({"properties": {"a": {"type": "string"}}}, {Kind.STRING}),
        ({"properties": {"a": {"type": ["integer", "null"]}}}, {Kind.NUMBER}),
        ({"properties": {"a": {"type": ["boolean", "number"]}}}, {Kind.BOOLEAN, Kind.NUMBER}),
        ({"properties": {"a": {"type": "object"}}}, ANY_KIND),
        ({"properties": {"a": True}}, ANY_KIND),
        ({"properties": {"a": {"type": 7}}}, ANY_KIND),
        ({"properties": {"a": {"type": [7]}}}, ANY_KIND),
        ({"properties": []}, ANY_KIND),
    ],
)
def test_kinds(schema: dict[str, object] | None, kinds: set[Kind]) -> None:
    assert kinds_of(schema, "a") == kinds
    nested = {"properties": {"o": schema}} if schema is not None else None
    assert kinds_of(nested, "o.a") == kinds
