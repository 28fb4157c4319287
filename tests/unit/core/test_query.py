from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad.core.query import (
    CURSOR_CHARACTERS_MAX,
    Condition,
    Order,
    Place,
    Query,
    Relation,
    decode_cursor,
    decode_query,
    encode_cursor,
    encode_query,
    is_field,
)
from replicad.errors import MalformedQueryError

fields = st.text(min_size=1, max_size=8).filter(is_field)
bounds = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.just({}),
)
queries = st.lists(st.builds(Order, fields, st.booleans()), max_size=3).flatmap(
    lambda order: st.builds(
        Query,
        collection=st.just("forms"),
        conditions=st.lists(
            st.builds(
                Condition,
                fields,
                st.sampled_from(Relation),
                st.lists(st.text(), min_size=1, max_size=3).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        words=st.lists(st.text(), max_size=2).map(tuple),
        order=st.just(tuple(order)),
        fields=st.none() | st.lists(fields).map(tuple),
        limit=st.integers(1, 1000),
        after=st.none()
        | st.builds(Place, st.tuples(*[bounds] * len(order)), st.text(max_size=128)),
        counted=st.booleans(),
    )
)


@settings(max_examples=40)
@given(queries)
def test_a_query_arrives_as_it_was_sent(query: Query) -> None:
    assert decode_query(encode_query(query)) == query


@settings(max_examples=40)
@given(queries)
def test_a_cursor_gives_its_place_back(query: Query) -> None:
    if query.after is not None:
        assert decode_cursor(query, encode_cursor(query, query.after)) == query.after


@settings(max_examples=40)
@given(queries, st.binary())
def test_what_is_no_query_is_refused(query: Query, noise: bytes) -> None:
    encoded = encode_query(query)
    for body in (noise, encoded[:-1], encoded + noise.strip() + b"x"):
        with pytest.raises(MalformedQueryError):
            decode_query(body)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("limit", 0),
        ("limit", 1001),
        ("limit", True),
        ("limit", "1"),
        ("counted", 1),
        ("collection", 7),
        ("conditions", [{"field": "a..b", "relation": "eq", "texts": ["x"]}]),
        ("conditions", [{"field": "a", "relation": "like", "texts": ["x"]}]),
        ("conditions", [{"field": "a", "relation": "eq", "texts": []}]),
        ("conditions", [{"field": "a", "relation": "eq", "texts": [7]}]),
        ("order", [{"field": 'a"', "descending": False}]),
        ("order", [{"field": "a", "descending": 1}]),
        ("order", [{"field": "a"}]),
        ("fields", [""]),
        ("words", [7]),
        ("after", {"bounds": [1], "key": "a"}),
        ("after", {"bounds": [], "key": 7}),
        ("more", 1),
    ],
)
def test_a_member_that_is_not_well_formed_is_refused(member: str, value: object) -> None:
    told = orjson.loads(encode_query(Query("forms")))
    with pytest.raises(MalformedQueryError):
        decode_query(orjson.dumps({**told, member: value}))


@pytest.mark.parametrize("cursor", ["", "x", "ñ", "W10", "bnVsbA", "WyIiLFtdXQ", "A" * 20_000])
def test_garbage_is_no_cursor(cursor: str) -> None:
    with pytest.raises(MalformedQueryError):
        decode_cursor(Query("forms"), cursor)


@given(st.text(max_size=40))
def test_no_text_is_a_cursor_by_chance(cursor: str) -> None:
    with pytest.raises(MalformedQueryError):
        decode_cursor(Query("forms"), cursor)


def test_a_cursor_is_for_one_query_only() -> None:
    query = Query("forms", order=(Order("a", False),))
    cursor = encode_cursor(query, Place((1,), "k"))
    wider = Query("forms", order=query.order, limit=7, counted=True)
    assert decode_cursor(wider, cursor) == Place((1,), "k")
    for other in (
        Query("other", order=query.order),
        Query("forms", order=(Order("a", True),)),
        Query("forms", (Condition("a", Relation.EQUAL, ("1",)),), order=query.order),
        Query("forms", words=("x",), order=query.order),
        Query("forms"),
    ):
        with pytest.raises(MalformedQueryError):
            decode_cursor(other, cursor)
    padded = cursor + "=" * (-len(cursor) % 4)
    for changed in (padded + "=", cursor[:-1], cursor + "A", "x" * (CURSOR_CHARACTERS_MAX + 1)):
        with pytest.raises(MalformedQueryError):
            decode_cursor(query, changed)


@pytest.mark.parametrize("bound", [[], {"a": 1}, [1]])
def test_a_cursor_names_only_what_sorts(bound: object) -> None:
    query = Query("forms", order=(Order("a", False),))
    forged = encode_cursor(query, Place((bound,), "k"))  # type: ignore[arg-type]
    with pytest.raises(MalformedQueryError):
        decode_cursor(query, forged)


@pytest.mark.parametrize("name", ["a", "a.b", "año", "a b", "a-b", "$", "a'b", "x" * 256])
def test_names_of_fields(name: str) -> None:
    assert is_field(name)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", 'a"', "a[0]", "a\\", "a\n", "a\x00", "x" * 257, "\ud800"]
)
def test_names_that_are_none(name: str) -> None:
    assert not is_field(name)
