from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.errors import (
    CollectionNotEmptyError,
    InvalidRequestError,
    NoSuchRecordError,
    PreconditionFailedError,
    RecordExistsError,
    RequestError,
)
from api_gateway.records.conditions import condition_of, etag_of, is_known, refusal_of
from replicad.core.effects import Reason, Rejected
from replicad.core.write import Wanted

versions = st.integers(1, 10**18 - 1)


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "condition"),
    [
        ([], [], Wanted.ANYTHING),
        (["*"], [], Wanted.PRESENT),
        ([" * "], [], Wanted.PRESENT),
        ([], ["*"], Wanted.ABSENT),
        (['"42"'], [], (42,)),
        (['"42", "7"'], [], (42, 7)),
        (['"42"', '"7"'], [], (42, 7)),
        ([', "42" ,,"7",'], [], (42, 7)),
        (['W/"42"'], [], ()),  # Strong comparison.
        (['"042"'], [], ()),
        (['"abc"'], [], ()),
        (['""'], [], ()),
        (['"a,b","3"'], [], (3,)),
        (['"1234567890123456789"'], [], ()),
    ],
)
def test_what_headers_ask_for(
    if_match: list[str], if_none_match: list[str], condition: object
) -> None:
    assert condition_of(if_match, if_none_match) == condition


@pytest.mark.parametrize(
    ("if_match", "if_none_match"),
    [
        ([""], []),
        ([","], []),
        (["42"], []),
        (['"42'], []),
        (['"42" "7"'], []),
        (['*, "42"'], []),
        (['w/"42"'], []),
        (['"a b"'], []),
        (['"ñandú\u0394"'], []),
        ([",".join(['"1"'] * 101)], []),
        ([], ['"42"']),
        ([], [""]),
        (["*"], ["*"]),
    ],
)
def test_what_headers_cannot_ask_for(if_match: list[str], if_none_match: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r"If-|if_match"):
        condition_of(if_match, if_none_match)


@given(st.lists(versions, min_size=1, max_size=100))
def test_a_list_of_etags_asks_for_one_of_their_versions(asked: list[int]) -> None:
    assert condition_of([", ".join(map(etag_of, asked))], []) == tuple(asked)
    assert condition_of([etag_of(version) for version in asked], []) == tuple(asked)
    assert is_known([",".join(f"W/{etag_of(version)}" for version in asked)], asked[-1])


@given(st.lists(st.text('*"W/,\t 0123456789a\x7f\xff')), st.lists(st.text('*" ,1')))
def test_arbitrary_headers_raise_nothing_else(
    if_match: list[str], if_none_match: list[str]
) -> None:
    with suppress(InvalidRequestError):
        condition_of(if_match, if_none_match)
    with suppress(InvalidRequestError):
        is_known(if_none_match, 1)


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        ([], False),
        (["*"], True),
        (['"42"'], True),
        (['W/"42"'], True),
        (['"7"', '"42"'], True),
        (['"7"'], False),
    ],
)
def test_a_client_that_has_a_version_need_not_get_it(if_none_match: list[str], known: bool) -> None:
    assert is_known(if_none_match, 42) is known


@pytest.mark.parametrize(
    ("rejected", "conditional", "kind", "extensions"),
    [
        (Rejected(Reason.EXISTS, 0, 5), False, RecordExistsError, {"etag": '"5"'}),
        (Rejected(Reason.EXISTS, 0, 5), True, PreconditionFailedError, {"etag": '"5"'}),
        (Rejected(Reason.MISSING), False, NoSuchRecordError, {}),
        (Rejected(Reason.MISSING), True, PreconditionFailedError, {"etag": None}),
        (Rejected(Reason.CHANGED, 0, 5), True, PreconditionFailedError, {"etag": '"5"'}),
        (Rejected(Reason.NOT_EMPTY), False, CollectionNotEmptyError, {}),
    ],
)
def test_what_a_client_is_told(
    rejected: Rejected, conditional: bool, kind: type[RequestError], extensions: dict[str, object]
) -> None:
    error = refusal_of(rejected, conditional=conditional)
    assert type(error) is kind
    assert error.extensions == extensions
