"""The leader daemon's internal HTTP interface, seen from the gateway.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from io import BytesIO
from typing import Any, Final

import aiohttp
import orjson

from api_gateway.errors import NoAnswerError, NothingDoneError
from api_gateway.watch import Leader

COLLECTION: Final = "formularios"
_EPOCH_HEADER: Final = "X-Replicad-Epoch"
_CONNECT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Committed:
    """The write is on every in-sync replica.

    Attributes:
        index, epoch, digest: Of its log entry; the digest in hex.
        acks: The replicas that hold it.
        timing: Milliseconds by name: the leader's fsync, each follower's ack.
    """

    index: int
    epoch: int
    digest: str
    acks: tuple[str, ...]
    timing: Mapping[str, float]


class Verdict(Enum):
    """Outcomes of a write that say no more than their name.

    DUPLICATE: another request stored this id. MISMATCH: the request id came before with another
    body. UNKNOWN: appended, but leadership was lost before it committed.
    """

    DUPLICATE = "duplicate"
    MISMATCH = "mismatch"
    UNKNOWN = "unknown"


class Refusal(StrEnum):
    """Why a leader appended nothing."""

    NOT_ENOUGH_REPLICAS = "not-enough-replicas"
    DISK_FULL = "disk-full"
    OVERLOADED = "overloaded"
    NOT_LEADER = "not-leader"
    BROKER_DOWN = "broker-down"


WriteOutcome = Committed | Verdict | Refusal


class LeaderClient:
    """Calls the leader. Decides nothing: retries and deadlines are the callers'."""

    def __init__(self) -> None:
        """Open the connection pool; needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            # Callers bound each call as a whole; only a connection's start has a limit here.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def write(self, leader: Leader, lines: Sequence[bytes]) -> list[WriteOutcome]:
        """Send encoded writes as one request.

        Returns:
            One outcome for each line, in their order.

        Raises:
            NothingDoneError: No line was appended.
            NoAnswerError: Any of them may have been appended.
        """
        answers = await self._post(leader, "writes", b"".join(lines), count=len(lines))
        try:
            return [_decode_outcome(answer) for answer in answers]
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswerError(f"{leader.name} sent an answer that is none") from error

    async def get(self, leader: Leader, keys: Sequence[str]) -> list[bytes | None]:
        """Read the forms with these ids, linearizably.

        Returns:
            The stored bytes of each, in the order of `keys`; None where there is no such form.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        body = orjson.dumps({"collection": COLLECTION, "keys": keys})
        answers = await self._post(leader, "gets", body, count=len(keys))
        return [None if answer == b"null" else answer for answer in answers]

    async def _post(self, leader: Leader, path: str, body: bytes, *, count: int) -> list[bytes]:
        headers = {_EPOCH_HEADER: str(leader.epoch)}
        url = f"{leader.url}/internal/{path}"
        # BytesIO is written in pieces: megabytes at once would hold up the loop.
        with _translated(leader.url):
            async with self._session.post(url, data=BytesIO(body), headers=headers) as response:
                _check_status(response)
                answers = (await response.read()).removesuffix(b"\n").split(b"\n")
        if len(answers) != count:
            raise NoAnswerError(f"{leader.url} answered {len(answers)} of {count}")
        return answers

    async def records(self, leader: Leader, genero: str | None) -> aiohttp.ClientResponse:
        """Begin to read all forms, or those of one genero, as one JSON array.

        Returns:
            The open response, whose body is the array. The caller closes it.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        query = {"collection": COLLECTION} | ({} if genero is None else {"genero": genero})
        with _translated(leader.url):
            response = await self._session.get(
                f"{leader.url}/internal/records",
                params=query,
                headers={_EPOCH_HEADER: str(leader.epoch)},
            )
        try:
            _check_status(response)
        except (NothingDoneError, NoAnswerError):
            response.close()
            raise
        return response

    async def status(self, url: str) -> Mapping[str, Any]:
        """What a replica says of itself.

        Raises:
            LeaderError: It did not say.
        """
        with _translated(url):
            async with self._session.get(f"{url}/internal/status") as response:
                _check_status(response)
                body = await response.read()
        try:
            status = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise NoAnswerError(f"{url} sent a status that is not JSON") from error
        if not isinstance(status, dict):
            raise NoAnswerError(f"{url} sent a status that is not an object")
        return status


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NothingDoneError(f"no connection to {url}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NoAnswerError(f"the connection to {url} broke") from error


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 421:
        raise NothingDoneError(f"{response.url.host} does not lead in this epoch")
    if response.status != 200:
        # Also a 500: it may have come after the append.
        raise NoAnswerError(f"{response.url.host} answered {response.status}")


def _decode_outcome(line: bytes) -> WriteOutcome:
    answer = orjson.loads(line)
    match answer["status"]:
        case "committed":
            return Committed(
                index=answer["index"],
                epoch=answer["epoch"],
                digest=answer["digest"],
                acks=tuple(answer["acks"]),
                timing=answer["timing"],
            )
        case "refused":
            return Refusal(answer["reason"])
        case verdict:
            return Verdict(verdict)
