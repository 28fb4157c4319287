"""Faults of ZooKeeper: sessions ended behind their owner's back, and a meddler at `state`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from kazoo.client import KazooClient

from replicad.stack.record import CLUSTER
from tests.support.faults.cluster import FaultCluster

_ROOT: Final = f"/replicad/{CLUSTER}"
_SUPER_SECRET: Final = 0xB3415C00
_MASK: Final = (1 << 48) - 1
_MULTIPLIER: Final = 0x5DEECE66D


def session_password(session_id: int) -> bytes:
    """The password by which ZooKeeper lets a client resume a session.

    ZooKeeper derives it from the session's id alone, with Java's random numbers.

    Source: ZooKeeperServer.generatePasswd, java.util.Random.
    """
    state = ((session_id ^ _SUPER_SECRET) ^ _MULTIPLIER) & _MASK
    password = b""
    while len(password) < 16:
        state = (state * _MULTIPLIER + 0xB) & _MASK
        password += (state >> 16 & 0xFFFFFFFF).to_bytes(4, "little")
    return password


class Coordination:
    """The stack's ZooKeeper, as somebody with too many rights sees it."""

    def __init__(self, cluster: FaultCluster) -> None:
        """Take its address from the stack."""
        self.port = cluster.record.ports["zookeeper"]
        self._hosts: str = cluster.stack.description["zookeeper"]["hosts"]

    @contextmanager
    def _client(self, **options: Any) -> Iterator[KazooClient]:  # noqa: ANN401
        client = KazooClient(self._hosts, **options)
        client.start(timeout=10)
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def expire(self, replica: str) -> int:
        """End a replica's session; returns the id that it had."""
        session = self.session(replica)
        assert session is not None
        with self._client(client_id=(session, session_password(session))) as thief:
            assert thief.client_id[0] == session, "the session was not taken over"
        assert self.session(replica) != session
        return session

    def session(self, replica: str) -> int | None:
        """The session that owns a replica's registration; None while there is none."""
        with self._client() as client:
            for member in client.get_children(f"{_ROOT}/members"):
                if member.rpartition("-")[0] == replica:
                    stat = client.exists(f"{_ROOT}/members/{member}")
                    return None if stat is None else int(stat.ephemeralOwner)
        return None

    def state(self) -> dict[str, Any]:
        """Who leads and who is in sync, as it is stored."""
        with self._client() as client:
            data, _ = client.get(f"{_ROOT}/state")
        state: dict[str, Any] = json.loads(data)
        return state

    def touch_state(self, times: int) -> int:
        """Write `state` back as it is, so that its version grows; returns the last version."""
        with self._client() as client:
            for _ in range(times):
                data, stat = client.get(f"{_ROOT}/state")
                version = client.set(f"{_ROOT}/state", data, version=stat.version).version
        return int(version)
