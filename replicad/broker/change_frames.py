"""Changes as AMQP carries them to other systems.

| property       | value                                                                   |
|----------------|-------------------------------------------------------------------------|
| `content-type` | application/json: the body is the change (docs/api.md, "Change feed")   |
| `headers`      | index, position, epoch: 64-bit integers; digest: in hex                 |
| `message-id`   | `<index>.<position>`                                                    |
| `type`         | change                                                                  |
| `app-id`       | the replica that publishes                                              |

They are persistent: a change is for whoever reads it some day.

Source: AMQP 0-9-1, 4.2.5.5 (tables), 4.2.6.1 (the header), class basic (properties); RabbitMQ's
errata (types of a table's fields: `l` is a signed integer of 64 bits, `S` a long string).
"""

from __future__ import annotations

import struct
from typing import Final

from pamqp.commands import Basic

from replicad.broker.frames import Publishing, short
from replicad.core.feed import LoggedChange

# Class, weight and length of the body.
_START: Final = struct.Struct(">HHQ")
# Which of the 14 properties follow.
_FLAGS: Final = struct.pack(">H", sum(0x8000 >> number for number in (0, 2, 3, 8, 10, 12)))
_CONTENT_TYPE: Final = short("application/json")
# The table's length, and of each field its name, its type and its value.
_TABLE: Final = struct.Struct(">I7sq10sq7sq12s64s")
_TABLE_BYTES: Final = _TABLE.size - 4
_INDEX, _POSITION, _EPOCH = b"\x05indexl", b"\x08positionl", b"\x05epochl"
_DIGEST: Final = b"\x06digestS\x00\x00\x00\x40"
_PERSISTENT: Final = b"\x02"
_TYPE: Final = short("change")


class ChangeProperties(Basic.Properties):
    """The properties of one change, for aiormq to publish."""

    def __init__(self, change: LoggedChange, node: str) -> None:
        """Published by `node`."""
        super().__init__(message_id=_message_id(change))
        self._marshalled = encode_properties(change, node)

    def marshal(self) -> bytes:
        """Their flags and values."""
        return self._marshalled


def routing_key_of(change: LoggedChange) -> str:
    """Where a change goes: other systems bind their queues to such keys, or to patterns."""
    return f"{change.collection}.{change.operation}"


def encode_properties(change: LoggedChange, node: str) -> bytes:
    """The flags and values of the properties of one change, published by `node`."""
    table = _TABLE.pack(
        _TABLE_BYTES,
        _INDEX,
        change.index,
        _POSITION,
        change.position,
        _EPOCH,
        change.epoch,
        _DIGEST,
        change.digest.encode(),
    )
    return b"".join(
        (
            _FLAGS,
            _CONTENT_TYPE,
            table,
            _PERSISTENT,
            short(_message_id(change)),
            _TYPE,
            short(node),
        )
    )


def encode_change(change: LoggedChange, node: str, publishing: Publishing) -> bytes:
    """All frames of one change, published by `node`."""
    body = change.encode()
    header = _START.pack(60, 0, len(body)) + encode_properties(change, node)
    return publishing.encode_parts(routing_key_of(change), header, body)


def _message_id(change: LoggedChange) -> str:
    return f"{change.index}.{change.position}"
