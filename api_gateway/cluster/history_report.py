"""Composes `GET /v1/cluster/history` from what each replica knows of the past."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from api_gateway.cluster.leader import LeaderClient
from api_gateway.cluster.watch import ClusterWatch
from api_gateway.errors import LeaderError

# Replicas read lost+found/ for it.
_HISTORY_S: Final = 2.0
_MEMBERS: Final = (
    "epoch",
    "index",
    "time",
    "leader",
    "incarnation",
    "reason",
    "previous_leader",
    "previous_epoch",
    "isr_before",
    "isr_after",
    "leaderless_ms",
)

History = Mapping[str, Any]


async def report_history(watch: ClusterWatch, client: LeaderClient) -> dict[str, object]:
    """All elections that any replica knows, newest first, with what each replica cut since.

    Returns:
        `failovers`: see docs/operations.md. What an older entry or a replica that does not answer
        would tell is null.
    """
    names = sorted(watch.urls)
    told = await asyncio.gather(*(_ask(client, name, watch.urls[name]) for name in names))
    histories = dict(zip(names, told, strict=True))
    # Only committed entries are told, so that what two replicas say of an epoch is the same.
    openings = {
        opening["epoch"]: opening
        for history in histories.values()
        if history is not None
        for opening in history["epochs"]
    }
    cut = {name: _cut_by_epoch(history) for name, history in histories.items()}
    failovers = [
        {
            **{member: openings[epoch].get(member) for member in _MEMBERS},
            "truncated": {n: None if c is None else c[epoch] for n, c in cut.items()},
        }
        for epoch in sorted(openings, reverse=True)
    ]
    return {"failovers": failovers}


async def _ask(client: LeaderClient, name: str, url: str) -> History | None:
    try:
        async with asyncio.timeout(_HISTORY_S):
            history = await client.history(url)
    except (LeaderError, TimeoutError):
        return None
    # After a restart another replica may answer at an address known from before.
    return history if history.get("name") == name else None


def _cut_by_epoch(history: History | None) -> Counter[int] | None:
    if history is None:
        return None
    cut: Counter[int] = Counter()
    for kept in history["kept"]:
        cut[kept["epoch"]] += kept["entries"]
    return cut
