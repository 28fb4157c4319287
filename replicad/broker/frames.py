"""Messages of replicas as frames of AMQP 0-9-1, and back.

A message is a method frame (Basic.Publish to the broker, Basic.Deliver from it), a header frame
with the length of the body and the properties, and body frames, none if the body is empty. Here
are only these; aiormq does whatever else a connection needs.

Source: AMQP 0-9-1, sections 2.3.5 and 4.2.3 (frames), 4.2.5 (fields), 4.2.6 (content); class basic
(60) with its methods publish (40) and deliver (60) and its 14 properties.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

# Type, channel and length of the payload, which is followed by the octet of _END.
_FRAME: Final = struct.Struct(">BHI")
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END: Final = 0xCE
_FRAMING_BYTES: Final = _FRAME.size + 1
HEARTBEAT: Final = _FRAME.pack(_HEARTBEAT, 0, 0) + bytes([_END])

_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
_DELIVER: Final = struct.pack(">HH", 60, 60)
# Class, weight, length of the body, and flags: which properties follow.
_CONTENT: Final = struct.Struct(">HHQH")
_BODY_BYTES: Final = struct.Struct(">4xQ")
_LENGTH: Final = struct.Struct(">I")
# What a table holds of the one header that a replica writes, before its value's length.
_FIELDS: Final = b"\x06fieldsS"
# Transient: what is lost is sent again from the log, and must not wait for the broker's disk.
_TRANSIENT: Final = b"\x01"

# The properties in the order of their flags, from the highest bit on: short strings, but for the
# headers, a table, and three of fixed size (delivery-mode, priority, timestamp).
_CONTENT_TYPE, _HEADERS, _MESSAGE_ID, _TYPE, _APP_ID = 0, 2, 8, 10, 12
_TABLE: Final = 0
_SIZES: Final = {_HEADERS: _TABLE, 3: 1, 4: 1, 9: 8}
_PLAIN: Final = sum(0x8000 >> n for n in (_CONTENT_TYPE, 3, _MESSAGE_ID, _TYPE, _APP_ID))
_WITH_FIELDS: Final = _PLAIN | 0x8000 >> _HEADERS


class Content(NamedTuple):
    """One message as AMQP carries it.

    Attributes:
        type: Property `type`. Empty in what arrived and cannot be read.
        content_type: Property `content-type`.
        fields: The header `fields`, JSON; empty if there is none.
        body: The body.
        message_id: Property `message-id`.
        app_id: Property `app-id`: the sender.
    """

    type: str
    content_type: str
    fields: bytes
    body: bytes
    message_id: str = ""
    app_id: str = ""


class Publishing:
    """Makes the frames that publish messages on one channel to one exchange."""

    def __init__(self, channel: int, exchange: str, frame_bytes_max: int) -> None:
        """Take over what was negotiated with the broker; the names have at most 255 bytes."""
        self._channel = channel
        self._exchange = exchange
        self._body_bytes_max = frame_bytes_max - _FRAMING_BYTES
        self._methods: dict[str, bytes] = {}

    def encode(self, routing_key: str, content: Content) -> bytes:
        """All frames of one message."""
        return self.encode_parts(routing_key, _header(content), content.body)

    def encode_parts(self, routing_key: str, header: bytes, body: bytes) -> bytes:
        """All frames of one message, given its header frame's payload; for few routing keys."""
        method = self._methods.get(routing_key)
        if method is None:
            payload = b"".join((_PUBLISH, short(self._exchange), short(routing_key), b"\x00"))
            method = self._methods[routing_key] = b"".join(self._frame(_METHOD, payload))
        most = self._body_bytes_max
        frames = self._frame(_HEADER, header)
        for at in range(0, len(body), most):
            frames += self._frame(_BODY, body[at : at + most])
        return b"".join((method, *frames))

    def _frame(self, kind: int, payload: bytes) -> tuple[bytes, ...]:
        return _FRAME.pack(kind, self._channel, len(payload)), payload, b"\xce"


