from __future__ import annotations

from dataclasses import replace

from api_gateway.cluster.leader import Committed
from api_gateway.records.receipts import batch_receipt_of, proof_of, receipt_of, status_of

COMMITTED = Committed(
    index=7,
    epoch=2,
    digest="ab",
    done="i",
    again=False,
    acks=("n1", "n2"),
    timing="fsync;dur=0.5",
)


def test_the_receipt_of_a_write() -> None:
    receipt = {
        "collection": "c",
        "id": "a",
        "operation": "insert",
        "index": 7,
        "epoch": 2,
        "digest": "ab",
        "replicas": ("n1", "n2"),
        "etag": '"7"',
    }
    assert receipt_of(COMMITTED, "c", "a") == receipt
    assert status_of(COMMITTED) == 201
    updated = replace(COMMITTED, done="u")
    assert receipt_of(updated, "c", "a") == receipt | {"operation": "update"}
    assert status_of(updated) == 200
    deleted = receipt_of(replace(COMMITTED, done="d"), "c", "a")
    assert deleted == receipt | {"operation": "delete", "etag": None}


def test_the_receipt_of_several_writes() -> None:
    receipt = batch_receipt_of(replace(COMMITTED, done="idu"), "c", ["a", "b", "c"])
    assert receipt["results"] == [
        {"id": "a", "operation": "insert", "etag": '"7"'},
        {"id": "b", "operation": "delete", "etag": None},
        {"id": "c", "operation": "update", "etag": '"7"'},
    ]


def test_headers() -> None:
    headers = {
        "X-Replicad-Index": "7",
        "X-Replicad-Epoch": "2",
        "X-Replicad-Digest": "ab",
        "X-Replicad-Acks": "n1,n2",
        "Server-Timing": "fsync;dur=0.5",
    }
    assert proof_of(COMMITTED) == headers
    again = replace(COMMITTED, again=True, epoch=None, digest=None, timing="")
    assert proof_of(again) == {
        "X-Replicad-Index": "7",
        "X-Replicad-Acks": "n1,n2",
        "Idempotency-Replayed": "true",
    }
