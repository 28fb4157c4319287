"""How an operator's command reaches the replicas themselves: ZooKeeper says where they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson

from replicad.coordination.port import View
from replicad.coordination.zookeeper import ZooKeeperCoordinator
from replicad.errors import ConfigurationError, ReplicaUnavailableError

_CONNECT_S: Final = 2.0


class Replicas:
    """The living replicas of one cluster, as of one moment.

    Attributes:
        view: What ZooKeeper held then.
    """

    def __init__(self, view: View, session: aiohttp.ClientSession) -> None:
        """Use `replicas_of`."""
        self.view = view
        self._session = session

    @property
    def urls(self) -> dict[str, str]:
        """Where each living replica listens, by name, sorted."""
        return {member.node: member.url for member in self.view.members}

    def leader(self) -> tuple[str, int]:
        """The leader's address, and its epoch.

        Raises:
            ReplicaUnavailableError: Nobody leads at the moment.
        """
        state = self.view.state
        if state is None or state.url is None:
            raise ReplicaUnavailableError("the cluster has no leader at the moment")
        return state.url, state.epoch

    async def call(
        self,
        method: str,
        url: str,
        *,
        body: Mapping[str, object] | None = None,
        epoch: int | None = None,
        timeout_s: float = 10.0,
    ) -> dict[str, Any]:
        """Send one request to a replica and return the JSON object that it answers.

        Raises:
            ReplicaUnavailableError: No answer in time, or one that is an error; says which.
        """
        headers = {} if epoch is None else {"X-Replicad-Epoch": str(epoch)}
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        try:
            async with self._session.request(
                method, url, json=body, headers=headers, timeout=timeout
            ) as response:
                answer = orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            raise ReplicaUnavailableError(f"no answer from {url}: {error!r}") from error
        if response.status != 200 or not isinstance(answer, dict):
            reason = answer.get("error") if isinstance(answer, dict) else None
            raise ReplicaUnavailableError(f"{url}: {reason or f'status {response.status}'}")
        return answer


@asynccontextmanager
async def replicas_of(zookeeper: str, cluster: str) -> AsyncIterator[Replicas]:
    """Find a cluster's replicas.

    Raises:
        CoordinationError: ZooKeeper does not answer.
        ConfigurationError: It knows no such cluster.
    """
    coordinator = ZooKeeperCoordinator(zookeeper, cluster)
    await coordinator.start(lambda _: None)
    try:
        view = await coordinator.read()
    finally:
        await coordinator.stop()
    if view.config is None:
        raise ConfigurationError(f"ZooKeeper knows no cluster {cluster!r}")
    async with aiohttp.ClientSession() as session:
        yield Replicas(view, session)
