"""A ZooKeeper session whose answers are awaited on the event loop.

kazoo runs threads of its own: one for the connection, one that reports answers and one for
watches. Nothing but `call_soon_threadsafe` happens on them here; a call to kazoo from one of them
could wait for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError

from replicad.errors import CoordinationError

CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 1.5
# kazoo's own default lets the delay between two attempts grow to an hour.
_RETRY = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 1.0}
# What ZooKeeper answers to a request that it understood; every other error means no answer.
REFUSALS = (NoNodeError, NodeExistsError, BadVersionError)

_log = structlog.get_logger(__name__)
# kazoo writes several lines for every attempt to connect; this module logs each change once.
_kazoo_log = logging.getLogger("replicad.kazoo")
_kazoo_log.setLevel(logging.ERROR)


class ZooKeeperSession:
    """One kazoo client. When a session expires kazoo goes on with a new one by itself."""

    def __init__(self, hosts: str, session_timeout_s: float, on_change: Callable[[], None]) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            hosts: host:port of the servers, separated by commas.
            session_timeout_s: After how long without contact the servers end the session.
            on_change: Called on the event loop when the connection is lost or is back.
        """
        self._hosts = hosts
        self._client = KazooClient(
            hosts, timeout=session_timeout_s, connection_retry=_RETRY, logger=_kazoo_log
        )
        self._on_change = on_change
        self._connected = asyncio.Event()
        self._closing = False

    async def open(self) -> None:
        """Connect.

        Raises:
            CoordinationError: No server answered within CONNECT_TIMEOUT_S.
        """
        self._loop = asyncio.get_running_loop()
        self._client.add_listener(self._on_state)
        self._client.start_async()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError as error:
            await self.close()
            raise CoordinationError(f"no connection to ZooKeeper at {self._hosts}") from error

    @property
    def client(self) -> KazooClient:
        """The client, for its `..._async` methods.

        Raises:
            CoordinationError: It is not connected. A request would not fail; it would wait in a
                queue and might be carried out long after its caller gave up.
        """
        if not self._client.connected:
            raise CoordinationError("not connected to ZooKeeper")
        return self._client

    @property
    def session_id(self) -> int | None:
        """Identifies the session, and the ephemeral nodes it owns; None while not connected."""
        identity = self._client.client_id
        return None if identity is None else int(identity[0])

    async def answers(self, *requests: Any) -> list[Any]:  # noqa: ANN401  # kazoo has no types.
        """Await what kazoo's `..._async` methods returned, under one deadline.

        Returns:
            For each request its result; NoNodeError, NodeExistsError and BadVersionError stand
            in the list as instances.

        Raises:
            CoordinationError: One had no answer. It may have been carried out.
        """
        futures = [self._future(request) for request in requests]
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answers = await asyncio.gather(*futures, return_exceptions=True)
        except TimeoutError as error:
            raise CoordinationError("ZooKeeper did not answer in time") from error
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, REFUSALS):
                raise CoordinationError(f"no answer from ZooKeeper: {answer!r}") from answer
        return answers

    async def close(self) -> None:
        """End the session. After STOP_TIMEOUT_S it is left to expire."""
        self._closing = True
        closed = self._loop.create_future()

        def close() -> None:
            with suppress(KazooException):  # It waited 10 s for its thread; nobody else does.
                self._client.stop()
                self._client.close()
            self._call_soon(_settle, closed, None, None)

        # kazoo's stop() blocks. This is a daemon thread, unlike those of an executor, so it never
        # holds up the end of the process.
        self._client.handler.spawn(close)
        await asyncio.wait({closed}, timeout=STOP_TIMEOUT_S)

    def _future(self, request: Any) -> asyncio.Future[Any]:  # noqa: ANN401  # kazoo has no types.
        future: asyncio.Future[Any] = self._loop.create_future()

        def resolve(result: Any) -> None:  # noqa: ANN401
            self._call_soon(_settle, future, result.value, result.exception)

        request.rawlink(resolve)
        return future

    def _on_state(self, state: str) -> None:
        self._call_soon(self._state_changed, state)

    def _state_changed(self, state: str) -> None:
        if self._closing:
            return
        if state == KazooState.CONNECTED:
            self._connected.set()
            _log.info("zookeeper connected", session=self.session_id)
        elif state == KazooState.SUSPENDED:
            _log.warning("zookeeper connection lost")
        else:
            _log.warning("zookeeper session expired")
        self._on_change()

    def call_on_change(self, _event: object) -> None:
        """A watch for kazoo, the same for every node, as everything is read again anyway."""
        self._call_soon(self._on_change)

    def _call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        # kazoo's threads may outlive the loop by a moment.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


def _settle(future: asyncio.Future[Any], value: object, error: Exception | None) -> None:
    # kazoo may report an answer twice, and the waiter may have given up.
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
