from __future__ import annotations

import re

import pytest
from multidict import CIMultiDict

from api_gateway.errors import InvalidRequestError
from api_gateway.idempotency import Key, check_key, key_of


def test_a_request_without_a_key_gets_one_that_grows_with_time() -> None:
    made = [key_of(CIMultiDict()) for _ in range(100)]
    assert not any(key.is_own for key in made)
    keys = [key.text for key in made]
    assert len(set(keys)) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", key) for key in keys)
    moments = [key[:12] for key in keys]
    assert moments == sorted(moments)


def test_a_client_may_choose_its_key() -> None:
    assert key_of(CIMultiDict({"idempotency-key": "k"})) == Key("k", is_own=True)


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "a\n", "\x7f", "ñ"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidRequestError, match="Idempotency-Key"):
        check_key(key)
