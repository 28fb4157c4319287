"""Steps the core and runs its effects. Decides nothing.

Everything happens on the event loop's thread: an event is stepped, its effects are run in order to
the end, then the next event is taken. What takes time (the coordinator) runs as a task and comes
back as an event.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Final, assert_never

import structlog

from replicad.broker.port import Broker
from replicad.coordination.port import Coordinator
from replicad.core.effects import (
    AnswerRead,
    AnswerTransfer,
    AnswerWrites,
    AppendLines,
    Apply,
    Channel,
    Effect,
    FetchSnapshot,
    Halt,
    HandingOver,
    InstallSnapshot,
    Left,
    PersistEpoch,
    Probe,
    Propose,
    ReadState,
    Report,
    RoleChanged,
    Send,
    SendFromLog,
    SyncLog,
    TruncateLog,
)
from replicad.core.events import (
    AppendFailed,
    DiskChanged,
    Event,
    LogSynced,
    Outcome,
    ProbeFinished,
    ProposalFinished,
    ReadArrived,
    ReadFinished,
    SnapshotFetched,
    SnapshotInstalled,
    StopAsked,
    Tick,
    TransferAsked,
    WritesArrived,
)
from replicad.core.messages import Message
from replicad.core.replica import Replica, Status
from replicad.core.write import WriteRequest
from replicad.errors import (
    CoordinationError,
    DiskFullError,
    ProtocolViolationError,
    RecordsDamagedError,
    ReplicadError,
)
from replicad.node.indexing import Indexing
from replicad.node.metrics import DriverMetrics, ScrubMetrics
from replicad.node.news import News
from replicad.node.query_pool import QueryPool
from replicad.node.scrub import Scrub
from replicad.node.store import Store
from replicad.node.synclog import SyncLog as SyncLogFile
from replicad.node.upkeep import Upkeep

# Well below the silence after which a replica is looked for.
TICK_S: Final = 0.02
# With less room than this, entries are refused; what is left lets the record store, epochs and
# marks be written, so that reads and elections go on.
RESERVE_BYTES: Final = 96 * 1024 * 1024
_MARK_INTERVAL_S: Final = 1.0
# Of the event loop, until an answer is with the kernel: the handler's task, the transport's buffer.
_TURNS_TO_ANSWER: Final = 2


_Awaited = (
    asyncio.Future[AnswerWrites] | asyncio.Future[AnswerRead] | asyncio.Future[AnswerTransfer]
)


@dataclass(frozen=True, slots=True)
class _Forwarded:
    """Writes that are looked up when their turn comes, in the state as it is then."""

    token: int
    epoch: int
    writes: tuple[WriteRequest, ...]


class Driver:
    """Runs one core for the life of one process.

    Attributes:
        applied: Told whenever more of the log was applied, and when nothing more will be.
    """

    def __init__(
        self,
        replica: Replica,
        store: Store,
        upkeep: Upkeep,
        broker: Broker,
        coordinator: Coordinator,
        sync_log: SyncLogFile,
        log: structlog.typing.FilteringBoundLogger,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Run `replica` on these adapters.

        Args:
            replica: The core.
            store: What the core believes to be on disk.
            upkeep: Of the same store.
            broker: Started by the caller, which feeds what it delivers.
            coordinator: Started by the caller, which feeds its views.
            sync_log: For the operator.
            log: The daemon's log, bound to the replica's name.
            on_failure: Called once with whatever makes it impossible to go on.
        """
        self._replica = replica
        self.store = store
        self.applied = News()
        self.metrics = DriverMetrics()
        self.scrub = Scrub(store, upkeep, sync_log, ScrubMetrics(self.metrics.registry))
        self.upkeep = upkeep
        self.queries = QueryPool(store)
        self._broker = broker
        self._coordinator = coordinator
        self._sync_log = sync_log
        self._log = log
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event | _Forwarded] = deque()
        self._stepping = False
        self._stopped = False
        self._sync_planned = False
        self._apply_to: int | None = None
        self._disk_writable = True
        self._marked_at = time.monotonic()
        self._tokens = 0
        self._answers: dict[int, _Awaited] = {}
        self._left: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer = self._loop.call_soon(self._tick)
        self._spawn(upkeep.run())
        self._spawn(self.scrub.run())
        self._spawn(Indexing(store, lambda: self._disk_writable, self.rebuild_records).run())

    # -- what there is to know ----------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether nothing is stepped any more."""
        return self._stopped

    @property
    def epoch(self) -> int:
        """The highest epoch persisted."""
        return self._replica.epoch

    @property
    def incarnation(self) -> str:
        """This run of the process."""
        return self._replica.incarnation

    @property
    def min_in_sync(self) -> int:
        """The cluster's setting."""
        return self._replica.min_in_sync

    def leads_in(self, epoch: int) -> bool:
        """Whether this replica believes to lead in `epoch`."""
        return self._replica.leads and self._replica.epoch == epoch and not self._stopped

    def status(self) -> Status:
        """What the core tells about itself."""
        self.apply_due()
        return self._replica.status(time.monotonic())

    # -- what comes in ------------------------------------------------------------------------

    def feed(self, event: Event | _Forwarded) -> None:
        """Step an event now, or after those that wait already."""
        if self._stopped:
            return
        self._events.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events and not self._stopped:
                self._step(self._events.popleft())
        except BaseException as error:
            # Whatever it was, effects of a step are missing: the core must not go on.
            self.fail(error)
            if not isinstance(error, ReplicadError | OSError):
                raise  # A defect: let it be seen.
        finally:
            self._stepping = False

    async def write(self, epoch: int, writes: tuple[WriteRequest, ...]) -> AnswerWrites:
        """Hand writes to the core; returns when all of them are decided."""
        future: asyncio.Future[AnswerWrites] = self._loop.create_future()
        token = self._expect(future)
        self.feed(_Forwarded(token, epoch, writes))
        return await future

    async def read(self, epoch: int) -> bool:
        """Ask for a strong read; True when the record store may be read now."""
        future: asyncio.Future[AnswerRead] = self._loop.create_future()
        token = self._expect(future)
        self.feed(ReadArrived(token, epoch))
        return (await future).confirmed

    async def transfer(self, to: str | None) -> AnswerTransfer:
        """Ask for another leader; returns when there is one, or not."""
        future: asyncio.Future[AnswerTransfer] = self._loop.create_future()
        self.feed(TransferAsked(self._expect(future), to))
        return await future

    async def leave(self) -> None:
        """Hand over, if this replica leads, and return when nobody waits for it any more."""
        self.feed(StopAsked())
        if not self._stopped:
            await self._left

    async def stop(self) -> None:
        """Step nothing more; wait for what is under way."""
        self.abandon()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.queries.stop()

    def abandon(self) -> None:
        """Step nothing more, at once."""
        self._stopped = True
        self._timer.cancel()
        self._events.clear()
        for future in self._answers.values():
            future.cancel()
        self._answers.clear()
        self.applied.tell()
        self._note_left()

    def rebuild_records(self) -> None:
        """The record store was found damaged while it was read.

        Raises:
            ReplicadError, OSError: It cannot be made anew now; this run has ended.
        """
        self._log.error("record store damaged, rebuilding it from the log")
        try:
            self.store.rebuild(self.store.records.applied.index)
        except (ReplicadError, OSError) as error:
            self.fail(error)  # At once: what is half made must not be read.
            raise

    # -- the loop -----------------------------------------------------------------------------

    def _expect(self, future: _Awaited) -> int:
        if self._stopped:
            raise asyncio.CancelledError  # As for those who waited when it stopped.
        self._tokens += 1
        self._answers[self._tokens] = future
        return self._tokens

    def _step(self, event: Event | _Forwarded) -> None:
        if isinstance(event, _Forwarded):
            event = self._look_up(event)
        now = time.monotonic()
        effects = self._replica.step(event, now=now, unix_ms=time.time_ns() // 1_000_000)
        for effect in effects:
            try:
                self._run(effect)
            except DiskFullError as error:
                if not isinstance(effect, AppendLines):
                    raise
                self._log.error("disk full", error=str(error))
                self._disk_writable = False
                self._events.appendleft(AppendFailed(effect.first))
                return

    def _look_up(self, forwarded: _Forwarded) -> WritesArrived:
        self.apply_due()
        try:
            found = self.store.records.lookup(forwarded.writes)
        except RecordsDamagedError:
            self.rebuild_records()
            found = self.store.records.lookup(forwarded.writes)
        applied = self.store.records.applied.index
        return WritesArrived(
            forwarded.token, forwarded.epoch, forwarded.writes, tuple(found), applied
        )

    def _run(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect.to, effect.message)
            case AppendLines():
                self.store.append(effect.first, effect.lines)
                self.metrics.appended_bytes += len(effect.lines)
            case SyncLog():
                self._plan_sync()
            case Apply():
                self._plan_apply(effect.index)
            case AnswerWrites() | AnswerRead() | AnswerTransfer():
                self._answer(effect)
            case SendFromLog():
                append = effect.append
                lines = self.store.read(append.previous.index + 1, append.count)
                self._send(effect.to, replace(append, lines=lines))
            case Propose():
                self._spawn(self._propose(effect))
            case ReadState():
                self._spawn(self._read_state(effect.token))
            case PersistEpoch():
                self.store.persist_epoch(effect.epoch)
            case TruncateLog():
                self.store.truncate(effect.first)
                self.metrics.truncations += 1
            case Probe():
                self._spawn(self._probe(effect))
            case FetchSnapshot():
                self._spawn(self._fetch_snapshot(effect.at_least))
            case InstallSnapshot():
                base = self.upkeep.install(effect.point, effect.committed)
                self.applied.tell()
                self._events.appendleft(SnapshotInstalled(base.point, base.time))
            case HandingOver():
                self._broker.lead(not effect.active)
            case Left():
                self._note_left()
            case RoleChanged():
                self._broker.lead(effect.leading)
            case Report():
                self._report(effect)
            case Halt():
                raise ProtocolViolationError(effect.reason)
            case _:
                assert_never(effect)

    def _send(self, to: str | None, message: Message) -> None:
        self.metrics.count(message)
        self._broker.send(to, message)

    def _plan_sync(self) -> None:
        """Sync after what else has arrived by now was appended: one sync for all of it."""
        if not self._sync_planned:
            self._sync_planned = True
            self._loop.call_soon(self._sync)

    def _sync(self) -> None:
        self._sync_planned = False
        if self._stopped:
            return
        began_at = time.perf_counter()
        try:
            index = self.store.sync()
        except ReplicadError as error:
            self.fail(error)
            return
        self.metrics.note_sync(time.perf_counter() - began_at)
        self.feed(LogSynced(index))

    def _plan_apply(self, index: int) -> None:
        """Apply when what the step answers is with the kernel: nobody waits for the record store.

        Whoever looks into it in the core's name, or tells how much is applied, sees to it first.
        """
        if self._apply_to is None:
            self._loop.call_soon(self._apply_after, _TURNS_TO_ANSWER)
        self._apply_to = index

    def _apply_after(self, turns: int) -> None:
        if turns > 1:
            self._loop.call_soon(self._apply_after, turns - 1)
            return
        try:
            self.apply_due()
        except (ReplicadError, OSError):
            return  # It has failed by now, and said why.

    def apply_due(self) -> None:
        """Bring the record store up to what the core believes to be applied."""
        if self._apply_to is None or self._stopped:
            return
        index, self._apply_to = self._apply_to, None
        try:
            self.store.apply(index)
        except BaseException as error:
            self.fail(error)  # As in `feed`: the core believes that it was done.
            raise
        self.applied.tell()

    def _answer(self, answer: AnswerWrites | AnswerRead | AnswerTransfer) -> None:
        if isinstance(answer, AnswerRead):
            self.apply_due()
        future = self._answers.pop(answer.token)
        if not future.done():  # Else the client has gone.
            future.set_result(answer)  # type: ignore[arg-type]  # Token and type go together.

    def _note_left(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    def _report(self, report: Report) -> None:
        if report.channel is Channel.SYNC:
            self._sync_log.write(report.level, report.event, report.fields)
        else:
            getattr(self._log, report.level.value)(report.event, **report.fields)

    async def _propose(self, propose: Propose) -> None:
        nonce = propose.state.nonce
        try:
            version = await self._coordinator.propose(propose.state, propose.expected_version)
        except CoordinationError as error:
            self._log.info("outcome of a proposal unknown", error=str(error))
            self.feed(ProposalFinished(nonce, Outcome.UNKNOWN, -1))
            return
        if version is None:
            self.feed(ProposalFinished(nonce, Outcome.REFUSED, -1))
        else:
            self.feed(ProposalFinished(nonce, Outcome.ACCEPTED, version))

    async def _probe(self, probe: Probe) -> None:
        gone = await self._broker.probe(probe.node)
        self.feed(ProbeFinished(probe.node, probe.asked_at, gone))

    async def _fetch_snapshot(self, at_least: int) -> None:
        base = await self.upkeep.fetch(at_least)
        self.feed(SnapshotFetched(base.point, base.epoch) if base else SnapshotFetched(None, 0))

    async def _read_state(self, token: int) -> None:
        try:
            view = await self._coordinator.read()
        except CoordinationError as error:
            self._log.warning("coordinator not readable", error=str(error))
            self.feed(ReadFinished(token, None))
        else:
            self.feed(ReadFinished(token, view))

    def _tick(self) -> None:
        if self._stopped:
            return
        self._timer = self._loop.call_later(TICK_S, self._tick)
        try:
            self._watch_disk()
        except BaseException as error:
            self.fail(error)  # Without ticks nobody would replace this replica.
            if not isinstance(error, ReplicadError | OSError):
                raise
        self.feed(Tick())

    def _watch_disk(self) -> None:
        writable = self.store.free_bytes() >= RESERVE_BYTES + self.store.unapplied_bytes()
        if writable != self._disk_writable:
            self._disk_writable = writable
            self._log.warning("disk writable" if writable else "disk nearly full")
            self.feed(DiskChanged(writable))
        if time.monotonic() - self._marked_at >= _MARK_INTERVAL_S:
            self._marked_at = time.monotonic()
            self.store.mark_synced()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """It is impossible to go on: step nothing more, and tell whoever runs this."""
        if not self._stopped:
            self.abandon()
            self._on_failure(error)
