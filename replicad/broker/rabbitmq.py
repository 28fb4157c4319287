"""RabbitMQ as the carrier of messages.

What a person sees on its management page:

    replicad.<cluster>                              the exchange of all messages: topic, durable
    replicad.<cluster>.present                      a second one, for probes: direct, durable
    replicad.<cluster>.changes                      a third one, for other systems: topic, durable
    replicad.<cluster>.<node>.log.<incarnation>     queue of a replica's log entries, bound to
                                                    log.<node> and, unless it leads, to log.all
    replicad.<cluster>.<node>.acks.<incarnation>    queue of all other messages to it, bound to
                                                    acks.<node>

A queue that is bound to the first exchange with `#` taps everything. The adapter connects, connects
again whenever that ends, and says whether messages flow. It keeps nothing across connections: what
was waiting when one broke is dropped, and the protocol sends it again from the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import structlog

from replicad.broker.codec import encode
from replicad.broker.port import Published
from replicad.broker.rabbitmq_changes import RabbitChanges
from replicad.broker.rabbitmq_session import Names, RabbitSession, open_session
from replicad.core.feed import LoggedChange
from replicad.core.messages import Append, Message
from replicad.errors import BrokerError

RETRY_DELAY_MIN_S = 0.1
# Well below the lag that costs a follower its place: all must be back when the broker is.
RETRY_DELAY_MAX_S = 0.3
STOP_S = 1.0

_log = structlog.get_logger(__name__)
# aiormq logs an error, some with a traceback, for every attempt that fails and every connection
# that ends. Here that is an ordinary event, logged once.
logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)


class RabbitBroker:
    """The port `Broker` on RabbitMQ.

    Attributes:
        failed: Completes with an error that is no trouble with RabbitMQ: a defect, or whatever
            the message callback raised. The process must not go on without a broker. Cancelled
            by `stop`.
    """

    def __init__(self, url: str, cluster: str, node: str, incarnation: str) -> None:
        """Describe one replica's place on the broker.

        Args:
            url: amqp:// or amqps://, with credentials and virtual host.
            cluster: The cluster's name; part of the exchange's and of the queues' names.
            node: This replica's name, never "all": that is the routing key of all replicas.
            incarnation: This run of the process; keeps queues of two runs apart.
        """
        self._url = url
        self._names = Names(cluster, node, incarnation)
        self._changes = RabbitChanges(url, self._names)
        self._leading = False
        self._session: RabbitSession | None = None
        self._up = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        self._retry_delay_s = RETRY_DELAY_MIN_S
        self._reported = ""

    async def start(
        self, on_message: Callable[[Message], None], on_status: Callable[[bool], None]
    ) -> None:
        """See `Broker.start`. Returns at once: whether RabbitMQ is there, `on_status` tells."""
        self._on_message = on_message
        self._on_status = on_status
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_connected(), name="rabbitmq")
        self._task.add_done_callback(self._surface)

    def send(self, to: str | None, message: Message) -> None:
        """See `Broker.send`."""
        if self._session is None or not self._up:
            return
        kind = "log" if isinstance(message, Append) else "acks"
        self._session.send(f"{kind}.{to or 'all'}", encode(message))

    async def probe(self, node: str) -> bool:
        """See `Broker.probe`."""
        if self._session is None or not self._up:
            return False
        return await self._session.probe(node)

    async def publish(self, changes: Sequence[LoggedChange]) -> Published:
        """See `Broker.publish`."""
        if self._task is None or self._task.done():
            raise BrokerError("this broker is not started, or was stopped")
        return await self._changes.publish(changes)

    def lead(self, leading: bool) -> None:
        """See `Broker.lead`."""
        self._leading = leading
        if self._session is not None:
            self._session.follow_all(not leading)

    async def stop(self) -> None:
        """See `Broker.stop`. Takes no longer than STOP_S, even if RabbitMQ does not answer."""
        if self._task is None:
            return
        self._stopped = True
        self._task.remove_done_callback(self._surface)
        self._task.cancel()
        self._session = None
        closing = asyncio.create_task(self._changes.close())
        await asyncio.wait({self._task, closing}, timeout=STOP_S)
        self.failed.cancel()

    def _surface(self, task: asyncio.Task[None]) -> None:
        if self.failed.done():
            return
        # `stop` does not come here: whoever else cancels this task makes the replica deaf.
        error = None if task.cancelled() else task.exception()
        self.failed.set_exception(error or RuntimeError("nobody connects to RabbitMQ any more"))

    async def _keep_connected(self) -> None:
        sessions = 0
        while not self._stopped:  # Losing a session at this very moment hides the cancellation.
            sessions += 1
            try:
                await self._run_session(sessions)
            except* BrokerError as group:
                self._log_loss(group)
            self._session = None
            await asyncio.sleep(self._retry_delay_s * random.uniform(0.5, 1))  # noqa: S311  # Jitter.
            self._retry_delay_s = min(2 * self._retry_delay_s, RETRY_DELAY_MAX_S)

    async def _run_session(self, number: int) -> None:
        async with AsyncExitStack() as stack:
            follow_all = not self._leading
            session = await open_session(
                stack, self._url, self._names, number, self._on_message, follow_all=follow_all
            )
            _log.info("broker connected", node=self._names.node, session=number)
            self._session = session
            session.follow_all(not self._leading)  # It may have changed while we connected.
            self._retry_delay_s = RETRY_DELAY_MIN_S
            self._report(up=True)
            self._reported = ""
            try:
                # As a task: before Python 3.13, a group that fails may leave its task marked as
                # cancelled, and then the next timeout in it, as of closing, ends it.
                await asyncio.create_task(session.run(self._report), name="rabbitmq session")
            except* BrokerError:
                self._report(up=False)  # Now: to close what is broken may take a moment.
                raise

    def _report(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            self._on_status(up)

    def _log_loss(self, group: ExceptionGroup[BrokerError]) -> None:
        # Retries go on for as long as RabbitMQ is away; only a new reason is news.
        reason = "; ".join(str(error) for error in group.exceptions)
        if reason != self._reported:
            self._reported = reason
            _log.warning("broker not connected", node=self._names.node, reason=reason)
