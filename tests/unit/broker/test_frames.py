"""What the frames say is checked with pamqp, a general library for them."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from replicad.broker.frames import HEARTBEAT, Content, Deliveries, Publishing

FRAME_BYTES_MAX = 4096
EXCHANGE = "replicad.censo"
DELIVER = Basic.Deliver("ctag1.0", 2**63 - 1, False, EXCHANGE, "log.all")

short = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
named = short.filter(bool)
contents = st.builds(
    Content,
    type=named,
    content_type=named,
    fields=st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
    body=st.binary() | st.binary(min_size=4080, max_size=4096) | st.binary(max_size=20_000),
    message_id=named,
    app_id=named,
)


def unmarshalled(data: bytes) -> list[tuple[int, Any]]:
    """Channel and frame of each."""
    found = []
    while data:
        used, channel, value = frame.unmarshal(data)
        found.append((channel, value))
        data = data[used:]
    return found


def delivered(content: Content) -> bytes:
    """What the broker makes of what we publish: it leaves all but the method as it is."""
    published = Publishing(1, EXCHANGE, FRAME_BYTES_MAX).encode("log.all", content)
    used, _, _ = frame.unmarshal(published)
    return frame.marshal(DELIVER, 1) + published[used:]


@given(contents, named)
def test_a_general_library_reads_what_we_publish(content: Content, routing_key: str) -> None:
    frames = Publishing(7, EXCHANGE, FRAME_BYTES_MAX).encode(routing_key, content)
    (_, publish), (_, header), *bodies = unmarshalled(frames)
    assert {channel for channel, _ in unmarshalled(frames)} == {7}
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key) == (EXCHANGE, routing_key)
    assert not publish.mandatory
    assert not publish.immediate
    assert header.body_size == len(content.body)
    assert header.properties == Basic.Properties(
        content_type=content.content_type,
        headers={"fields": content.fields.decode()} if content.fields else None,
        delivery_mode=1,
        message_id=content.message_id,
        message_type=content.type,
        app_id=content.app_id,
    )
    assert b"".join(body.value for _, body in bodies) == content.body
    assert all(0 < len(body.value) <= FRAME_BYTES_MAX - 8 for _, body in bodies)


others = st.sampled_from(
    [
        HEARTBEAT,
        frame.marshal(Basic.CancelOk("ctag1.0"), 1),
        frame.marshal(Queue.BindOk(), 1),
        frame.marshal(Channel.Close(406, "no", 60, 40), 1),
    ]
)


@given(st.lists(st.tuples(contents, others), max_size=6), st.data())
def test_messages_are_found_wherever_the_stream_is_cut(
    sent: list[tuple[Content, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(delivered(content) + other for content, other in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    deliveries = Deliveries()
    taken, left = [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        messages, others = deliveries.take(stream[start:stop])
        taken += messages
        left += others
    assert taken == [content for content, _ in sent]
    assert left == b"".join(other for _, other in sent)


@given(contents, st.booleans())
def test_one_byte_at_a_time(content: Content, beat: bool) -> None:
    stream = delivered(content._replace(body=content.body[:50])) + HEARTBEAT * beat
    deliveries = Deliveries()
    parts = [deliveries.take(bytes([byte])) for byte in stream]
    assert [message for messages, _ in parts for message in messages] == [
        content._replace(body=content.body[:50])
    ]
    assert b"".join(others for _, others in parts) == HEARTBEAT * beat


tables = st.dictionaries(
    named.filter(lambda name: name != "fields"),
    st.recursive(
        # Too short to hold what `fields` is searched for by.
        st.booleans() | st.integers(-(2**31), 2**31) | short | st.binary(max_size=7).map(bytearray),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(named, inner, max_size=3),
    ),
    max_size=4,
)
some_properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": named,
        "content_encoding": named,
        "headers": tables,
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 9),
        "correlation_id": named,
        "reply_to": named,
        "expiration": st.just("60"),
        "message_id": named,
        "timestamp": st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        "message_type": named,
        "user_id": named,
        "app_id": named,
    },
)


@given(some_properties, st.none() | named, st.binary(max_size=99))
def test_properties_that_others_chose_are_read(
    properties: dict[str, Any], fields: str | None, body: bytes
) -> None:
    if fields is not None:
        properties["headers"] = {**properties.get("headers", {}), "fields": fields}
    header = ContentHeader(body_size=len(body), properties=Basic.Properties(**properties))
    stream = frame.marshal(DELIVER, 1) + frame.marshal(header, 1)
    if body:
        stream += frame.marshal(ContentBody(body), 1)
    assert Deliveries().take(stream) == (
        [
            Content(
                type=properties.get("message_type", ""),
                content_type=properties.get("content_type", ""),
                fields=(fields or "").encode(),
                body=body,
                message_id=properties.get("message_id", ""),
                app_id=properties.get("app_id", ""),
            )
        ],
        b"",
    )


@given(st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_properties_that_nobody_can_read_spoil_only_their_message(flags: int, wild: bytes) -> None:
    payload = struct.pack(">HHQH", 60, 0, 3, flags) + wild
    header = struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"
    stream = frame.marshal(DELIVER, 1) + header + frame.marshal(ContentBody(b"abc"), 1)
    good = Content("ack", "application/json", b"", b"{}", "abc-1", "n2")
    messages, rest = Deliveries().take(stream + delivered(good))
    assert (messages[0].body, messages[1:], rest) == (b"abc", [good], b"")


@pytest.mark.parametrize("garbage", [b"AMQP\x00\x00\x09\x01", b"\x01\x00\x01\x00\x00\x00\x00x"])
def test_what_is_no_frame_is_left_to_others(garbage: bytes) -> None:
    assert Deliveries().take(HEARTBEAT + garbage[:7])[1] == HEARTBEAT
    deliveries = Deliveries()
    _, left = deliveries.take(HEARTBEAT + garbage)
    assert left.startswith(HEARTBEAT)


def test_a_heartbeat_is_one() -> None:
    ((channel, beat),) = unmarshalled(HEARTBEAT)
    assert channel == 0
    assert isinstance(beat, Heartbeat)
