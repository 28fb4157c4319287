"""What a replica shows at /metrics, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from replicad.core.messages import Append, Message
from replicad.core.replica import Status

_SYNC_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)


class DriverMetrics(Collector):
    """Counted where it happens, in plain numbers: several of them change with every batch.

    Attributes:
        registry: Of its own, since several replicas may share a process.
        appended_bytes: Bytes appended to the log.
        truncations: Times the log's tail was cut.
    """

    def __init__(self) -> None:
        """All zero."""
        self.registry = CollectorRegistry()
        self.appended_bytes = 0
        self.truncations = 0
        # One more than there are buckets: above the last one.
        self._syncs = [0] * (len(_SYNC_BUCKETS_S) + 1)
        self._syncs_s = 0.0
        self._sent: Counter[type[Message]] = Counter()
        self._heartbeats = 0
        self.registry.register(self)

    def count(self, message: Message) -> None:
        """One more message was given to the broker; an Append without entries is a heartbeat."""
        if isinstance(message, Append) and not message.count:
            self._heartbeats += 1
        else:
            self._sent[type(message)] += 1

    def note_sync(self, seconds: float) -> None:
        """The log was synced once."""
        self._syncs[bisect_left(_SYNC_BUCKETS_S, seconds)] += 1
        self._syncs_s += seconds

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's Collector."""
        yield CounterMetricFamily(
            "replicad_log_appended_bytes", "Bytes appended to the log.", value=self.appended_bytes
        )
        yield CounterMetricFamily(
            "replicad_log_truncations", "Times the log's tail was cut.", value=self.truncations
        )
        up_to = accumulate(self._syncs)  # Each bucket counts the lower ones as well.
        bounds = [*map(floatToGoString, _SYNC_BUCKETS_S), "+Inf"]
        yield HistogramMetricFamily(
            "replicad_log_sync_seconds",
            "Time of one sync of the log.",
            buckets=list(zip(bounds, up_to, strict=True)),
            sum_value=self._syncs_s,
        )
        sent = CounterMetricFamily(
            "replicad_messages_sent", "Messages given to the broker.", labels=["type"]
        )
        for kind, count in self._sent.items():
            sent.add_metric([kind.__name__.lower()], count)
        sent.add_metric(["heartbeat"], self._heartbeats)
        yield sent


class ScrubMetrics:
    """What the scrub has done since the process began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """All zero, shown in `registry`."""
        self.passes = prometheus_client.Counter(
            "replicad_scrub_passes", "Times everything was read again.", registry=registry
        )
        self.entries = prometheus_client.Counter(
            "replicad_scrub_entries", "Entries read back and verified.", registry=registry
        )
        self.restored = prometheus_client.Counter(
            "replicad_scrub_restored_rows", "Rows that differed from the log.", registry=registry
        )


class StatusCollector(Collector):
    """What is read from the core and from the record store when somebody asks."""

    def __init__(self, status: Callable[[], Status], transactions: Callable[[], int]) -> None:
        """Ask `status`, and how many transactions the record store has done, at every scrape."""
        self._status = status
        self._transactions = transactions

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client's Collector."""
        status = self._status()
        for name, text, value in (
            ("epoch", "Highest epoch persisted.", status.epoch),
            ("leading", "1 if this replica leads.", int(status.role == "leader")),
            ("log_last_index", "Index of the last entry.", status.last_index),
            ("log_synced_index", "Last index known to be synced.", status.synced_index),
            ("commit_index", "Last index known to be committed.", status.commit_index),
            ("applied_index", "Last index in the record store.", status.applied_index),
            ("isr_size", "In-sync replicas, as far as is known here.", len(status.isr)),
            ("staleness_seconds", "Since it was known to be level.", status.stale_s),
            ("writable", "1 if a write would be accepted now.", int(status.refusal is None)),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"replicad_{name}", text, value=value)
        matched = GaugeMetricFamily(
            "replicad_follower_matched_index",
            "Follower's log equals ours to here.",
            labels=["node"],
        )
        contact = GaugeMetricFamily(
            "replicad_follower_last_contact_seconds", "Since it was last heard.", labels=["node"]
        )
        for node, follower in status.followers.items():
            matched.add_metric([node], follower.matched)
            contact.add_metric([node], follower.last_contact_s)
        yield matched
        yield contact
        yield CounterMetricFamily(
            "replicad_records_transactions",
            "Transactions of the record store.",
            value=self._transactions(),
        )