class Deliveries:
    """Takes the messages out of the bytes of a connection whose only contents are deliveries."""

    def __init__(self) -> None:
        """Begin where a frame begins."""
        self._rest = b""
        self._header = b""
        self._parts: list[bytes] = []
        self._missing_bytes = -1  # Of a body; below 0 while there is none.

    def take(self, data: bytes) -> tuple[list[Content], bytes]:
        """The messages that are complete now, and all bytes that belong to no delivery.

        What is no frame at all is among those bytes: it is not for us to complain about it.
        """
        if self._rest:
            data = self._rest + data
        taken: list[Content] = []
        others: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _FRAMING_BYTES:
            kind, _, size = _FRAME.unpack_from(data, at)
            start = at + _FRAME.size
            stop = start + size
            if stop >= end:
                break
            if data[stop] != _END:
                others.append(data[at:])
                at = end
                break
            if kind == _HEADER:
                self._header, self._parts = data[start:stop], []
                (self._missing_bytes,) = _BODY_BYTES.unpack_from(data, start)
            elif kind == _BODY:
                self._parts.append(data[start:stop])
                self._missing_bytes -= size
            elif kind != _METHOD or not data.startswith(_DELIVER, start):
                others.append(data[at : stop + 1])
            at = stop + 1
            if self._missing_bytes == 0:
                self._missing_bytes = -1
                taken.append(_read(self._header, b"".join(self._parts)))
        self._rest = data[at:]
        return taken, b"".join(others)


def short(text: str) -> bytes:
    """A short string, of at most 255 bytes."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


# Of what is the same in many messages.
_repeated = lru_cache(maxsize=256)(short)


def _header(content: Content) -> bytes:
    fields = content.fields
    table = b""
    if fields:
        length = len(_FIELDS) + _LENGTH.size + len(fields)
        table = b"%b%b%b%b" % (_LENGTH.pack(length), _FIELDS, _LENGTH.pack(len(fields)), fields)
    return b"".join(
        (
            _CONTENT.pack(60, 0, len(content.body), _WITH_FIELDS if fields else _PLAIN),
            _repeated(content.content_type),
            table,
            _TRANSIENT,
            short(content.message_id),
            _repeated(content.type),
            _repeated(content.app_id),
        )
    )


def _read(header: bytes, body: bytes) -> Content:
    try:
        found = _read_properties(header)
        return Content(
            type=found.get(_TYPE, b"").decode(),
            content_type=found.get(_CONTENT_TYPE, b"").decode(),
            fields=_find_fields(found[_HEADERS]) if _HEADERS in found else b"",
            body=body,
            message_id=found.get(_MESSAGE_ID, b"").decode(),
            app_id=found.get(_APP_ID, b"").decode(),
        )
    except (ValueError, IndexError, struct.error):
        return Content("", "", b"", body)


def _read_properties(header: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = _CONTENT.size
    for number, size in _properties_of(header[at - 2 : at]):
        if size is None:
            size = header[at]
            at += 1
        elif size == _TABLE:
            (size,) = _LENGTH.unpack_from(header, at)
            at += _LENGTH.size
        found[number] = header[at : at + size]
        at += size
    return found


@lru_cache(maxsize=256)
def _properties_of(flags: bytes) -> tuple[tuple[int, int | None], ...]:
    """The properties that follow, each with its size, None if it is a string."""
    present = int.from_bytes(flags)
    return tuple((number, _SIZES.get(number)) for number in range(14) if present & 0x8000 >> number)


def _find_fields(table: bytes) -> bytes:
    # Searched for, not walked to: somebody between us may have put headers of his own before it.
    at = table.find(_FIELDS)
    if at < 0:
        return b""
    at += len(_FIELDS)
    (length,) = _LENGTH.unpack_from(table, at)
    return table[at + _LENGTH.size : at + _LENGTH.size + length]
