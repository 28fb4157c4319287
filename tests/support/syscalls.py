"""What processes ask of the kernel, in which order, as strace tells."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.faults.disks import traced
from tests.support.waiting import eventually

_WRITES: Final = "write,pwrite64,writev,pwritev,sendto,sendmsg"
_SYNCS: Final = "fsync,fdatasync,sync_file_range"
# Whole messages and entries.
_STRING_BYTES: Final = 1 << 20

_LINE: Final = re.compile(r"(?P<thread>\d+) +(?P<text>.*)")
_UNFINISHED: Final = re.compile(r"(?P<text>.*) <unfinished \.\.\.>")
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>(?P<text>.*)")
_CALL: Final = re.compile(r"(?P<name>\w+)\(\d+<(?P<file>[^>]*)>(?P<rest>.*)\) += (?P<result>-?\d+)")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Call:
    """One call that writes to a file or socket, or syncs a file.

    Attributes:
        thread: Whose. That of an event loop has its process's number.
        name: Such as `write`.
        file: Its path; `socket:[...]` for a socket.
        data: What was to be written.
        result: As the kernel returned it; negative after an error.
        began, ended: Positions in one order of all begins and ends, of all processes. What was
            caused by a call came after its begin, and what caused it came before its end.
    """

    thread: int
    name: str
    file: str
    data: bytes
    result: int
    began: int
    ended: int

    @property
    def syncs(self) -> bool:
        """Whether it made durable what had been written to the file."""
        return self.name in ("fsync", "fdatasync") and self.result == 0


@asynccontextmanager
async def tracing(pids: Iterable[int], output: Path) -> AsyncIterator[None]:
    """Let one strace note such calls of all threads of these processes in a file."""
    assert shutil.which("strace"), "install Debian's strace: make fault-tools"
    first, *others = pids
    more = [word for pid in others for word in ("-p", str(pid))]
    options = ("-y", "-s", str(_STRING_BYTES), "-e", f"trace={_WRITES},{_SYNCS}")
    async with traced(first, output, *more, *options):
        messages = output.with_suffix(".err")
        await eventually(lambda: messages.read_text().count(" attached") > len(others))
        yield


def calls(output: Path) -> list[Call]:
    """The calls in a file of strace's, in the order of their ends."""
    return list(_parse(output.read_text(errors="strict").splitlines()))


def _parse(lines: Iterable[str]) -> Iterator[Call]:
    unfinished: dict[str, tuple[int, str]] = {}
    for position, line in enumerate(lines):
        noted = _LINE.fullmatch(line)
        if noted is None:
            continue
        thread, text, began = noted["thread"], noted["text"], position
        if (cut := _UNFINISHED.fullmatch(text)) is not None:
            unfinished[thread] = position, cut["text"]
            continue
        if (resumed := _RESUMED.fullmatch(text)) is not None and thread in unfinished:
            began, start = unfinished.pop(thread)
            text = start + resumed["text"]
        call = _CALL.match(text)
        if call is not None:  # Else a signal, an end, or what was under way when it began.
            strings = map(_bytes, _STRING.findall(call["rest"]))
            data = b"".join(strings)
            name, file, result = call["name"], call["file"], int(call["result"])
            yield Call(int(thread), name, file, data, result, began, position)


def _bytes(literal: str) -> bytes:
    found: bytes = ast.literal_eval(f"b{literal}")  # C and Python escape bytes alike.
    return found
