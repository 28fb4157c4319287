"""What a replica knows of the past: who led, since when and why, and what it cut off its log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from replicad.core.entry import Entry, decode_entry, verify_line
from replicad.errors import CorruptLogError, MalformedEntryError
from replicad.node.driver import Driver
from replicad.node.gates import Json, refusal
from replicad.storage.lostfound import list_kept

_EPOCHS_MAX: Final = 100


def entry_at(driver: Driver, index: int) -> Entry:
    """Read one entry back from the log, which must hold it.

    Raises:
        HTTPServiceUnavailable: It is damaged on the disk: this replica ends, to be repaired.
    """
    log = driver.store.log
    try:
        line = driver.store.read(index, 1)[:-1]
        if verify_line(line, log.digest_at(index - 1)) == log.digest_at(index):
            return decode_entry(line)
    except (CorruptLogError, MalformedEntryError):
        pass  # The same as another digest.
    damage = CorruptLogError(f"entry {index} is not on the disk as it was written")
    driver.fail(damage)
    raise refusal(web.HTTPServiceUnavailable, {"error": str(damage)})


async def describe_history(driver: Driver | None, data_dir: Path) -> Json:
    """The newest committed beginnings of epochs, and all that is kept in lost+found.

    Returns:
        `epochs`, newest first: `epoch`, `index` and `time` of the entry that opened each, and the
        members of its value. `kept`: `epoch` in which each file was cut, its `first` index and
        its number of `entries`. See docs/protocol.md, "Gateway and leader".
    """
    kept = await asyncio.to_thread(list_kept, data_dir)
    return {
        "epochs": [] if driver is None or driver.stopped else _openings(driver),
        "kept": [{"epoch": k.epoch, "first": k.first, "entries": k.entries} for k in kept],
    }


def _openings(driver: Driver) -> list[Json]:
    store = driver.store
    committed = store.records.applied.index
    starts = [start for start in store.log.epoch_starts if start.first <= committed]
    openings: list[Json] = []
    for start in reversed(starts[-_EPOCHS_MAX:]):
        entry = entry_at(driver, start.first)
        openings.append(
            {
                **orjson.loads(entry.value),
                "epoch": entry.epoch,
                "index": entry.index,
                "time": entry.time,
            }
        )
    return openings
