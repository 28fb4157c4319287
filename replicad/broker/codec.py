"""Messages as AMQP carries them, made to be read by a person on RabbitMQ's management page.

| type   | content type         | headers                     | body                          |
|--------|----------------------|-----------------------------|-------------------------------|
| append | application/x-ndjson | one, `fields`: as JSON, all | the log's lines, verbatim     |
|        |                      | of Append but its lines     |                               |
| others | application/json     | none                        | one JSON object               |

A probe, which only asks whether it can be delivered, is no message of the protocol, and neither is
a change, which goes to other systems (`change_frames.py`).

Digests are in hex, in headers and bodies alike. The fields of Append are one header, because eleven
in AMQP's own types cost as much to write and to read as all the rest of a message.

Entries travel as the bytes of the log, so that whoever watches a queue sees what the log holds,
and no digest has to survive a decoding and an encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from pamqp.commands import Basic

from replicad.broker.frames import Content
from replicad.core.entry import DIGEST_BYTES
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
_TRANSIENT: Final = 1

# What arrived from outside: any name may be missing and any value of any type.
_Fields = Mapping[str, object]


def encode(message: Message) -> Content:
    """What carries one message, not signed yet."""
    match message:
        case Append():
            fields = orjson.dumps(_append_fields(message))
            return Content("append", _NDJSON, fields, message.lines)
        case Ack():
            return _plain("ack", orjson.dumps(_ack_fields(message)))
        case Fetch():
            own = {"epoch": message.epoch, "node": message.node, "disk_id": message.disk_id}
            points = [_point_fields(point) for point in message.points]
            return _plain("fetch", orjson.dumps({**own, "points": points}))
        case Reject():
            return _plain("reject", orjson.dumps(message))
        case Echo():
            return _plain("echo", orjson.dumps(message))
        case HandOver():
            own = {"epoch": message.epoch, "leader": message.leader, "leaving": message.leaving}
            return _plain("hand-over", orjson.dumps({**own, **_point_fields(message.last)}))
        case Offer():
            own = {"epoch": message.epoch, "leader": message.leader}
            return _plain("offer", orjson.dumps({**own, **_point_fields(message.base)}))
        case Leave():
            return _plain("leave", orjson.dumps(message))


def encode_probe(sender: str, message_id: str) -> tuple[Basic.Properties, bytes]:
    """A message that means nothing to whoever gets it."""
    properties = Basic.Properties(
        content_type=_JSON,
        delivery_mode=_TRANSIENT,
        message_id=message_id,
        message_type=PROBE,
        app_id=sender,
    )
    return properties, orjson.dumps({"node": sender})


def decode(content: Content) -> Message:
    """The inverse of `encode`.

    Raises:
        MalformedMessageError: This is no message of the protocol.
    """
    if content.type == "append":
        return _decode_append(_parse(content.fields), content.body)
    decoder = _DECODERS.get(content.type)
    if decoder is None:
        raise MalformedMessageError(f"unknown message type {content.type!r}")
    return decoder(_parse(content.body))


def _plain(message_type: str, body: bytes) -> Content:
    return Content(message_type, _JSON, b"", body)


def _parse(text: bytes) -> _Fields:
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedMessageError(f"not JSON: {text[:60]!r}") from error
    return _object(fields)


def _append_fields(append: Append) -> dict[str, int | str | dict[str, int]]:
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


def _ack_fields(ack: Ack) -> dict[str, int | str]:
    return {
        "epoch": ack.epoch,
        "node": ack.node,
        "disk_id": ack.disk_id,
        "index": ack.matched.index,
        "digest": ack.matched.digest.hex(),
        "round": ack.round,
    }


def _point_fields(point: Point) -> dict[str, int | str]:
    return {"index": point.index, "digest": point.digest.hex()}


class _Shape:
    """What an object of a kind that comes often must hold: looked at together, not one by one."""

    def __init__(self, counts: tuple[str, ...], texts: tuple[str, ...]) -> None:
        """At least one of each; more fields do no harm."""
        self._counts = counts
        self._texts = texts
        self._names = counts + texts
        self._types = (int,) * len(counts) + (str,) * len(texts)

    def read(self, fields: _Fields) -> tuple[Any, ...]:
        """The counts, then the texts.

        Raises:
            MalformedMessageError: It names one that is missing or wrong.
        """
        values: tuple[Any, ...] = tuple(map(fields.get, self._names))
        right = tuple(map(type, values)) == self._types
        if right and min(values[: len(self._counts)]) >= 0 and all(values[len(self._counts) :]):
            return values
        counts = [_integer(fields, name) for name in self._counts]
        return (*counts, *(_text(fields, name) for name in self._texts))


_APPEND: Final = _Shape(
    ("epoch", "previous-index", "count", "commit-index", "last", "round"),
    ("leader", "incarnation", "previous-digest", "commit-digest"),
)
_ACK: Final = _Shape(("epoch", "index", "round"), ("node", "disk_id", "digest"))


def _decode_append(fields: _Fields, body: bytes) -> Append:
    epoch, previous, count, commit, last, round_, *texts = _APPEND.read(fields)
    leader, incarnation, previous_digest, commit_digest = texts
    # As many newlines as entries, the last one at the end: what the receiver cuts the body by.
    if body.count(b"\n") != count or (body and not body.endswith(b"\n")):
        raise MalformedMessageError(f"the body does not hold {count} lines")
    return Append(
        epoch=epoch,
        leader=leader,
        incarnation=incarnation,
        previous=Point(previous, _digest("previous-digest", previous_digest)),
        count=count,
        lines=body,
        commit=Point(commit, _digest("commit-digest", commit_digest)),
        last=last,
        round=round_,
        acked=_decode_acked(fields.get("acked")),
    )


def _decode_acked(acked: Any) -> dict[str, int]:  # noqa: ANN401
    rounds: dict[str, int] = _object(acked)
    if rounds and (set(map(type, rounds.values())) != {int} or min(rounds.values()) < 0):
        raise MalformedMessageError(f"acked: not counts: {str(acked)[:60]}")
    return rounds


def _decode_ack(fields: _Fields) -> Ack:
    epoch, index, round_, node, disk_id, digest = _ACK.read(fields)
    return Ack(
        epoch=epoch,
        node=node,
        disk_id=disk_id,
        matched=Point(index, _digest("digest", digest)),
        round=round_,
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


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedMessageError(f"not an object: {str(value)[:60]}")
    return value


def _point(fields: _Fields) -> Point:
    return Point(_integer(fields, "index"), _digest("digest", fields.get("digest")))


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
        raise MalformedMessageError(f"{name}: not a text: {str(value)[:60]}")
    return value


def _digest(name: str, value: object) -> bytes:
    try:
        digest = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_BYTES:
        raise MalformedMessageError(f"{name}: not a digest: {str(value)[:60]}")
    return digest
