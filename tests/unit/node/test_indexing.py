"""The work on indexes goes on beside everything else, and waits for room on the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from replicad.errors import DiskFullError, RecordsDamagedError
from replicad.node import indexing as module
from replicad.node.indexing import Indexing
from replicad.node.store import Store
from replicad.storage.indexes import Indexes
from tests.support.record_stores import FilledRecords
from tests.support.waiting import eventually


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledRecords]:
    """Records of which no index is made yet."""
    with FilledRecords.open(tmp_path) as opened:
        opened.write({f"k{n}": {"id": f"k{n}", "a": n} for n in range(300)})
        opened.define(indexes=["a"])
        yield opened


class Background:
    """The work, as a task."""

    def __init__(self, filled: FilledRecords) -> None:
        self.filled = filled
        self.room = True
        self.rebuilt = 0
        store = cast(Store, filled)  # It has the records, and nothing else is asked of it.
        indexing = Indexing(store, lambda: self.room, self._rebuild)
        self.task = asyncio.create_task(indexing.run())

    def _rebuild(self) -> None:
        self.rebuilt += 1

    @property
    def unfinished(self) -> bool:
        return self.filled.records.indexes.unfinished

    async def end(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def test_indexes_are_made_whenever_they_are_defined(filled: FilledRecords) -> None:
    work = Background(filled)
    await eventually(lambda: not work.unfinished)
    filled.define(indexes=["a", "b"], search=["c"])
    await eventually(lambda: not work.unfinished)
    await work.end()


async def test_without_room_nothing_is_made(
    filled: FilledRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NO_ROOM_S", 0.01)
    work = Background(filled)
    work.room = False
    asked = []
    monkeypatch.setattr(Indexes, "work", lambda *_: asked.append(1))
    await asyncio.wait({work.task}, timeout=0.1)
    assert not asked
    work.room = True
    await eventually(lambda: bool(asked))
    await work.end()


@pytest.mark.parametrize("error", [DiskFullError("full"), RecordsDamagedError("damaged")])
async def test_trouble_is_survived(
    filled: FilledRecords, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "_NO_ROOM_S", 0.01)
    works, errors = Indexes.work, [error]

    def fail(self: Indexes, seconds: float) -> None:
        if errors:
            raise errors.pop()
        works(self, seconds)

    monkeypatch.setattr(Indexes, "work", fail)
    work = Background(filled)
    await eventually(lambda: not work.unfinished)
    assert work.rebuilt == isinstance(error, RecordsDamagedError)
    await work.end()
