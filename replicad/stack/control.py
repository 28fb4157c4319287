"""How commands reach the one process of an embedded stack: a Unix socket in DIR.

One connection carries one request and one answer, each a line of JSON. The socket's directory and
mode (0700, 0600) keep other users out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import orjson

from replicad.errors import StackError

_NAME: Final = "control.sock"
_TIMEOUT_S: Final = 60.0

Verb = Literal["start", "stop", "crash", "init", "status"]


@dataclass(frozen=True, slots=True)
class Request:
    """What the process is asked to do; `name` is a replica or a gateway, or "" for all."""

    verb: Verb
    name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What runs now, and what went wrong with the request, if anything."""

    running: tuple[str, ...]
    error: str | None = None


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    # A socket's path is limited to 107 bytes and DIR is not; through /proc every path is short.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)


def bind(directory: Path) -> socket.socket:
    """The process's end, in place of one that a dead process left."""
    (directory / _NAME).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with _short_path(directory) as path:
        listener.bind(path)
        os.chmod(path, 0o600)
    return listener


def ask(directory: Path, request: Request) -> Answer:
    """Send one request and wait for its answer.

    Raises:
        StackError: The process does not answer, or could not do what was asked.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection, _short_path(directory) as path:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            connection.sendall(orjson.dumps(request) + b"\n")
            with connection.makefile("rb") as lines:
                fields = orjson.loads(lines.readline())
    except (OSError, ValueError) as error:
        raise StackError(f"the embedded stack does not answer: {error}") from error
    answer = Answer(tuple(fields["running"]), fields["error"])
    if answer.error is not None:
        raise StackError(answer.error)
    return answer
