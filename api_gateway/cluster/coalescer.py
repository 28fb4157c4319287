"""Lets many clients' requests travel to the leader as one, and again until it has decided.

Two workers take what waits and send it, each its share, so that one batch is parsed and answered
while the other is synced and acked. What a batch leaves undecided goes back to the head of the
queue. Each request keeps its own deadline meanwhile: its
client is answered then, whatever happens to the batch. One alarm serves all deadlines: it is set
for the earliest, and most requests are answered long before it goes off.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import structlog

from api_gateway.cluster.watch import ClusterWatch, Leader
from api_gateway.errors import LeaderError, UnavailableError
from api_gateway.metrics import Metrics

_log = structlog.get_logger(__name__)

PAYLOAD = TypeVar("PAYLOAD")
ANSWER = TypeVar("ANSWER")

# One on the wire while the leader syncs the other. With more, batches would only get smaller:
# all of them wait for the same disk.
_WORKERS: Final = 2
# Of calls: what costs as much to process as a batch costs by itself. Fewer travel as one.
_SHARE_MIN: Final = 64
# Of the event loop, from a request's bytes to its call: the handler's task. (By aiohttp's server
# it is one more: those who ask so may travel in smaller batches.)
_TURNS_TO_CALL: Final = 2
# A first attempt that begins any later would, as likely as not, only turn a clear "not stored"
# into an "unknown".
_LAST_ATTEMPT_S: Final = 0.2
# Deadlines that come one after the other share an alarm: each looks at all calls.
_ALARM_INTERVAL_S: Final = 0.02
_WAITING_MAX: Final = 10_000
_WAITING_BYTES_MAX: Final = 256 * 1024 * 1024


def _new_future() -> asyncio.Future[ANSWER]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Call(Generic[PAYLOAD, ANSWER]):
    """One client's request on its way.

    Attributes:
        payload: What the leader gets.
        size: Of the payload in bytes.
        deadline: When its client is answered at the latest, in the event loop's time.
        answer: Set once, to what the client gets. A TimeoutError at the deadline.
        in_doubt: Whether an attempt may have had an effect that is not known.
    """

    payload: PAYLOAD
    size: int
    deadline: float
    answer: asyncio.Future[ANSWER] = field(default_factory=_new_future)
    in_doubt: bool = False

    def settle(self, answer: ANSWER) -> None:
        """Answer, unless the deadline was first."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless the deadline was first."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Coalescer(Generic[PAYLOAD, ANSWER]):
    """A queue of calls and the workers that empty it."""

    def __init__(
        self,
        kind: str,
        send: Callable[[Leader, Sequence[Call[PAYLOAD, ANSWER]]], Awaitable[None]],
        watch: ClusterWatch,
        metrics: Metrics,
        *,
        batch_calls_max: int,
        batch_bytes_max: int,
    ) -> None:
        """Prepare; `start` sets the workers going.

        Args:
            kind: Names this queue in metrics.
            send: Makes one attempt: settles the calls that the leader decided, leaves the others
                to be tried again, and may raise LeaderError.
            watch: Tells who leads.
            metrics: Counts batches and retries.
            batch_calls_max: Calls in one batch.
            batch_bytes_max: Bytes in one batch, unless a single call has more.
        """
        self._send = send
        self._watch = watch
        self._batch_calls_max = batch_calls_max
        self._batch_bytes_max = batch_bytes_max
        self._batch_size = metrics.batch_size.labels(kind)
        self._retries = metrics.retries.labels(kind)
        self._queue: deque[Call[PAYLOAD, ANSWER]] = deque()
        self._idle: list[asyncio.Future[None]] = []  # What idle workers wait for.
        self._waiting: set[Call[PAYLOAD, ANSWER]] = set()
        self._waiting_bytes = 0
        self._last_batch = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._workers: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Set the workers going."""
        for _ in range(_WORKERS):
            self._start_worker()

    def _start_worker(self) -> None:
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._on_worker_end)

    def _on_worker_end(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled():
            # A defect. Its batch ends at the deadlines, in doubt; the gateway goes on without it.
            _log.error("worker_failed", exc_info=worker.exception())
            self._start_worker()

    async def stop(self, grace_s: float) -> None:
        """Let what waits finish for a moment, answer the rest as at its deadline, and end."""
        if self._waiting:
            await asyncio.wait([call.answer for call in self._waiting], timeout=grace_s)
        for call in self._waiting:
            call.fail(TimeoutError())
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, math.inf
        self._idle.clear()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)

    async def run(self, call: Call[PAYLOAD, ANSWER]) -> ANSWER:
        """Have a new call sent until it is answered.

        Raises:
            TimeoutError: No answer by the deadline; see `call.in_doubt`.
            UnavailableError: Too many requests wait already; this one was not sent.
        """
        if (
            len(self._waiting) >= _WAITING_MAX
            or self._waiting_bytes + call.size > _WAITING_BYTES_MAX
        ):
            raise UnavailableError(
                "The system is overloaded. Try again in a moment.",
                "El sistema está sobrecargado. Intente de nuevo en un momento.",
            )
        self._waiting.add(call)
        self._waiting_bytes += call.size
        self._queue.append(call)
        self._wake_one()
        if call.deadline < self._alarm_at:
            self._set_alarm(call.deadline)
        try:
            return await call.answer
        finally:
            self._waiting.remove(call)
            self._waiting_bytes -= call.size

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_at(at, self._on_alarm)

    def _on_alarm(self) -> None:
        """End what has reached its deadline, and wait for the next one."""
        now = _now()
        self._alarm, self._alarm_at = None, math.inf
        for call in self._waiting:
            if call.deadline <= now:
                call.fail(TimeoutError())
        # They count as waiting no more, so they must not be kept either, behind one that goes on.
        self._queue = deque(call for call in self._queue if not call.answer.done())
        left = [call.deadline for call in self._waiting if call.deadline > now]
        if left:
            self._set_alarm(max(min(left), now + _ALARM_INTERVAL_S))

    async def _work(self) -> None:
        failures = 0
        while True:
            while not self._queue:
                idle = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            await self._gather()
            leader = self._watch.leader
            # Nothing is taken while nobody leads, but whoever gave up must not pile up.
            batch = self._take(self._share if leader is not None else 0)
            if batch and leader is not None and await self._attempt(leader, batch):
                failures = 0
            elif batch or self._queue:
                failures += 1
                await self._watch.pause(failures, leader)

    def _wake_one(self) -> None:
        """Let one idle worker look at the queue: a call that comes alone needs no more."""
        if self._idle:
            self._idle.pop().set_result(None)

    @property
    def _share(self) -> int:
        """How many of the calls that wait now, sent or not, a worker takes at most."""
        return min(self._batch_calls_max, max(_SHARE_MIN, len(self._waiting) // _WORKERS))

    async def _gather(self) -> None:
        """Wait until a share is there, or nothing more arrives.

        A batch costs as much as dozens of calls. Clients that were answered together ask again
        together: that the first of them travels alone, and the others after it, helps nobody. Who
        travelled alone has nobody to wait for.
        """
        if self._last_batch == 1:
            return
        quiet, seen = 0, len(self._queue)
        while quiet < _TURNS_TO_CALL and seen < self._share:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == seen else 0
            seen = len(self._queue)

    def _take(self, calls_max: int) -> list[Call[PAYLOAD, ANSWER]]:
        """Remove one batch from the head of the queue, and with it all that has no more time."""
        batch: list[Call[PAYLOAD, ANSWER]] = []
        size = 0
        last_start = _now() + _LAST_ATTEMPT_S
        while self._queue:
            call = self._queue[0]
            too_late = call.deadline < last_start and not call.in_doubt
            if not too_late and not call.answer.done():
                full = len(batch) >= calls_max
                if full or (batch and size + call.size > self._batch_bytes_max):
                    break
                batch.append(call)
                size += call.size
            self._queue.popleft()
        return batch

    async def _attempt(self, leader: Leader, batch: Sequence[Call[PAYLOAD, ANSWER]]) -> bool:
        """Send one batch. Returns whether the leader decided all of it."""
        self._batch_size.observe(len(batch))
        with suppress(LeaderError, TimeoutError):  # The calls tell what is to be tried again.
            await self._watch.attempt(leader, self._send(leader, batch))
        self._last_batch = len(batch)
        again = [call for call in batch if not call.answer.done()]
        if again:
            self._retries.inc(len(again))
            self._queue.extendleft(reversed(again))
            self._wake_one()
        return not again


def _now() -> float:
    return asyncio.get_running_loop().time()
