"""Merge patches, applied to the bytes: what a patch does not name stays as it was stored. Pure.

Source: RFC 7396.
"""

from __future__ import annotations

import orjson

from api_gateway.records.strict_json import members_of


def merge(target: bytes | None, patch: bytes) -> bytes:
    """Apply a patch.

    Args:
        target: A JSON value without white space, or None when there is none.
        patch: The patch, likewise.

    Returns:
        The patched value, likewise. Members keep their places; new ones stand at the end.
    """
    if not patch.startswith(b"{"):
        return patch
    members: dict[str, tuple[bytes, bytes]] = {}
    if target is not None and target.startswith(b"{"):
        members = {orjson.loads(name): (name, value) for name, value in members_of(target)}
    for name, value in members_of(patch):
        field = orjson.loads(name)
        if value == b"null":
            members.pop(field, None)
        else:
            name, before = members.get(field, (name, None))
            members[field] = (name, merge(before, value))
    return b"{%b}" % b",".join(b"%b:%b" % member for member in members.values())
