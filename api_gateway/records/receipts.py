"""What a client is told of a write that took place: which entry it is, and who holds it. Pure."""

from __future__ import annotations

from typing import Any

from api_gateway.cluster.leader import Committed
from api_gateway.records.conditions import etag_of
from replicad.core.entry import DELETE, DONE, INSERT


def proof_of(committed: Committed) -> dict[str, str]:
    """Headers that say where the write is, and what took how long."""
    headers = {
        "X-Replicad-Index": str(committed.index),
        "X-Replicad-Acks": ",".join(committed.acks),
    }
    if committed.epoch is not None and committed.digest is not None:
        headers["X-Replicad-Epoch"] = str(committed.epoch)
        headers["X-Replicad-Digest"] = committed.digest
    if committed.timing:
        headers["Server-Timing"] = committed.timing
    if committed.again:
        headers["Idempotency-Replayed"] = "true"
    return headers


def operation_of(committed: Committed, position: int = 0) -> str:
    """What it did to one of its records."""
    return DONE[committed.done[position]]


def etag_after(committed: Committed, position: int = 0) -> str | None:
    """The ETag of one of its records since then; None if it was deleted."""
    deleted = operation_of(committed, position) == DELETE
    return None if deleted else etag_of(committed.index)


def receipt_of(committed: Committed, collection: str, key: str) -> dict[str, Any]:
    """The receipt of a single write."""
    return {
        "collection": collection,
        "id": key,
        "operation": operation_of(committed),
        **_entry_of(committed),
        "etag": etag_after(committed),
    }


def batch_receipt_of(committed: Committed, collection: str, keys: list[str]) -> dict[str, Any]:
    """The receipt of several writes that are one entry."""
    return {
        "collection": collection,
        **_entry_of(committed),
        "results": [
            {
                "id": key,
                "operation": operation_of(committed, position),
                "etag": etag_after(committed, position),
            }
            for position, key in enumerate(keys)
        ],
    }


def _entry_of(committed: Committed) -> dict[str, Any]:
    return {
        "index": committed.index,
        "epoch": committed.epoch,
        "digest": committed.digest,
        "replicas": committed.acks,
    }


def status_of(committed: Committed) -> int:
    """201 for a write that made a new record, else 200."""
    return 201 if operation_of(committed) == INSERT else 200
