"""Requests to whichever gateway answers, tried again until a deadline.

A write carries one idempotency key through all its attempts, at whatever gateway, so that it is
stored once. An attempt that may have been sent leaves the outcome in doubt until an answer tells.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import aiohttp
import orjson

from replicad.client.errors import (
    OutcomeUnknownError,
    ProtocolError,
    UnavailableError,
    problem_error,
)

_CONNECT_S: Final = 2.0
_PAUSE_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_TRY_AGAIN: Final = frozenset({429, 502, 503})
_IN_DOUBT: Final = frozenset({500, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's answer with a status below 400."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401
        """The decoded body.

        Raises:
            ProtocolError: It is no JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"the answer is not JSON: {self.body[:60]!r}") from error


class Transport:
    """Several gateways seen as one."""

    def __init__(
        self, urls: Iterable[str], *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        """Prepare; needs a running loop only when it is entered.

        Args:
            urls: Of gateways; the first that answers is kept to.
            timeout_s: For each call, all its attempts and pauses together.
            headers: Sent with every request.

        Raises:
            ValueError: There is no URL.
        """
        self._urls = [url.rstrip("/") for url in urls]
        if not self._urls:
            raise ValueError("a client needs the URL of at least one gateway")
        self._at = 0
        self.timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        write_key: str | None = None,
        accept: tuple[int, ...] = (),
    ) -> Answer:
        """Send a request until a gateway has decided it.

        Args:
            method: Of HTTP.
            path: With its leading slash, quoted.
            params: The query.
            headers: More headers.
            body: JSON.
            write_key: The idempotency key of a write; None for a read.
            accept: Statuses from 400 on that are answers, too.

        Raises:
            ProblemError: The gateway refused it.
            UnavailableError: Nobody could serve it by the deadline; nothing was done.
            OutcomeUnknownError: The deadline came, and an attempt may have been stored.
            ProtocolError: The answer is none of a gateway.
        """
        sent = dict(headers or {})
        if write_key is not None:
            sent["Idempotency-Key"] = write_key
        in_doubt, trouble = False, "no attempt was made"
        try:
            async with asyncio.timeout(self.timeout_s):
                for pause_s in pauses():
                    wait_s = pause_s
                    try:
                        doubt_before, in_doubt = in_doubt, write_key is not None
                        async with self._request(method, path, params, sent, body) as response:
                            answer = await response.read()
                            if response.status in accept:
                                return Answer(response.status, response.headers, answer)
                            if response.status not in _TRY_AGAIN | _IN_DOUBT:
                                return _decide(response, answer)
                            if response.status in _TRY_AGAIN:
                                in_doubt = doubt_before
                            trouble = f"{response.url.origin()} answered {response.status}"
                            wait_s = max(wait_s, _retry_after(response))
                    except aiohttp.ClientConnectorError as error:
                        in_doubt, trouble = doubt_before, str(error)
                    except (aiohttp.ClientError, OSError) as error:
                        trouble = str(error) or type(error).__name__
                    self.turn()
                    await asyncio.sleep(wait_s)
        except TimeoutError:
            pass
        if in_doubt and write_key is not None:
            raise OutcomeUnknownError(write_key)
        raise UnavailableError(f"no gateway served {method} {path}: {trouble}")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One attempt whose answer is read as it comes; its failures are the caller's.

        Raises:
            ProblemError: The gateway refused it.
            aiohttp.ClientError, OSError: It broke, or the gateway cannot serve it now: `turn` and
                try again.
        """
        async with self._request(method, path, params, dict(headers or {}), data) as response:
            if response.status in _TRY_AGAIN | _IN_DOUBT:
                raise aiohttp.ClientResponseError(
                    response.request_info, (), status=response.status, message="not now"
                )
            if response.status >= 400:
                _decide(response, await response.read())
            yield response

    def turn(self) -> None:
        """Go to the next gateway."""
        self._at = (self._at + 1) % len(self._urls)

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        data: bytes | AsyncIterator[bytes] | None,
    ) -> Any:  # noqa: ANN401  # aiohttp's context manager.
        if self._session is None:
            raise RuntimeError("use the client within its `with` block")
        url = self._urls[self._at] + path
        return self._session.request(method, url, params=params, headers=headers, data=data)


def _decide(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    """An answer that is final: as it is, or as an error."""
    if response.status < 400:
        return Answer(response.status, response.headers, body)
    if response.content_type == "application/problem+json":
        problem = orjson.loads(body)
        if isinstance(problem, dict):
            raise problem_error(response.status, problem)
    raise ProtocolError(f"{response.url} answered {response.status}")


def pauses() -> Iterator[float]:
    """Longer and longer, and never the same for two clients."""
    pause_s = _PAUSE_S
    while True:
        yield random.uniform(pause_s / 2, pause_s)  # noqa: S311 - not a secret
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)


def _retry_after(response: aiohttp.ClientResponse) -> float:
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else 0.0
