"""Makes indexes in the background, a little at a time, while everything else goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from replicad.errors import DiskFullError, RecordsDamagedError
from replicad.node.store import Store

# Of one step, during which nothing else happens. It may take longer, where the disk does; so the
# pause after it is told by how long it took: a third of the time is spent at most.
_STEP_S: Final = 0.004
_PAUSES: Final = 2.0
_LOOK_INTERVAL_S: Final = 0.1
_NO_ROOM_S: Final = 1.0


class Indexing:
    """The work on the indexes of one running replica."""

    def __init__(
        self, store: Store, may_write: Callable[[], bool], rebuild: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            store: Whose records are indexed.
            may_write: Whether the disk has room for more than what must be kept.
            rebuild: Makes the record store anew, once it was found damaged.
        """
        self._store = store
        self._may_write = may_write
        self._rebuild = rebuild

    async def run(self) -> None:
        """Work whenever there is something to do, for ever.

        Raises:
            DiskFailedError: The disk does not do its work.
            ReplicadError: The record store was damaged, and cannot be made anew now.
        """
        while True:
            if not self._store.records.indexes.unfinished:
                await asyncio.sleep(_LOOK_INTERVAL_S)
                continue
            began = time.monotonic()
            if self._may_write() and self._step():
                await asyncio.sleep(_PAUSES * (time.monotonic() - began))
            else:
                await asyncio.sleep(_NO_ROOM_S)

    def _step(self) -> bool:
        """Go on a little; False if there was no room for it."""
        records = self._store.records
        try:
            with records.transaction():
                records.indexes.work(_STEP_S)
        except DiskFullError:
            return False
        except RecordsDamagedError:
            self._rebuild()
        return True
