"""What Prometheus is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.exposition import generate_latest

from replicad.core.effects import Refusal
from replicad.core.messages import Ack, Append, Point
from replicad.core.replica import FollowerStatus, Status
from replicad.node.metrics import DriverMetrics, StatusCollector

STATUS = Status(
    role="leader",
    epoch=3,
    leader="n1",
    last_index=9,
    synced_index=8,
    commit_index=7,
    applied_index=6,
    digest=b"d" * 32,
    isr=("n1", "n2"),
    refusal=None,
    followers={"n2": FollowerStatus(matched=7, last_contact_s=0.25)},
    stale_s=0.25,
)


def shown(metrics: DriverMetrics) -> dict[str, float]:
    """The samples by name and labels."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def gauges(status: Status) -> dict[str, float]:
    metrics = DriverMetrics()
    metrics.registry.register(StatusCollector(lambda: status, lambda: 12))
    return shown(metrics)


def test_a_leaders_gauges() -> None:
    found = gauges(STATUS)
    assert {
        name: found[f"replicad_{name}"]
        for name in (
            "epoch",
            "leading",
            "log_last_index",
            "log_synced_index",
            "commit_index",
            "applied_index",
            "isr_size",
            "writable",
        )
    } == {
        "epoch": 3,
        "leading": 1,
        "log_last_index": 9,
        "log_synced_index": 8,
        "commit_index": 7,
        "applied_index": 6,
        "isr_size": 2,
        "writable": 1,
    }
    assert found["replicad_records_transactions_total"] == 12
    assert found['replicad_follower_matched_index{node="n2"}'] == 7
    assert found['replicad_follower_last_contact_seconds{node="n2"}'] == 0.25


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (replace(STATUS, role="follower"), "replicad_leading"),
        (replace(STATUS, refusal=Refusal.DISK_FULL), "replicad_writable"),
    ],
)
def test_what_is_not_so_is_zero(status: Status, name: str) -> None:
    assert gauges(status)[name] == 0


def test_counters_of_two_replicas_in_one_process_are_their_own() -> None:
    one, other = DriverMetrics(), DriverMetrics()
    one.appended_bytes += 100
    one.truncations += 1
    one.note_sync(0.0003)
    found = shown(one)
    assert found["replicad_log_appended_bytes_total"] == 100
    assert found["replicad_log_truncations_total"] == 1
    assert found["replicad_log_sync_seconds_count"] == 1
    assert found['replicad_log_sync_seconds_bucket{le="0.0005"}'] == 1
    assert found['replicad_log_sync_seconds_bucket{le="0.0002"}'] == 0
    assert found["replicad_log_sync_seconds_sum"] == 0.0003
    assert shown(other)["replicad_log_appended_bytes_total"] == 0


def test_syncs_are_counted_in_every_bucket_that_covers_them() -> None:
    metrics = DriverMetrics()
    for seconds in (0.0001, 0.0009, 7.0):
        metrics.note_sync(seconds)
    found = shown(metrics)
    assert {
        bound: found[f'replicad_log_sync_seconds_bucket{{le="{bound}"}}']
        for bound in ("0.0001", "0.0005", "0.001", "1.0", "+Inf")
    } == {"0.0001": 1, "0.0005": 1, "0.001": 2, "1.0": 2, "+Inf": 3}
    assert found["replicad_log_sync_seconds_count"] == 3


def test_messages_are_counted_by_type() -> None:
    point = Point(1, b"d" * 32)
    append = Append(1, "n1", "a", point, 1, b"{}\n", point, 2, 3, {})
    metrics = DriverMetrics()
    for message in (
        append,
        append,
        replace(append, count=0, lines=b""),
        Ack(1, "n2", "d", point, 3),
    ):
        metrics.count(message)
    found = shown(metrics)
    assert {
        kind: found[f'replicad_messages_sent_total{{type="{kind}"}}']
        for kind in ("append", "heartbeat", "ack")
    } == {"append": 2, "heartbeat": 1, "ack": 1}
