from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_gateway.errors import BodyTooLargeError, InvalidRequestError
from api_gateway.records.batches import BatchOperation, parse_batch
from api_gateway.records.strict_json import DEPTH_MAX
from replicad.core.write import OPERATIONS_MAX, Operation, Wanted

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | texts | st.floats(-1e9, 1e9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


def batch_of(*operations: bytes) -> bytes:
    return b'{"operations":[%b]}' % b",".join(operations)


@pytest.mark.parametrize(
    ("told", "operation", "conditional"),
    [
        (b'{"id":"a","value":{}}', Operation("a", b"{}"), False),
        (b'{"operation":"put","id":"a","value":{}}', Operation("a", b"{}"), False),
        (
            b'{"operation":"insert","id":"a","value":{}}',
            Operation("a", b"{}", Wanted.ABSENT),
            False,
        ),
        (
            b'{"operation":"update","id":"a","value":{}}',
            Operation("a", b"{}", Wanted.PRESENT),
            False,
        ),
        (b'{"operation":"delete","id":"a"}', Operation("a", None), False),
        (
            b'{"operation":"delete","id":"a","if_match":"\\"7\\""}',
            Operation("a", None, (7,)),
            True,
        ),
        (
            b'{"operation":"update","id":"a","value":{},"if_match":"\\"7\\",\\"8\\""}',
            Operation("a", b"{}", (7, 8)),
            True,
        ),
        (b'{"id":"a","value":{},"if_match":"*"}', Operation("a", b"{}", Wanted.PRESENT), True),
    ],
)
def test_operations(told: bytes, operation: Operation, conditional: bool) -> None:
    (parsed,) = parse_batch(batch_of(told))
    assert (parsed.operation, parsed.conditional) == (operation, conditional)


@given(st.lists(values, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 2]))
def test_values_are_kept_byte_for_byte(
    records: list[dict[str, Any]], ascii_only: bool, indent: int | None
) -> None:
    def encode(value: object, **options: Any) -> bytes:  # noqa: ANN401 (json's own)
        return json.dumps(value, ensure_ascii=ascii_only, **options).encode()

    told = [{"id": f"r{n}", "value": record} for n, record in enumerate(records)]
    told.insert(1, {"operation": "delete", "id": "gone"})
    parsed = parse_batch(encode({"operations": told}, indent=indent))
    kept = [each.operation.value for each in parsed]
    kept.pop(1)
    assert kept == [encode(record, separators=(",", ":")) for record in records]
    for each in parsed:
        value = each.operation.value
        assert each.document == (None if value is None else orjson.loads(value))


def test_numbers_and_escapes_stay_as_they_were_sent() -> None:
    value = b'{"x":1.0e0,"\\u0061":"\\/,]}{[","deep":[[{"y":-0}],[]],"value":{}}'
    told = b'{ "id" : "a" , "value" : ' + value + b' , "operation" : "put" }'
    (parsed,) = parse_batch(batch_of(told))
    assert parsed.operation.value == value


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"[]", None),
        (b"{}", None),
        (b'{"operations":{}}', None),
        (b'{"operations":[]}', None),
        (b'{"operations":[{"id":"a","value":{}}],"x":1}', None),
        (b'{"operations":[{"id":"a","value":{}}],"operations":[]}', None),
        (batch_of(b"1"), 0),
        (batch_of(b'{"id":"a","value":{}}', b"null"), 1),
        (batch_of(b'{"id":"a","value":{},"x":1}'), 0),
        (batch_of(b'{"value":{}}'), 0),
        (batch_of(b'{"id":"-a","value":{}}'), 0),
        (batch_of(b'{"id":7,"value":{}}'), 0),
        (batch_of(b'{"id":"a"}'), 0),
        (batch_of(b'{"id":"a","value":[]}'), 0),
        (batch_of(b'{"id":"a","value":null}'), 0),
        (batch_of(b'{"operation":"delete","id":"a","value":{}}'), 0),
        (batch_of(b'{"operation":"delete","id":"a","value":null}'), 0),
        (batch_of(b'{"operation":"patch","id":"a","value":{}}'), 0),
        (batch_of(b'{"operation":[],"id":"a","value":{}}'), 0),
        (batch_of(b'{"id":"a","value":{},"if_match":7}'), 0),
        (batch_of(b'{"id":"a","value":{},"if_match":"7"}'), 0),
        (batch_of(b'{"operation":"insert","id":"a","value":{},"if_match":"*"}'), 0),
        (batch_of(b'{"id":"a","value":{}}', b'{"operation":"delete","id":"a"}'), 1),
        (batch_of(b'{"id":"a","value":{"x":1,"x":2}}'), None),
        (batch_of(b'{"id":"a","value":{"x":18446744073709551616}}'), None),
    ],
)
def test_refuses(body: bytes, position: int | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_batch(body)
    assert caught.value.extensions.get("position") == position


def test_a_record_has_its_own_limits() -> None:
    def nested(depth: int) -> bytes:
        return b'{"id":"a","value":{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}}"

    assert len(parse_batch(batch_of(nested(DEPTH_MAX)))) == 1
    with pytest.raises(InvalidRequestError, match="levels"):
        parse_batch(batch_of(nested(DEPTH_MAX + 1)))
    with pytest.raises(BodyTooLargeError):
        parse_batch(batch_of(b'{"id":"a","value":{"x":"' + b"y" * 2**20 + b'"}}'))


def test_the_number_of_operations_is_limited() -> None:
    told = [b'{"id":"r%d","value":{}}' % n for n in range(OPERATIONS_MAX + 1)]
    assert len(parse_batch(batch_of(*told[:-1]))) == OPERATIONS_MAX
    with pytest.raises(InvalidRequestError, match="1000"):
        parse_batch(batch_of(*told))


@given(
    st.binary()
    | st.text('{}[]",:operationsvalueidput19').map(lambda text: b'{"operations":' + text.encode())
    | st.lists(values | texts).map(lambda told: orjson.dumps({"operations": told}))
)
def test_arbitrary_bodies_raise_nothing_else(body: bytes) -> None:
    with suppress(InvalidRequestError):
        assert all(isinstance(each, BatchOperation) for each in parse_batch(body))
