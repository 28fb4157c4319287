"""The forms that every system stores, and the requests that carry them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, TypeAlias

ID_BYTES: Final = 12
"""Of every id. It consists of letters of base64's alphabet too, and as such decodes to 9 bytes."""
_TAG_BYTES: Final = 4
_KINDS: Final = 1_000

Template: TypeAlias = tuple[bytes, ...]
"""Pieces of something that is whole with an id between them."""


def record_id(tag: str, number: int) -> str:
    """An id as `requests.lua` makes it."""
    if len(tag) != _TAG_BYTES:
        raise ValueError(f"a tag has {_TAG_BYTES} characters: {tag!r}")
    return f"{tag}{number:08d}"


@cache
def forms() -> tuple[Template, ...]:
    """Some of the example forms, from all over the file, without their ids."""
    lines = files("replicad").joinpath("examples", "legisladores.ndjson").read_bytes().splitlines()
    found: list[Template] = []
    for line in lines[:: len(lines) // _KINDS][:_KINDS]:
        start, name, rest = line.partition(b'"id":"')
        found.append((start + name, rest[rest.index(b'"') :]))
    return tuple(found)


def form(tag: str, number: int) -> bytes:
    """One form, always the same for one id."""
    kinds = forms()
    return record_id(tag, number).encode().join(kinds[number % len(kinds)])


def request(
    method: str, host: str, path: Template, body: Template = (), kind: str = ""
) -> Template:
    """A whole HTTP request.

    Args:
        method: GET, PUT or POST.
        host: With its port.
        path: One piece, or more with an id between them; so is the body, unless there is none.
        kind: The body's media type.
    """
    size = sum(map(len, body)) + ID_BYTES * (len(body) - 1)
    fields = f"Content-Type: {kind}\r\nContent-Length: {size}\r\n" if body else ""
    lines = f" HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
    return glued(glued((f"{method} ".encode(),), path), glued((lines,), body))


def glued(before: Template, after: Template) -> Template:
    """One after the other, without an id between them."""
    return (*before[:-1], b"".join((*before[-1:], *after[:1])), *after[1:])


def prepared(requests: Iterable[Template]) -> bytes:
    """What `requests.lua` reads."""
    return b"".join(b"".join(piece + b"\x1f" for piece in each) + b"\x1e" for each in requests)
