"""A system that is compared with others."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import aiohttp

from tests.benchmarks.compare.forms import Template
from tests.benchmarks.system import BenchmarkError

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES: Final = 256 * 1024


class Startable(Protocol):
    """A system on loopback, made anew in an empty directory and ended with all its processes.

    Attributes:
        name: For tables.
    """

    name: str

    def up(self, directory: Path) -> None:
        """Start everything. Called outside of any event loop."""

    def down(self) -> None:
        """End everything. Called outside of any event loop."""


class Peer(Startable, Protocol):
    """One that a load generator is sent to.

    Attributes:
        url: Where requests go; known once it is up.
    """

    url: str

    def pids(self) -> dict[str, int]:
        """Its processes by what they do; each stands for its children as well."""

    def writes(self) -> list[Template]:
        """Requests that store a new form each."""


@runtime_checkable
class Loader(Peer, Protocol):
    """A system that stores many forms at once.

    Attributes:
        loads: The ways in which it does, for tables; the first is the one to compare.
    """

    loads: tuple[str, ...]

    async def load(
        self, session: aiohttp.ClientSession, way: str, tag: str, numbers: range
    ) -> float:
        """Store those with these numbers as fast as it goes; the seconds that took.

        Raises:
            BenchmarkError: Not all of them are stored.
        """


@runtime_checkable
class Store(Loader, Protocol):
    """A system that also gives them back."""

    def reads(self) -> dict[str, list[Template]]:
        """Requests that read one form by its id, by their consistency: `strong` and `local`."""


@dataclass(slots=True)
class Usage:
    """What the processes of a system take.

    Attributes:
        pids: By what they do.
        began: Seconds of processor time that each had had when this was made.
    """

    pids: dict[str, int]
    began: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Begin to measure."""
        self.began = self._cpu_s()

    def cpu_s(self) -> dict[str, float]:
        """Seconds of processor time since then."""
        return {name: now - self.began[name] for name, now in self._cpu_s().items()}

    def memory_mib(self) -> dict[str, float]:
        """Resident memory; pages that children share count once for each."""
        trees = _trees(self.pids)
        return {
            name: sum(_resident_bytes(pid) for pid in tree) / 2**20 for name, tree in trees.items()
        }

    def _cpu_s(self) -> dict[str, float]:
        trees = _trees(self.pids)
        return {
            # With what children had that have ended.
            name: sum(sum(map(int, _stat(pid)[11:15])) for pid in tree) / _TICKS_PER_S
            for name, tree in trees.items()
        }


def _trees(roots: dict[str, int]) -> dict[str, list[int]]:
    """Each process with all its descendants."""
    children: dict[int, list[int]] = {}
    for pid in (int(each) for each in os.listdir("/proc") if each.isdigit()):
        fields = _stat(pid)
        if fields:
            children.setdefault(int(fields[1]), []).append(pid)
    found = {}
    for name, root in roots.items():
        tree = [root]
        for pid in tree:
            tree += children.get(pid, ())
        found[name] = tree
    return found


def _stat(pid: int) -> list[str]:
    """The fields from the state on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _resident_bytes(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * _PAGE_BYTES if fields else 0


async def stream(
    session: aiohttp.ClientSession, url: str, lines: Iterable[bytes]
) -> tuple[float, bytes]:
    """POST lines of NDJSON; the seconds that took, and the last line of the answer.

    Raises:
        BenchmarkError: The answer is not 200.
    """
    text = b"".join(lines)
    blocks = [text[at : at + _BLOCK_BYTES] for at in range(0, len(text), _BLOCK_BYTES)]
    headers = {"Content-Type": "application/x-ndjson"}
    began = time.perf_counter()
    last = b""
    async with session.post(url, data=_each(blocks), headers=headers) as answer:
        async for chunk in answer.content.iter_any():
            last = (last + chunk)[-1_000:]
    seconds = time.perf_counter() - began
    if answer.status != 200:
        raise BenchmarkError(f"{url}: {answer.status} {last.decode()}")
    return seconds, last.splitlines()[-1]


async def _each(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
