from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.broker.codec import decode, encode
from replicad.broker.frames import Content
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
from tests.unit.broker.contract import APPEND, LINES

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


@given(messages)
def test_message_survives(message: Message) -> None:
    assert decode(encode(message)) == message


def fields_of(content: Content) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(content.fields or content.body)
    return fields


def mutated(message: Message, name: str, value: Any) -> Message:  # noqa: ANN401
    """Decode the message with one of its fields replaced or (`...`) removed."""
    content = encode(message)
    fields = fields_of(content)
    if value is ...:
        del fields[name]
    else:
        fields[name] = value
    changed = orjson.dumps(fields)
    if content.fields:
        return decode(content._replace(fields=changed))
    return decode(content._replace(body=changed))


@given(messages, st.data())
def test_garbage_in_one_field_is_refused_or_harmless(message: Message, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(fields_of(encode(message)))))
    try:
        decoded = mutated(message, name, data.draw(json))
    except MalformedMessageError:
        return
    assert type(decoded) is type(message)


wild = st.binary() | json.map(orjson.dumps)


@given(types, wild, wild)
def test_garbage_never_raises_anything_else(message_type: str, fields: bytes, body: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode(Content(message_type, "application/json", fields, body))


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
    with pytest.raises(MalformedMessageError):
        decode(encode(APPEND)._replace(body=body))


def test_append_can_be_read_by_a_person() -> None:
    content = encode(APPEND)
    assert content.body == LINES
    assert (content.type, content.content_type) == ("append", "application/x-ndjson")
    assert orjson.loads(content.fields) == {
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
    content = encode(ack)
    assert (content.content_type, content.fields) == ("application/json", b"")
    assert orjson.loads(content.body) == {
        "epoch": 3,
        "node": "n2",
        "disk_id": "d2",
        "index": 8,
        "digest": "08" * 32,
        "round": 5,
    }


def test_a_change_is_no_message_of_replicas() -> None:
    with pytest.raises(MalformedMessageError):
        decode(Content("change", "application/json", b"", b"{}"))
