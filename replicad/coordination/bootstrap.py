"""Runs the decisions of `replicad/core/bootstrap.py` against a coordinator."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

from replicad.coordination.port import Coordinator, View
from replicad.core.bootstrap import Beginning, missing_replicas, plan_adoption, plan_first_start
from replicad.core.cluster import ClusterConfig
from replicad.errors import ConfigurationError

_ReadView = Callable[[], Awaitable[View]]


async def initialise(
    coordinator: Coordinator, replicas: tuple[str, ...], min_in_sync: int, timeout_s: float
) -> bool:
    """Create the cluster once every configured replica is registered with an empty directory.

    Returns:
        False when a cluster of just these replicas was already there.

    Raises:
        ConfigurationError: Not every replica registered in time, or another configuration exists.
        NotInitialisedError: A replica holds data, but there is no state.
        CoordinationError: ZooKeeper does not answer.
    """
    async with _views(coordinator) as next_view:
        view = await _gathered(next_view, replicas, timeout_s)
        if view.config is not None:
            _check_same(view.config, replicas, min_in_sync)
            return False
        plan = plan_first_start(
            replicas, min_in_sync, view.members, cluster_id=str(uuid4()), nonce=secrets.token_hex(8)
        )
        if await coordinator.create_cluster(plan.config, plan.state):
            return True
        config = (await coordinator.read()).config  # Somebody else did the same meanwhile.
        if config is not None:
            _check_same(config, replicas, min_in_sync)
        return False


async def adopt(
    coordinator: Coordinator,
    replicas: tuple[str, ...],
    min_in_sync: int,
    timeout_s: float,
    confirm: Callable[[Beginning], None],
) -> None:
    """Create config and state anew for replicas that hold data.

    Args:
        coordinator: Not started yet.
        replicas: The names of all replicas.
        min_in_sync: The stored ISR never shrinks below this many.
        timeout_s: How long to wait for every replica to register.
        confirm: Called with what is about to be written; raises to prevent it.

    Raises:
        ConfigurationError: There is a state already, or the replicas' data do not allow it.
        CoordinationError: ZooKeeper does not answer.
    """
    async with _views(coordinator) as next_view:
        view = await _gathered(next_view, replicas, timeout_s)
        if view.config is not None:
            raise ConfigurationError("ZooKeeper knows this cluster: there is nothing to adopt")
        plan = plan_adoption(replicas, min_in_sync, view.members, nonce=secrets.token_hex(8))
        confirm(plan)
        if not await coordinator.create_cluster(plan.config, plan.state):
            raise ConfigurationError("somebody else created the cluster meanwhile")


@asynccontextmanager
async def _views(coordinator: Coordinator) -> AsyncIterator[_ReadView]:
    views: asyncio.Queue[View] = asyncio.Queue()
    await coordinator.start(views.put_nowait)
    try:
        yield views.get
    finally:
        await coordinator.stop()


async def _gathered(next_view: _ReadView, replicas: tuple[str, ...], timeout_s: float) -> View:
    """The first view that shows a cluster or every replica."""
    missing = replicas
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                view = await next_view()
                missing = missing_replicas(replicas, view.members)
                if view.config is not None or not missing:
                    return view
    except TimeoutError:
        raise ConfigurationError(
            f"not registered after {timeout_s:.0f} s: {', '.join(missing)}; are they running?"
        ) from None


def _check_same(config: ClusterConfig, replicas: tuple[str, ...], min_in_sync: int) -> None:
    if config.replicas != tuple(sorted(replicas)) or config.min_in_sync != min_in_sync:
        raise ConfigurationError(
            f"the cluster exists with replicas {', '.join(config.replicas)} and "
            f"min_in_sync {config.min_in_sync}"
        )
