"""Composes `GET /v1/cluster` from the coordinator's view and what each replica says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from api_gateway.cluster.leader import LeaderClient, Refusal
from api_gateway.cluster.watch import ClusterWatch
from api_gateway.errors import LeaderError

_STATUS_S: Final = 0.5
_POSITIONS: Final = ("last_index", "commit_index", "applied_index", "digest")

_NOT_WRITABLE: Final = "El líder no acepta escrituras en este momento."
_REASONS: Final[Mapping[str, str]] = {
    Refusal.NOT_LEADER: "El líder todavía confirma el comienzo de su época.",
    Refusal.NOT_ENOUGH_REPLICAS: "No responden suficientes réplicas sincronizadas.",
    Refusal.BROKER_DOWN: "El líder no tiene conexión con RabbitMQ.",
    Refusal.DISK_FULL: "El disco del líder está lleno.",
    Refusal.OVERLOADED: "Demasiadas escrituras esperan confirmación.",
}

Status = Mapping[str, Any]


async def report_cluster(watch: ClusterWatch, client: LeaderClient) -> dict[str, object]:
    """What is known now; without ZooKeeper, what was known last."""
    view = watch.view
    state = view.state if view is not None else None
    config = view.config if view is not None else None
    names = config.replicas if config is not None else ()
    statuses = dict(
        zip(names, await asyncio.gather(*(_ask(watch, client, n) for n in names)), strict=True)
    )
    leader = watch.leader.name if watch.leader is not None and watch.leader_is_member else None
    leader_status = statuses.get(leader) if leader is not None else None
    return {
        "leader": leader,
        "epoch": state.epoch if state is not None else 0,
        "isr": [disk.node for disk in state.isr] if state is not None else [],
        "min_in_sync": config.min_in_sync if config is not None else None,
        "replicas": [
            _report_replica(name, watch.urls.get(name), status, leader_status)
            for name, status in statuses.items()
        ],
    }


async def why_not_writable(watch: ClusterWatch, client: LeaderClient) -> str | None:
    """The reason why a write could not succeed now, or None when it could."""
    leader = watch.leader
    if leader is None:
        return "No hay un líder disponible en este momento."
    status = await _ask(watch, client, leader.name)
    if status is None:
        return f"El líder {leader.name} no responde."
    if status.get("role") != "leader" or status.get("epoch") != leader.epoch:
        return f"{leader.name} todavía no dirige la época {leader.epoch}."
    if not status.get("writable"):
        return _REASONS.get(str(status.get("reason")), _NOT_WRITABLE)
    return None


async def _ask(watch: ClusterWatch, client: LeaderClient, name: str) -> Status | None:
    url = watch.urls.get(name)
    if url is None:
        return None
    try:
        async with asyncio.timeout(_STATUS_S):
            status = await client.status(url)
    except (LeaderError, TimeoutError):
        return None
    # After a restart another replica may answer at an address known from before.
    return status if status.get("name") == name else None


def _report_replica(
    name: str, url: str | None, status: Status | None, leader_status: Status | None
) -> dict[str, object]:
    known = status or {}
    return {
        "name": name,
        "role": known.get("role", "unreachable"),
        "url": url,
        **{position: known.get(position) for position in _POSITIONS},
        "lag": _lag(known, leader_status),
        "scrub": known.get("scrub"),
        "last_contact_ms": _last_contact_ms(name, leader_status),
    }


def _lag(status: Status, leader_status: Status | None) -> int | None:
    last, leader_last = status.get("last_index"), (leader_status or {}).get("last_index")
    if last is None or leader_last is None:
        return None
    # Asked at slightly different moments, a follower may seem ahead.
    return max(0, int(leader_last) - int(last))


def _last_contact_ms(name: str, leader_status: Status | None) -> int | None:
    if leader_status is None:
        return None
    if leader_status.get("name") == name:
        return 0
    follower = (leader_status.get("followers") or {}).get(name) or {}
    contact: int | None = follower.get("last_contact_ms")
    return contact
