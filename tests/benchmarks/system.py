"""A system under measurement: three replicas that survive the loss of one."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

ANSWER_S = 5.0
"""For questions to a server that is well."""


class BenchmarkError(Exception):
    """A measurement could not be made, or means nothing. The message says why."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write as a client sends it: a POST that succeeds with 200, and may be sent again."""

    path: str
    body: bytes
    headers: dict[str, str]


class System(Protocol):
    """A cluster on loopback, made anew in an empty directory and ended with all its processes.

    Attributes:
        name: For tables.
        names: The replicas.
        endpoints: Base URLs that a client is given; any of them takes any write.
        attempt_s: After this long a client gives up an attempt and tries the next endpoint.
    """

    name: str
    names: tuple[str, ...]
    endpoints: tuple[str, ...]
    attempt_s: float

    def up(self, directory: Path) -> None:
        """Start everything in an empty directory. Called outside of any event loop."""

    def down(self) -> None:
        """End everything. Called outside of any event loop."""

    def write(self, key: str, form: bytes) -> Write:
        """The request that stores one form."""

    async def leader(self, session: aiohttp.ClientSession) -> str:
        """The name of the replica that leads now."""

    async def is_level(self, session: aiohttp.ClientSession) -> bool:
        """Whether all replicas are there, in sync, and hold the same."""

    async def keys(self, session: aiohttp.ClientSession) -> set[str]:
        """Every key that is stored wherever it should be."""

    async def stop(self, name: str, number: signal.Signals) -> None:
        """End one replica's process, and wait for its end."""

    async def start(self, name: str) -> None:
        """Start it again."""

    async def transfer(self, session: aiohttp.ClientSession, target: str) -> None:
        """Move the leadership to another replica, on request."""


async def ask(session: aiohttp.ClientSession, url: str, body: object = None) -> dict[str, object]:
    """One JSON object from a server: GET, or POST of a body.

    Raises:
        BenchmarkError: The server answered something else than 200.
        OSError, aiohttp.ClientError, TimeoutError: It did not answer.
    """
    method = "GET" if body is None else "POST"
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with session.request(method, url, json=body, timeout=timeout) as answer:
        if answer.status != 200:
            raise BenchmarkError(f"{url}: {answer.status} {(await answer.text())[:300]}")
        found: dict[str, object] = await answer.json()
        return found
