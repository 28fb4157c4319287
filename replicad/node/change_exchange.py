"""Publishes committed changes to other systems, for as long as this replica leads.

It runs beside replication and is never waited for: it reads from the log what the broker has not
got yet, hands over what has come together meanwhile, and goes on when that is confirmed. How far it
got is noted in the coordinator now and then, where the next leader goes on; so each change is
published at least once, and some again after a failover.

Source: docs/operations.md, "Changes for other systems".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from replicad.broker.port import Broker
from replicad.coordination.port import Coordinator, View
from replicad.core.effects import Level
from replicad.core.feed import Cursor
from replicad.core.messages import Point
from replicad.errors import (
    BrokerError,
    CoordinationError,
    CorruptLogError,
    DiskFailedError,
    LogFrontGoneError,
)
from replicad.node.driver import Driver
from replicad.node.feed import Page, read_page
from replicad.node.synclog import SyncLog

# The more together, the fewer questions the broker is asked. After a failure fewer, doubled each
# time that it goes well: who gets them while another one cannot is to get few of them again.
_TOGETHER_MAX: Final = 4096
_TOGETHER_AFTER_FAILURE: Final = 32
# What they learn of whether anybody listens spares most of the others.
_ASKING: Final = 32
# While changes come together for the next time. A pause that ends late shows that there is other
# work, which gets this many times as long.
_PAUSE_S: Final = 0.1
_YIELDED: Final = 20
_YIELDED_S_MAX: Final = 0.2
_NOTE_INTERVAL_S: Final = 1.0
_RETRY_S: Final = 0.5


class ChangeExchange:
    """Publishes the changes of one running replica's log while it leads."""

    def __init__(
        self,
        driver: Driver,
        broker: Broker,
        coordinator: Coordinator,
        view: Callable[[], View | None],
        sync_log: SyncLog,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Publish what `driver` commits; `view` gives the coordinator's last View."""
        self._driver = driver
        self._broker = broker
        self._coordinator = coordinator
        self._view = view
        self._sync_log = sync_log
        self._log = log
        self._at: Cursor | None = None
        self._together = _TOGETHER_MAX
        self._reported = ""
        Gauge(
            "replicad_changes_unpublished_entries",
            "At the leader: committed entries whose changes are not published yet.",
            registry=driver.metrics.registry,
        ).set_function(self.behind)
        self._published = Counter(
            "replicad_changes_published",
            "Changes that went to the broker, those included that led to no queue.",
            registry=driver.metrics.registry,
        )

    def behind(self) -> int:
        """How many committed entries are not published; 0 unless this replica publishes."""
        at = self._at
        return 0 if at is None else max(0, self._driver.store.records.applied.index - at.index)

    async def run(self) -> None:
        """Publish whenever this replica leads, until it stops."""
        while not self._driver.stopped:
            epoch = self._driver.epoch
            if not self._driver.leads_in(epoch):
                self._at = None
                await asyncio.sleep(_PAUSE_S)  # To be woken by all that is applied costs too much.
                continue
            try:
                # As a task: a group that fails may leave its task marked as cancelled.
                await asyncio.create_task(self._lead(epoch), name="changes of a lead")
            except* (BrokerError, CoordinationError) as group:
                self._report(group)
                self._together = _TOGETHER_AFTER_FAILURE
                await asyncio.sleep(_RETRY_S)
            except* (CorruptLogError, DiskFailedError):
                pass  # The reader has ended this replica.

    async def _lead(self, epoch: int) -> None:
        async with asyncio.TaskGroup() as group:
            at = self._at or await self._resume(epoch)
            noting = group.create_task(self._keep_noting(epoch))
            await self._publish(epoch, at)
            noting.cancel()

    async def _resume(self, epoch: int) -> Cursor:
        """Where the leader before got to, as soon as that is committed here, too."""
        log, noted = self._driver.store.log, await self._coordinator.published()
        if noted is None:
            return Cursor(0)
        while self._driver.leads_in(epoch) and self._applied < noted.index:
            await self._driver.applied.wait(_RETRY_S)
        if noted.index < log.base.index or self._applied < noted.index or log.holds(noted):
            return Cursor(noted.index)
        # Entries were given up by an operator's recovery, and others written in their place.
        self._sync_log.write(
            Level.ERROR,
            "published changes are not in the log, publishing all of it",
            {"index": noted.index, "digest": noted.digest.hex()},
        )
        return Cursor(log.base.index)

    @property
    def _applied(self) -> int:
        return self._driver.store.records.applied.index

    async def _publish(self, epoch: int, at: Cursor) -> None:
        """Publish everything after `at`, as it is committed, for as long as this replica leads."""
        self._at = at
        while self._driver.leads_in(epoch):
            if self._at.next_entry > self._applied:
                await self._driver.applied.wait(_RETRY_S)
                continue
            try:
                await self._publish_upto(self._applied, self._at)
            except LogFrontGoneError:
                self._skip_front(self._at)
                continue
            await _give_way()

    async def _publish_upto(self, upto: int, at: Cursor) -> None:
        """Publish some of what follows `at`, up to the entry `upto`.

        All of that is committed before the first of it asks whether it is wanted. So of what
        nobody wants then, nobody is owed anything in the rest.
        """
        asking = Page(at, min(_ASKING, self._together), None, upto)
        unwanted = await self._publish_page(asking)
        await self._publish_page(Page(asking.next, self._together, None, upto, unwanted))

    async def _publish_page(self, page: Page) -> frozenset[str]:
        """Publish what the page takes, and tell what nobody wants."""
        await read_page(self._driver, page)
        unwanted: frozenset[str] = frozenset()
        if page.changes:
            published, unwanted = await self._broker.publish(page.changes)
            self._published.inc(published)
            self._together = min(2 * self._together, _TOGETHER_MAX)
        self._at, self._reported = page.next, ""
        return unwanted

    def _skip_front(self, at: Cursor) -> None:
        base = self._driver.store.log.base.index
        self._sync_log.write(
            Level.ERROR,
            "changes never published, the log was dropped before",
            {"first": at.next_entry, "last": base},
        )
        self._at = Cursor(base)

    async def _keep_noting(self, epoch: int) -> None:
        noted = 0
        while True:
            await asyncio.sleep(_NOTE_INTERVAL_S)
            done, view = self._done(), self._view()
            if done is None or done.index <= noted or view is None or view.state is None:
                continue
            if view.state.epoch != epoch:
                continue  # Whoever leads now notes where it is itself.
            try:
                if await self._coordinator.note_published(done, view.version):
                    noted = done.index
            except CoordinationError as error:
                self._log.info("published changes not noted", reason=str(error))

    def _done(self) -> Point | None:
        """The last entry that is published as a whole; None if there is none in the log."""
        if self._at is None:
            return None
        index = self._at.next_entry - 1
        log = self._driver.store.log
        return log.point(index) if max(1, log.base.index) <= index <= log.last else None

    def _report(self, group: ExceptionGroup[BrokerError | CoordinationError]) -> None:
        # Retries go on for as long as the servers are away; only a new reason is news.
        reason = "; ".join(str(error) for error in group.exceptions)
        if reason != self._reported:
            self._reported = reason
            self._log.warning("changes not published", reason=reason)


async def _give_way() -> None:
    clock = asyncio.get_running_loop().time
    before = clock()
    await asyncio.sleep(_PAUSE_S)
    late_s = clock() - before - _PAUSE_S
    await asyncio.sleep(min(_YIELDED * late_s, _YIELDED_S_MAX))
