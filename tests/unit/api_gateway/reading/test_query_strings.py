from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.errors import InvalidQueryError
from api_gateway.reading.query_strings import parse_query
from replicad.core.query import (
    Condition,
    Order,
    Place,
    Query,
    Relation,
    decode_query,
    encode_cursor,
    encode_query,
)


def parse(query: str) -> Query:
    return parse_query("c", parse_qsl(query, keep_blank_values=True))


def test_the_example() -> None:
    text = "genero=Femenino&estado=NY&edad[gte]=18&sort=-apellidos,id&fields=id,nombres&limit=50"
    assert parse(text) == Query(
        "c",
        conditions=(
            Condition("genero", Relation.EQUAL, ("Femenino",)),
            Condition("estado", Relation.EQUAL, ("NY",)),
            Condition("edad", Relation.FROM, ("18",)),
        ),
        order=(Order("apellidos", True), Order("id", False)),
        fields=("id", "nombres"),
        limit=50,
    )


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("a=", Condition("a", Relation.EQUAL, ("",))),
        ("a.b[ne]=x", Condition("a.b", Relation.NOT_EQUAL, ("x",))),
        ("a[in]=x,,y", Condition("a", Relation.IN, ("x", "", "y"))),
        ("a[prefix]=x%2Cy", Condition("a", Relation.PREFIX, ("x,y",))),
        ("a[exists]=false", Condition("a", Relation.EXISTS, ("false",))),
        ("sort[eq]=1", Condition("sort", Relation.EQUAL, ("1",))),
        ("at_index[gt]=1", Condition("at_index", Relation.ABOVE, ("1",))),
        ("consistency[eq]=x", Condition("consistency", Relation.EQUAL, ("x",))),
        ("a%C3%B1o=1", Condition("año", Relation.EQUAL, ("1",))),
        ("a%00=1", None),
        ("a%22=1", None),
        ("a[b][eq]=1", None),
        ("a]=1", None),
        ("=1", None),
        ("[eq]=1", None),
        ("a.[eq]=1", None),
        ("a[like]=1", None),
        ("a[EQ]=1", None),
        ("a[]=1", None),
        ("a[exists]=yes", None),
        ("a[in]=" + "x," * 1000, None),
        ("at_index=1", None),
        ("at_time=x", None),
        ("verify=all", None),
    ],
)
def test_conditions(text: str, condition: Condition | None) -> None:
    if condition is not None:
        assert parse(text).conditions == (condition,)
        return
    with pytest.raises(InvalidQueryError) as refused:
        parse(text)
    assert refused.value.english
    assert refused.value.spanish


@pytest.mark.parametrize(
    "text",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=",
        "limit=1e2",
        "limit=%D9%A1",
        "limit=1&limit=1",
        "count=1",
        "count=",
        "sort=",
        "sort=a,",
        "sort=--a",
        "sort=a,-a",
        "sort=" + ",".join(f"f{n}" for n in range(9)),
        "fields=",
        "fields=a,,b",
        "fields=" + ",".join(f"f{n}" for n in range(65)),
        "q=",
        "q=*",
        "q=-_!",
        "q=" + "w+" * 17,
        "cursor=",
        "cursor=x",
        "&".join(f"f{n}=1" for n in range(33)),
    ],
)
def test_what_is_out_of_bounds_is_refused(text: str) -> None:
    if text == "sort=--a":
        assert parse(text).order == (Order("-a", True),)
        return
    with pytest.raises(InvalidQueryError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("maría lóp*", ("maría", "lóp*")),
        ("o'neil, x_y-z", ("o", "neil", "x", "y", "z")),
        ('"a" OR b*c', ("a", "OR", "b*", "c")),
        ("mari\u0301a 12b", ("mari\u0301a", "12b")),
        ("a\x00b", ("a", "b")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert parse_query("c", [("q", text)]).words == words


def test_a_cursor_goes_on_where_a_page_ended() -> None:
    text = "a=1&sort=b"
    place = Place((7,), "k")
    cursor = encode_cursor(parse(text), place)
    assert parse(f"{text}&limit=5&count=true&cursor={cursor}").after == place
    with pytest.raises(InvalidQueryError):
        parse(f"a=2&sort=b&cursor={cursor}")


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidQueryError):
        parse_query("c", [("a", "\udc80")])
    with pytest.raises(InvalidQueryError):
        parse_query("c", [("\udc80", "a")])


parts = st.one_of(
    st.sampled_from(["sort", "fields", "limit", "cursor", "count", "q", "a", "a.b", "id"]),
    st.text(max_size=6),
)
names = st.one_of(
    parts, st.tuples(parts, st.sampled_from([*Relation, "x"])).map("{0[0]}[{0[1]}]".format)
)


@given(st.lists(st.tuples(names, st.text(max_size=10)), max_size=6))
def test_whatever_comes_is_a_query_that_replicas_understand_or_is_refused(
    parameters: list[tuple[str, str]],
) -> None:
    try:
        query = parse_query("c", parameters)
    except InvalidQueryError:
        return
    assert decode_query(encode_query(query)) == query
