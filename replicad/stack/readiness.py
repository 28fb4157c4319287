"""Whether a stack can be used: its leader elected, all replicas in sync, its gateways ready."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

import orjson

_TIMEOUT_S: Final = 3.0


def unready_reason(gateway_urls: Sequence[str], replicas: Sequence[str]) -> str | None:
    """Why the stack cannot be used yet; None when it can."""
    cluster = cluster_view(gateway_urls[0])
    if cluster is None:
        return "the gateway does not answer"
    if cluster["leader"] is None:
        return "no leader has been elected"
    lagging = sorted(set(replicas) - set(cluster["isr"]))
    if lagging:
        return f"not in sync: {', '.join(lagging)}"
    for url in gateway_urls:
        status, body = get(f"{url}/readyz")
        if status != 200:
            return f"{url}/readyz says {status} {body[:200].decode(errors='replace')}"
    return None


def cluster_view(gateway_url: str) -> dict[str, Any] | None:
    """What GET /v1/cluster says; None while the gateway does not answer it."""
    status, body = get(f"{gateway_url}/v1/cluster")
    if status != 200:
        return None
    view: dict[str, Any] = orjson.loads(body)
    return view


def get(url: str) -> tuple[int, bytes]:
    """One GET to a loopback address: status and body; status 0 when there is no answer."""
    # No proxy, whatever the environment says: the address is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, urllib.error.URLError):
        return 0, b""
