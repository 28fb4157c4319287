"""What the gateway counts. Each gateway has a registry of its own: a process may hold several."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The gateway's metrics; names and units as Prometheus wants them."""

    def __init__(self) -> None:
        """Register them all, at zero."""
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "replicad_gateway_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "replicad_gateway_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "replicad_gateway_in_flight",
            "Requests being answered, feeds and streams included.",
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "replicad_gateway_batch_size",
            "Client requests that travelled to the leader as one.",
            ("kind",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry=self._registry,
        )
        self.retries = Counter(
            "replicad_gateway_retries",
            "Client requests that had to be sent to a leader again.",
            ("kind",),
            registry=self._registry,
        )
        self.leader_known = Gauge(
            "replicad_gateway_leader_known",
            "1 while a living replica is known to lead.",
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
