from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from replicad.broker.codec import decode, encode, encode_change
from replicad.core.cluster import NODE_NAME
from replicad.core.messages import (
    Ack,
    Append,
    Echo,
    Fetch,
    HandOver,
    Leave,
    Message,
    Offer,
    Point,
    Reject,
)
from replicad.errors import MalformedMessageError
from tests.unit.broker.contract import APPEND, CHANGE, LINES

# As far as AMQP's signed 64-bit integers reach.
counts = st.integers(0, 2**63 - 1)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
node_names = st.from_regex(NODE_NAME, fullmatch=True)
points = st.builds(Point, counts, st.binary(min_size=32, max_size=32))
lines = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"") + b"\n"))
appends = st.builds(
    lambda content, **fields: Append(count=len(content), lines=b"".join(content), **fields),
    lines,
    epoch=counts,
    leader=names,
    incarnation=names,
    previous=points,
    commit=points,
    last=counts,
    round=counts,
    acked=st.dictionaries(node_names, counts),
)
times = st.floats(allow_nan=False, allow_infinity=False)
messages = st.one_of(
    appends,
    st.builds(Ack, counts, names, names, points, counts),
    st.builds(Fetch, counts, names, names, st.lists(points).map(tuple)),
    st.builds(Reject, counts, names),
    st.builds(Echo, counts, names, times),
    st.builds(HandOver, counts, names, points, st.booleans()),
    st.builds(Leave, counts, names, names),
    st.builds(Offer, counts, names, points),
)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | times | names,
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
)
types = st.sampled_from(
    ["append", "ack", "fetch", "reject", "echo", "hand-over", "leave", "offer", "", "other"]
)


def on_the_wire(properties: Basic.Properties) -> Basic.Properties:
    """The properties after AMQP's own encoding and decoding."""
    header = ContentHeader()
    # A marshalled frame: 7 bytes of frame header, the payload, 1 byte of frame end.
    header.unmarshal(ContentHeader(body_size=0, properties=properties).marshal())
    assert isinstance(header.properties, Basic.Properties)
    return header.properties


@given(messages)
def test_message_survives_the_wire(message: Message) -> None:
    properties, body = encode(message)
    assert decode(on_the_wire(properties), body) == message


def mutated(message: Message, name: str, value: Any) -> Message:  # noqa: ANN401
    """Decode the message with one of its fields replaced or (`...`) removed."""
    properties, body = encode(message)
    headers = properties.headers or {}
    fields: dict[str, Any] = headers or orjson.loads(body)
    if value is ...:
        del fields[name]
    else:
        fields[name] = value
    return decode(properties, body if headers else orjson.dumps(fields))


@given(messages, st.data())
def test_garbage_in_one_field_is_refused_or_harmless(message: Message, data: st.DataObject) -> None:
    properties, body = encode(message)
    fields = properties.headers or orjson.loads(body)
    name = data.draw(st.sampled_from(sorted(fields)))
    try:
        decoded = mutated(message, name, data.draw(json))
    except MalformedMessageError:
        return
    assert type(decoded) is type(message)


@given(types, st.none() | st.dictionaries(names, json), st.binary() | json.map(orjson.dumps))
def test_garbage_never_raises_anything_else(
    message_type: str,
    headers: Any,  # noqa: ANN401
    body: bytes,
) -> None:
    properties = Basic.Properties(message_type=message_type, headers=headers)
    with pytest.raises(MalformedMessageError):
        decode(properties, body)


@pytest.mark.parametrize("value", [..., None, -1, True, "7", 7.0])
@pytest.mark.parametrize("name", ["epoch", "previous-index", "commit-index", "last", "round"])
def test_append_without_a_count_is_refused(name: str, value: object) -> None:
    with pytest.raises(MalformedMessageError, match=name):
        mutated(APPEND, name, value)


@pytest.mark.parametrize("value", [..., None, "", "00", "z" * 64, "0 " * 32, "00" * 33, 7])
def test_append_without_a_digest_is_refused(value: object) -> None:
    with pytest.raises(MalformedMessageError, match="previous-digest"):
        mutated(APPEND, "previous-digest", value)


@pytest.mark.parametrize(
    "body", [b"", LINES[:-1], LINES + LINES, LINES[:-1] + b"\n\n", b"x" + LINES[:-1]]
)
def test_append_whose_body_is_not_its_lines_is_refused(body: bytes) -> None:
    properties, _ = encode(APPEND)
    with pytest.raises(MalformedMessageError):
        decode(properties, body)


def test_append_can_be_read_by_a_person() -> None:
    properties, body = encode(APPEND)
    assert body == LINES
    assert properties.content_type == "application/x-ndjson"
    assert properties.message_type == "append"
    assert properties.headers == {
        "epoch": 3,
        "leader": "n1",
        "incarnation": "abc",
        "previous-index": 7,
        "previous-digest": "07" * 32,
        "count": 1,
        "commit-index": 7,
        "commit-digest": "07" * 32,
        "last": 8,
        "round": 5,
        "acked": {"n2": 4},
    }


def test_ack_can_be_read_by_a_person() -> None:
    ack = Ack(epoch=3, node="n2", disk_id="d2", matched=Point(8, b"\x08" * 32), round=5)
    properties, body = encode(ack)
    assert properties.content_type == "application/json"
    assert orjson.loads(body) == {
        "epoch": 3,
        "node": "n2",
        "disk_id": "d2",
        "index": 8,
        "digest": "08" * 32,
        "round": 5,
    }


def test_a_change_survives_the_broker_and_says_where_it_stands() -> None:
    routing_key, properties, body = encode_change(CHANGE, "n1")
    assert (routing_key, body) == ("forms.insert", CHANGE.encode())
    assert (properties.delivery_mode, properties.message_id) == (2, "8.0")
    assert (properties.message_type, properties.content_type) == ("change", "application/json")
    assert properties.headers == {"index": 8, "position": 0, "epoch": 3, "digest": "ab" * 32}
    assert properties.app_id == "n1"
    with pytest.raises(MalformedMessageError):
        decode(properties, body)  # Between replicas it is no message.
