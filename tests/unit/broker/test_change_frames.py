from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import FrameTypes, unmarshal
from pamqp.header import ContentHeader

from replicad.broker.change_frames import ChangeProperties, encode_change, routing_key_of
from replicad.broker.frames import Publishing
from replicad.core.feed import LoggedChange
from tests.unit.broker.contract import CHANGE

FRAME_BYTES_MAX = 4096
NUMBERS = st.integers(0, 2**63 - 1)
CHANGES = st.builds(
    replace,
    st.just(CHANGE),
    index=NUMBERS,
    position=st.integers(0, 999),
    epoch=NUMBERS,
    operation=st.sampled_from(["insert", "update", "delete"]),
    collection=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True),
    value=st.one_of(st.none(), st.binary(max_size=10_000)),
)


def frames_of(data: bytes) -> list[FrameTypes]:
    """What pamqp makes of them."""
    frames = []
    while data:
        size, channel, frame = unmarshal(data)
        assert channel == 7
        assert size <= FRAME_BYTES_MAX
        frames.append(frame)
        data = data[size:]
    return frames


def told_by(properties: Basic.Properties) -> dict[str, object]:
    """Those that there are."""
    named = {name: getattr(properties, name) for name in Basic.Properties.attributes()}
    return {name: value for name, value in named.items() if value not in (None, "")}


@given(CHANGES)
def test_another_library_reads_the_frames(change: LoggedChange) -> None:
    publishing = Publishing(7, "replicad.censo.changes", FRAME_BYTES_MAX)
    method, header, *bodies = frames_of(encode_change(change, "n1", publishing))
    assert isinstance(method, Basic.Publish)
    assert (method.exchange, method.mandatory) == ("replicad.censo.changes", False)
    assert method.routing_key == routing_key_of(change)
    assert isinstance(header, ContentHeader)
    parts = [body.value for body in bodies if isinstance(body, ContentBody)]
    assert b"".join(parts) == change.encode()
    assert header.body_size == len(change.encode())
    assert told_by(header.properties) == {
        "content_type": "application/json",
        "headers": {
            "index": change.index,
            "position": change.position,
            "epoch": change.epoch,
            "digest": change.digest,
        },
        "delivery_mode": 2,
        "message_id": f"{change.index}.{change.position}",
        "message_type": "change",
        "app_id": "n1",
    }


@given(CHANGES)
def test_what_asks_has_the_same_properties(change: LoggedChange) -> None:
    publishing = Publishing(7, "replicad.censo.changes", FRAME_BYTES_MAX)
    _, header, *_ = frames_of(encode_change(change, "n1", publishing))
    assert isinstance(header, ContentHeader)
    asking = ContentHeader(properties=ChangeProperties(change, "n1"))
    read = ContentHeader()
    read.unmarshal(asking.marshal())
    assert told_by(read.properties) == told_by(header.properties)
    assert ChangeProperties(change, "n1").message_id == header.properties.message_id


def test_a_change_goes_by_its_collection_and_what_was_done() -> None:
    assert routing_key_of(CHANGE) == "forms.insert"
