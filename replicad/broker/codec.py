"""Messages as AMQP carries them, made to be read by a person on RabbitMQ's management page.

| type   | content type         | headers                     | body                          |
|--------|----------------------|-----------------------------|-------------------------------|
| append | application/x-ndjson | all of Append but its lines | the log's lines, verbatim     |
| others | application/json     | none                        | one JSON object               |
| change | application/json     | index, position, epoch,     | the change (docs/api.md)      |
|        |                      | digest                      |                               |

A probe, which only asks whether it can be delivered, is no message of the protocol, and neither is
a change, which goes to other systems.

Digests are in hex, in headers and bodies alike.

Entries travel as the bytes of the log, so that whoever watches a queue sees what the log holds,
and no digest has to survive a decoding and an encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson
from pamqp.commands import Basic

from replicad.core.entry import DIGEST_BYTES
from replicad.core.feed import LoggedChange
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

_NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"
# Of what is sent only to learn whether anybody reads a queue.
PROBE: Final = "probe"
# Transient: what is lost is sent again from the log, and must not wait for the broker's disk.
_TRANSIENT: Final = 1
# A change is for whoever reads it some day.
_PERSISTENT: Final = 2

# What arrived from outside: any name may be missing and any value of any type.
_Fields = Mapping[str, object]


def encode(message: Message) -> tuple[Basic.Properties, bytes]:
    """The properties and the body that carry one message."""
    match message:
        case Append():
            return _properties("append", _NDJSON, _append_headers(message)), message.lines
        case Ack():
            matched = {**_point_fields(message.matched), "round": message.round}
            return _properties("ack", _JSON), _body(message, matched)
        case Fetch():
            points = {"points": [_point_fields(point) for point in message.points]}
            return _properties("fetch", _JSON), _body(message, points)
        case Reject():
            return _properties("reject", _JSON), orjson.dumps(message)
        case Echo():
            return _properties("echo", _JSON), orjson.dumps(message)
        case HandOver():
            fields = {"epoch": message.epoch, "leader": message.leader, "leaving": message.leaving}
            body = orjson.dumps({**fields, **_point_fields(message.last)})
            return _properties("hand-over", _JSON), body
        case Offer():
            fields = {"epoch": message.epoch, "leader": message.leader}
            body = orjson.dumps({**fields, **_point_fields(message.base)})
            return _properties("offer", _JSON), body
        case Leave():
            return _properties("leave", _JSON), orjson.dumps(message)


def encode_change(change: LoggedChange, node: str) -> tuple[str, Basic.Properties, bytes]:
    """The routing key, the properties and the body that carry one change, published by `node`."""
    properties = Basic.Properties(
        content_type=_JSON,
        headers={
            "index": change.index,
            "position": change.position,
            "epoch": change.epoch,
            "digest": change.digest,
        },
        delivery_mode=_PERSISTENT,
        message_id=f"{change.index}.{change.position}",
        message_type="change",
        app_id=node,
    )
    return f"{change.collection}.{change.operation}", properties, change.encode()


def encode_probe(sender: str) -> tuple[Basic.Properties, bytes]:
    """A message that means nothing to whoever gets it."""
    return _properties(PROBE, _JSON), orjson.dumps({"node": sender})


def decode(properties: Basic.Properties, body: bytes) -> Message:
    """The inverse of `encode`.

    Raises:
        MalformedMessageError: This is no message of the protocol.
    """
    if properties.message_type == "append":
        return _decode_append(properties.headers or {}, body)
    decoder = _DECODERS.get(properties.message_type or "")
    if decoder is None:
        raise MalformedMessageError(f"unknown message type {properties.message_type!r}")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedMessageError(f"not JSON: {body[:60]!r}") from error
    return decoder(_object(fields))


def _properties(
    message_type: str,
    content_type: str,
    headers: dict[str, int | str | dict[str, int]] | None = None,
) -> Basic.Properties:
    return Basic.Properties(
        message_type=message_type,
        content_type=content_type,
        headers=headers,  # type: ignore[arg-type]  # A FieldTable, which is invariant.
        delivery_mode=_TRANSIENT,
    )


def _body(message: Ack | Fetch, more: Mapping[str, object]) -> bytes:
    fields = {"epoch": message.epoch, "node": message.node, "disk_id": message.disk_id}
    return orjson.dumps({**fields, **more})


def _append_headers(append: Append) -> dict[str, int | str | dict[str, int]]:
    return {
        "epoch": append.epoch,
        "leader": append.leader,
        "incarnation": append.incarnation,
        "previous-index": append.previous.index,
        "previous-digest": append.previous.digest.hex(),
        "count": append.count,
        "commit-index": append.commit.index,
        "commit-digest": append.commit.digest.hex(),
        "last": append.last,
        "round": append.round,
        "acked": append.acked,
    }


def _point_fields(point: Point) -> dict[str, int | str]:
    return {"index": point.index, "digest": point.digest.hex()}


def _decode_append(headers: _Fields, body: bytes) -> Append:
    count = _integer(headers, "count")
    # As many newlines as entries, the last one at the end: what the receiver cuts the body by.
    if body.count(b"\n") != count or (body and not body.endswith(b"\n")):
        raise MalformedMessageError(f"the body does not hold {count} lines")
    return Append(
        epoch=_integer(headers, "epoch"),
        leader=_text(headers, "leader"),
        incarnation=_text(headers, "incarnation"),
        previous=Point(_integer(headers, "previous-index"), _digest(headers, "previous-digest")),
        count=count,
        lines=body,
        commit=Point(_integer(headers, "commit-index"), _digest(headers, "commit-digest")),
        last=_integer(headers, "last"),
        round=_integer(headers, "round"),
        acked=_decode_acked(_object(headers.get("acked"))),
    )


def _decode_acked(fields: _Fields) -> dict[str, int]:
    return {name: _integer(fields, name) for name in fields}


def _decode_ack(fields: _Fields) -> Ack:
    return Ack(
        epoch=_integer(fields, "epoch"),
        node=_text(fields, "node"),
        disk_id=_text(fields, "disk_id"),
        matched=_point(fields),
        round=_integer(fields, "round"),
    )


def _decode_fetch(fields: _Fields) -> Fetch:
    points = fields.get("points")
    if not isinstance(points, list):
        raise MalformedMessageError("points: not a list")
    return Fetch(
        epoch=_integer(fields, "epoch"),
        node=_text(fields, "node"),
        disk_id=_text(fields, "disk_id"),
        points=tuple(_point(_object(point)) for point in points),
    )


def _decode_reject(fields: _Fields) -> Reject:
    return Reject(epoch=_integer(fields, "epoch"), node=_text(fields, "node"))


def _decode_echo(fields: _Fields) -> Echo:
    return Echo(
        epoch=_integer(fields, "epoch"),
        incarnation=_text(fields, "incarnation"),
        sent_at=_seconds(fields, "sent_at"),
    )


def _decode_hand_over(fields: _Fields) -> HandOver:
    return HandOver(
        epoch=_integer(fields, "epoch"),
        leader=_text(fields, "leader"),
        last=_point(fields),
        leaving=_flag(fields, "leaving"),
    )


def _decode_offer(fields: _Fields) -> Offer:
    return Offer(
        epoch=_integer(fields, "epoch"), leader=_text(fields, "leader"), base=_point(fields)
    )


def _decode_leave(fields: _Fields) -> Leave:
    return Leave(
        epoch=_integer(fields, "epoch"),
        node=_text(fields, "node"),
        disk_id=_text(fields, "disk_id"),
    )


_DECODERS: Final[dict[str, Callable[[_Fields], Message]]] = {
    "ack": _decode_ack,
    "fetch": _decode_fetch,
    "reject": _decode_reject,
    "echo": _decode_echo,
    "hand-over": _decode_hand_over,
    "leave": _decode_leave,
    "offer": _decode_offer,
}


def _object(value: object) -> _Fields:
    if not isinstance(value, dict):
        raise MalformedMessageError(f"not an object: {str(value)[:60]}")
    return value


def _point(fields: _Fields) -> Point:
    return Point(_integer(fields, "index"), _digest(fields, "digest"))


def _integer(fields: _Fields, name: str) -> int:
    value = fields.get(name)
    # Not isinstance: True is an int too.
    if type(value) is not int or value < 0:
        raise MalformedMessageError(f"{name}: not a count: {str(value)[:60]}")
    return value


def _seconds(fields: _Fields, name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, float):
        raise MalformedMessageError(f"{name}: not a time: {str(value)[:60]}")
    return value


def _flag(fields: _Fields, name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise MalformedMessageError(f"{name}: not true or false: {str(value)[:60]}")
    return value


def _text(fields: _Fields, name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedMessageError(f"{name}: not a name: {str(value)[:60]}")
    return value


def _digest(fields: _Fields, name: str) -> bytes:
    value = fields.get(name)
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise MalformedMessageError(f"{name}: not a digest: {str(value)[:60]}")
    return digest
