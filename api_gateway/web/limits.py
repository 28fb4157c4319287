"""How much clients may ask at once, and one client in a second."""

from __future__ import annotations

import asyncio
import ipaddress
import math
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from api_gateway.errors import TooManyRequestsError

# What tells whether a gateway is well must answer most of all when it is not.
_UNLIMITED: Final = frozenset(("/healthz", "/readyz", "/metrics"))
# Some 10 MB of addresses.
_CLIENTS_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gateway lets clients do.

    Attributes:
        in_flight_max: Requests that are being answered at one time, feeds and streams included.
        requests_per_s: Of one client, in the long run; None for no limit.
        burst: Requests that one client may make at once after a pause; None for as many as
            `requests_per_s` allows in one second.
    """

    in_flight_max: int = 5_000
    requests_per_s: float | None = None
    burst: int | None = None


DEFAULT_LIMITS: Final = Limits()


class RateLimiter:
    """A token bucket for each client, kept as the one time at which it would be full again.

    Source: the generic cell rate algorithm, ITU-T I.371, annex A.
    """

    def __init__(self, requests_per_s: float, burst: int) -> None:
        """Fill every bucket with `burst` tokens; each gets `requests_per_s` of them back."""
        self._interval_s = 1 / requests_per_s
        self._burst_s = burst * self._interval_s
        self._full_at: dict[str, float] = {}

    def admit(self, client: str, now_s: float) -> float:
        """Take a token if there is one.

        Returns:
            0 if there was one, else the seconds until there is.
        """
        full_at = max(self._full_at.get(client, now_s), now_s) + self._interval_s
        excess_s = full_at - now_s - self._burst_s
        if excess_s > 1e-9:  # What rounding may leave.
            return excess_s
        if client not in self._full_at and len(self._full_at) >= _CLIENTS_MAX:
            self._forget(now_s)
        self._full_at[client] = full_at
        return 0

    def _forget(self, now_s: float) -> None:
        """Drop the buckets that are full, and the older half of the rest if there are none."""
        kept = {client: at for client, at in self._full_at.items() if at > now_s}
        if len(kept) >= _CLIENTS_MAX:
            kept = dict(list(kept.items())[_CLIENTS_MAX // 2 :])
        self._full_at = kept


class Admission:
    """Refuses what is beyond the limits.

    Attributes:
        in_flight: Requests that are being answered.
    """

    def __init__(self, limits: Limits) -> None:
        """Nothing is being answered yet."""
        self.in_flight = 0
        self._in_flight_max = limits.in_flight_max
        self._limiter: RateLimiter | None = None
        if limits.requests_per_s is not None:
            burst = limits.burst or max(1, math.ceil(limits.requests_per_s))
            self._limiter = RateLimiter(limits.requests_per_s, burst)

    @property
    def is_open(self) -> bool:
        """Whether any client may ask now, as far as is known without looking at the client."""
        return self._limiter is None and self.in_flight < self._in_flight_max

    async def run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Have the request answered, if that is within the limits.

        Raises:
            TooManyRequestsError: It is not.
        """
        if request.raw_path.partition("?")[0] in _UNLIMITED:
            return await handler(request)
        if self.in_flight >= self._in_flight_max:
            raise _overloaded()
        if self._limiter is not None:
            now_s = asyncio.get_running_loop().time()
            wait_s = self._limiter.admit(client_of(request.remote), now_s)
            if wait_s:
                raise _too_fast(wait_s)
        self.in_flight += 1
        try:
            return await handler(request)
        finally:
            self.in_flight -= 1


def client_of(address: str | None) -> str:
    """Who is counted as one client: an IPv4 address, or the /64 network of an IPv6 one."""
    if not address or ":" not in address:
        return address or ""
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[:8].hex()


def _overloaded() -> TooManyRequestsError:
    return TooManyRequestsError(
        "This gateway is answering as many requests as it may. Try again.",
        "Este gateway ya atiende tantas solicitudes como puede. Intente de nuevo.",
        retry_after_s=1,
    )


def _too_fast(wait_s: float) -> TooManyRequestsError:
    return TooManyRequestsError(
        "Your address makes more requests than it may. Try again after Retry-After.",
        "Su dirección hace más solicitudes de las permitidas. Intente después de Retry-After.",
        retry_after_s=math.ceil(wait_s),
    )
