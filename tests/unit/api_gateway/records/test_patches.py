from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.records.patches import merge
from api_gateway.records.strict_json import depth_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=4)


def merged(target: Any, patch: Any) -> Any:  # noqa: ANN401 (any JSON)
    """The algorithm as RFC 7396 words it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        (b'{"a":"b"}', b'{"a":"c"}', b'{"a":"c"}'),
        (b'{"a":"b"}', b'{"b":"c"}', b'{"a":"b","b":"c"}'),
        (b'{"a":"b"}', b'{"a":null}', b"{}"),
        (b'{"a":"b","b":"c"}', b'{"a":null}', b'{"b":"c"}'),
        (b'{"a":["b"]}', b'{"a":"c"}', b'{"a":"c"}'),
        (b'{"a":"c"}', b'{"a":["b"]}', b'{"a":["b"]}'),
        (b'{"a":{"b":"c"}}', b'{"a":{"b":"d","c":null}}', b'{"a":{"b":"d"}}'),
        (b'{"a":[{"b":"c"}]}', b'{"a":[1]}', b'{"a":[1]}'),
        (b'["a","b"]', b'["c","d"]', b'["c","d"]'),
        (b'{"a":"b"}', b'["c"]', b'["c"]'),
        (b'{"a":"foo"}', b"null", b"null"),
        (b'{"a":"foo"}', b'"bar"', b'"bar"'),
        (b'{"e":null}', b'{"a":1}', b'{"e":null,"a":1}'),
        (b"[1,2]", b'{"a":"b","c":null}', b'{"a":"b"}'),
        (b"{}", b'{"a":{"bb":{"ccc":null}}}', b'{"a":{"bb":{}}}'),
    ],
)
def test_the_examples_of_rfc_7396(target: bytes, patch: bytes, result: bytes) -> None:
    assert merge(target, patch) == result


@given(objects, objects, st.booleans())
def test_does_what_the_rfc_words(
    target: dict[str, Any], patch: dict[str, Any], ascii_only: bool
) -> None:
    encoded = json.dumps(target, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    result = merge(encoded, orjson.dumps(patch))
    assert orjson.loads(result) == merged(target, patch)
    assert depth_of(result) <= max(depth_of(encoded), depth_of(orjson.dumps(patch)))


@given(objects)
def test_an_empty_patch_changes_no_byte(target: dict[str, Any]) -> None:
    encoded = json.dumps(target, separators=(",", ":")).encode()
    assert merge(encoded, b"{}") == encoded


def test_what_is_not_named_keeps_its_bytes() -> None:
    stored = b'{"id":"a","x":1.10e2,"\\u00e9":{"s":"\\/","y":0.10000000000000000001},"z":-0}'
    assert merge(stored, '{"é":{"y":2},"n":[1.0]}'.encode()) == (
        b'{"id":"a","x":1.10e2,"\\u00e9":{"s":"\\/","y":2},"z":-0,"n":[1.0]}'
    )
