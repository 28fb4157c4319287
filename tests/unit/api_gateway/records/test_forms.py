from __future__ import annotations

import orjson
import pytest

from api_gateway.errors import InvalidIdError, InvalidJsonError, InvalidRequestError
from api_gateway.records.forms import check_id, is_id, parse_form


@pytest.mark.parametrize(
    "key", ["a", "9", "A.b_c-D", "x" * 128, "1..", "a-"], ids=lambda key: key[:8]
)
def test_takes_ids(key: str) -> None:
    assert check_id(key) == key
    assert is_id(key)
    assert parse_form(orjson.dumps({"id": key})).document == {"id": key}


@pytest.mark.parametrize(
    "key",
    ["", ".", "-a", "_a", "x" * 129, "a\n", "a b", "ñ", "a/b", "a%", "٣", 7, None, True, ["a"], {}],
    ids=lambda key: repr(key)[:8],
)
def test_refuses_ids(key: object) -> None:
    assert not is_id(key)
    with pytest.raises(InvalidIdError, match="El id debe ser"):
        parse_form(orjson.dumps({"id": key}))


@pytest.mark.parametrize("body", [b"{}", b'{"ID":"a"}'])
def test_refuses_a_form_without_an_id(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="Falta el campo id"):
        parse_form(body)


def test_refuses_what_is_no_json_object() -> None:
    with pytest.raises(InvalidJsonError):
        parse_form(b"[]")
