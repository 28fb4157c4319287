"""What operators and their tools ask: the cluster's state, health and metrics."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from api_gateway.cluster.cluster_report import report_cluster, why_not_writable
from api_gateway.cluster.history_report import report_history
from api_gateway.cluster.leader import LeaderClient
from api_gateway.cluster.watch import ClusterWatch
from api_gateway.errors import RETRY_AFTER
from api_gateway.metrics import Metrics
from api_gateway.web import responses


@dataclass(frozen=True, slots=True)
class OperationRoutes:
    """Handlers of the operators' paths."""

    client: LeaderClient
    watch: ClusterWatch
    metrics: Metrics

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/v1/cluster", self.cluster),
            web.get("/v1/cluster/history", self.history),
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/metrics", self.exposition),
        ]

    async def cluster(self, request: web.Request) -> web.Response:
        """Who leads, who is in sync, how far each replica is. Always 200."""
        return responses.raw_json(orjson.dumps(await report_cluster(self.watch, self.client)))

    async def history(self, request: web.Request) -> web.Response:
        """Who led when, and why that changed. Always 200."""
        return responses.raw_json(orjson.dumps(await report_history(self.watch, self.client)))

    async def health(self, request: web.Request) -> web.Response:
        """The process lives and its event loop turns."""
        return responses.raw_json(b'{"status":"ok"}')

    async def readiness(self, request: web.Request) -> web.Response:
        """Ready only when a write could succeed; otherwise the reason."""
        reason = await why_not_writable(self.watch, self.client)
        if reason is not None:
            return responses.error(reason, status=503, headers=RETRY_AFTER)
        return responses.raw_json(b'{"status":"ok"}')

    async def exposition(self, request: web.Request) -> web.Response:
        """Metrics for Prometheus."""
        self.metrics.leader_known.set(self.watch.leader_is_member)
        return web.Response(
            body=self.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
