"""Sends what was cut off a log through a gateway again, as the clients who first sent it would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from replicad.core.entry import Entry
from replicad.errors import ReplicadError
from replicad.storage.lostfound import can_be_sent_again

_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.5
_UNSURE: Final = frozenset({429, 502, 503, 504})


class ResubmissionError(ReplicadError):
    """What became of an entry cannot be told, or it was refused. To begin again is safe."""


class Fate(Enum):
    """What has become of an entry that was cut off."""

    COMMITTED = "committed"
    """It was not in the log, and is now."""
    THERE = "already there"
    """Its request had been committed before."""
    DUPLICATE = "duplicate"
    """Another request has stored its key meanwhile."""
    MISSING = "in no log"
    """It is not committed, and was not sent."""
    LEFT = "not submitted again: it rests on what stood before"
    """It is not committed, and is no insert."""


@dataclass(frozen=True, slots=True)
class Told:
    """An entry's fate; `index` is where the log holds it, None if it does not."""

    entry: Entry
    fate: Fate
    index: int | None


async def look_up(gateway_url: str, entries: Iterable[Entry]) -> AsyncIterator[Told]:
    """Tell of each write among the entries whether it is committed.

    Raises:
        ResubmissionError: The gateway cannot tell.
    """
    async with aiohttp.ClientSession(gateway_url) as session:
        for entry in _writes(entries):
            index = await _committed_at(session, entry)
            yield Told(entry, Fate.MISSING if index is None else Fate.THERE, index)


async def resubmit(gateway_url: str, entries: Iterable[Entry]) -> AsyncIterator[Told]:
    """Send each insert among the entries with its own request id, so that none happens twice.

    Other writes are not sent: they would change what has changed since (`can_be_sent_again`).

    Raises:
        ResubmissionError: One was refused, or its outcome is unknown. Later ones were not sent.
    """
    async with aiohttp.ClientSession(gateway_url) as session:
        for entry in _writes(entries):
            index = await _committed_at(session, entry)
            if index is not None:
                yield Told(entry, Fate.THERE, index)
                continue
            if not can_be_sent_again(entry):
                yield Told(entry, Fate.LEFT, None)
                continue
            index = await _store(session, entry)
            yield Told(entry, Fate.DUPLICATE if index is None else Fate.COMMITTED, index)


def _writes(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Control entries are a leader's own; no client has sent them."""
    return (entry for entry in entries if entry.request is not None)


async def _committed_at(session: aiohttp.ClientSession, entry: Entry) -> int | None:
    path = f"/v1/requests/{quote(entry.request or '', safe='')}"
    status, _, body = await _ask(session, "GET", path)
    match body:
        case {"state": "committed", "index": int(index)} if status == 200:
            return index
        case {"state": "unknown"} if status == 404:
            return None
    raise ResubmissionError(f"the gateway answered {status} when asked for {entry.request}")


async def _store(session: aiohttp.ClientSession, entry: Entry) -> int | None:
    """The index at which it is stored; None when another request had stored its key."""
    status, headers, body = await _ask(
        session,
        "POST",
        f"/v1/collections/{entry.collection}/records",
        data=entry.value,
        headers={"Idempotency-Key": entry.request or "", "Content-Type": "application/json"},
    )
    if status in (200, 201):
        return int(headers["X-Replicad-Index"])
    if status == 409:
        return None
    raise ResubmissionError(
        f"entry {entry.index}, {entry.key}: the gateway answered {status} {body}"
    )


async def _ask(
    session: aiohttp.ClientSession,
    method: str,
    path: str,
    **arguments: Any,  # noqa: ANN401 - aiohttp's
) -> tuple[int, Mapping[str, str], Any]:
    """An answer that is one; a request that may or may not have been done is tried again."""
    trouble = "no attempt was made"
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
        try:
            async with session.request(method, path, **arguments) as answer:
                if answer.status not in _UNSURE:
                    body = (
                        await answer.json() if answer.content_type == "application/json" else None
                    )
                    return answer.status, answer.headers, body
                trouble = f"it answered {answer.status}"
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            trouble = str(error) or type(error).__name__
    raise ResubmissionError(f"the gateway does not help: {trouble}; the outcome is unknown")
