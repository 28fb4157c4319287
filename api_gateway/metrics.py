"""What the gateway counts. Each gateway has a registry of its own: a process may hold several."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS: Final = Histogram.DEFAULT_BUCKETS


class Metrics:
    """The gateway's metrics; names and units as Prometheus wants them."""

    def __init__(self) -> None:
        """Register them all, at zero."""
        self._registry = CollectorRegistry()
        self.requests = Requests()
        self._registry.register(self.requests)
        self.in_flight = Gauge(
            "replicad_gateway_in_flight",
            "Requests being answered, feeds and streams included.",
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "replicad_gateway_batch_size",
            "Client requests that travelled to a replica as one.",
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


class Requests(Collector):
    """Requests and their seconds.

    Kept in plain dictionaries, of which Prometheus' own classes are made only when somebody asks:
    their locks and labels cost more than all else that happens around a request.
    """

    def __init__(self) -> None:
        """Nothing happened yet."""
        self._answered: dict[tuple[str, str, int], int] = {}
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `seconds` from its head to the end of its answer."""
        labels = route, method, status
        self._answered[labels] = self._answered.get(labels, 0) + 1
        if route not in self._counts:
            self._counts[route] = [0] * len(_SECONDS)
        self._counts[route][bisect_left(_SECONDS, seconds)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def collect(self) -> Iterator[Metric]:
        """What there is, as Prometheus wants it."""
        answered = CounterMetricFamily(
            "replicad_gateway_requests", "Requests answered.", labels=("route", "method", "status")
        )
        for (route, method, status), count in self._answered.items():
            answered.add_metric((route, method, str(status)), count)
        yield answered
        seconds = HistogramMetricFamily(
            "replicad_gateway_request_seconds",
            "From a request's head to the end of its answer.",
            labels=("route",),
        )
        bounds = ["+Inf" if bound == inf else str(bound) for bound in _SECONDS]
        for route, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            seconds.add_metric((route,), buckets, self._seconds[route])
        yield seconds
