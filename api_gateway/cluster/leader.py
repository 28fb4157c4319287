"""The daemons' internal HTTP interface, seen from the gateway.

Source: docs/protocol.md, "Gateway and leader".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, assert_never

import aiohttp
import orjson

from api_gateway.cluster.connections import Connections
from api_gateway.cluster.watch import Leader, Source
from api_gateway.errors import BehindError, GoneError, NoAnswerError, NothingDoneError
from api_gateway.reading.consistency import Seen
from replicad.core.effects import Reason, Rejected, Unresolved

_CONNECT_S: Final = 1.0


@dataclass(slots=True)
class Committed:
    """The write is on every in-sync replica.

    Attributes:
        index, epoch, digest: Of its log entry; the digest in hex. Epoch and digest are None in
            the answer to a retry so late that the log no longer has the entry.
        done: What it did to each record, in order: letters of `entry.DONE`.
        again: Whether this is the outcome of an earlier attempt or request.
        acks: The replicas that hold it.
        timing: Milliseconds by name, the leader's fsync and each follower's ack, as the header
            Server-Timing tells them (W3C Server Timing); empty if nothing was awaited.
    """

    # Not frozen: there is one for each write, and to make it would take four times as long.

    index: int
    epoch: int | None
    digest: str | None
    done: str
    again: bool
    acks: tuple[str, ...]
    timing: str


class Refusal(StrEnum):
    """Why a leader appended nothing."""

    NOT_ENOUGH_REPLICAS = "not-enough-replicas"
    DISK_FULL = "disk-full"
    OVERLOADED = "overloaded"
    NOT_LEADER = "not-leader"
    BROKER_DOWN = "broker-down"


WriteOutcome = Committed | Rejected | Unresolved | Refusal
RecordName = tuple[str, str]
"""A collection's name and the id of one of its records."""


class Stored(NamedTuple):
    """A record.

    Attributes:
        version: The index of the entry that last wrote it.
        value: Its bytes as stored.
    """

    version: int
    value: bytes


class LeaderClient:
    """Calls the leader and other replicas. Retries and deadlines are the callers'.

    A read is strong at a Leader. A Source answers with what it has applied, or is behind.
    """

    def __init__(self) -> None:
        """Open the connection pool; needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            # Callers bound each call as a whole; only a connection's start has a limit here.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._connections = Connections()

    async def close(self) -> None:
        """Close all connections."""
        self._connections.close()
        await self._session.close()

    async def write(self, leader: Leader, lines: Sequence[bytes]) -> list[WriteOutcome]:
        """Send encoded writes as one request.

        Returns:
            One outcome for each line, in their order.

        Raises:
            NothingDoneError: No line was appended.
            NoAnswerError: Any of them may have been appended.
        """
        body, _ = await self._post(leader, "writes", b"".join(lines))
        try:
            outcomes = _decode_outcomes(orjson.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoAnswerError(f"{leader.name} sent an answer that is none") from error
        if len(outcomes) != len(lines):
            raise NoAnswerError(f"{leader.url} answered {len(outcomes)} of {len(lines)}")
        return outcomes

    async def get(
        self, source: Leader | Source, names: Sequence[RecordName]
    ) -> tuple[list[Stored | None], Seen]:
        """Read these records.

        Returns:
            Each of them, in the order of `names`, None where there is none; and what they
            reflect, all at once.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        answer, headers = await self._post(source, "gets", orjson.dumps({"keys": names}))
        lines = _lines(source, answer, count=len(names))
        try:
            return [decode_record(line) for line in lines], _seen(source, headers)
        except ValueError as error:
            raise NoAnswerError(f"{source.name} sent an answer that is none") from error

    async def query(self, source: Leader | Source, query: bytes) -> tuple[bytes, Seen]:
        """Ask an encoded query.

        Returns:
            The answer's body, and what it reflects.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        answer, headers = await self._post(source, "query", query)
        return answer, _seen(source, headers)

    async def outcome(self, leader: Leader, request: str) -> tuple[Mapping[str, Any], Seen]:
        """What became of the write with this request id: see docs/protocol.md.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        body = orjson.dumps({"request": request})
        answer, headers = await self._post(leader, "requests", body)
        return _object(leader.url, answer), _seen(leader, headers)

    async def stream(
        self,
        source: Leader | Source,
        path: str,
        query: Mapping[str, str],
        upto: int | None = None,
    ) -> tuple[aiohttp.ClientResponse, Seen]:
        """Begin to read what is too long for one answer.

        Args:
            source: Whom to ask.
            path: Of the internal interface, for what (docs/protocol.md).
            query: Which of it.
            upto: As of this log index, which `source` must have applied.

        Returns:
            The open response, and what its body reflects. The caller closes the response.

        Raises:
            LeaderError: No answer, or none that the leader could confirm.
        """
        if upto is not None:
            query = {**query, "upto": str(upto)}
        with _translated(source.url):
            response = await self._session.get(
                f"{source.url}/internal/{path}", params=query, headers=_condition(source)
            )
        try:
            _check_status(response.status, source.url)
            return response, _seen(source, response.headers)
        except (NothingDoneError, NoAnswerError):
            response.close()
            raise

    async def read(
        self, source: Leader | Source, path: str, query: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str], Seen]:
        """Read an answer that fits into memory; otherwise as `stream`.

        Returns:
            Its body, its headers, and what it reflects.
        """
        response, seen = await self.stream(source, path, query)
        with _translated(source.url):
            async with response:
                return await response.read(), response.headers, seen

    async def _post(
        self, target: Leader | Source, path: str, body: bytes
    ) -> tuple[bytes, Mapping[str, str]]:
        reply = await self._connections.post(
            target.url, f"/internal/{path}", _condition(target), body
        )
        _check_status(reply.status, target.url)
        return reply.body, reply.headers

    async def status(self, url: str) -> Mapping[str, Any]:
        """What a replica says of itself.

        Raises:
            LeaderError: It did not say.
        """
        return await self._ask(url, "status")

    async def history(self, url: str) -> Mapping[str, Any]:
        """What a replica knows of the past: see docs/protocol.md.

        Raises:
            LeaderError: It did not say.
        """
        return await self._ask(url, "history")

    async def _ask(self, url: str, path: str) -> Mapping[str, Any]:
        with _translated(url):
            async with self._session.get(f"{url}/internal/{path}") as response:
                _check_status(response.status, url)
                return _object(url, await response.read())


def _condition(target: Leader | Source) -> dict[str, str]:
    """The header without whose truth the replica does nothing."""
    match target:
        case Leader():
            return {
                "X-Replicad-Epoch": str(target.epoch),
                "X-Replicad-Leader": target.incarnation,
            }
        case Source():
            return {"X-Replicad-Min-Index": str(target.min_index)}
        case _:
            assert_never(target)


def _lines(target: Leader | Source, body: bytes, *, count: int) -> list[bytes]:
    lines = body.removesuffix(b"\n").split(b"\n")
    if len(lines) != count:
        raise NoAnswerError(f"{target.url} answered {len(lines)} of {count}")
    return lines


def _object(url: str, body: bytes) -> Mapping[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NoAnswerError(f"{url} sent an answer that is not JSON") from error
    if not isinstance(answer, dict):
        raise NoAnswerError(f"{url} sent an answer that is not an object")
    return answer


def _seen(target: Leader | Source, headers: Mapping[str, str]) -> Seen:
    """What an answer says that it reflects, by its headers in lower case.

    Raises:
        NoAnswerError: It does not say, or another replica has answered than was asked: one that
            was started at an address known from before.
    """
    name, staleness = headers.get("x-replicad-replica"), headers.get("x-replicad-staleness-ms")
    if name != target.name:
        raise NoAnswerError(f"{name} answered instead of {target.name}")
    try:
        return Seen(
            name, int(headers["x-replicad-index"]), None if staleness is None else int(staleness)
        )
    except (KeyError, ValueError) as error:
        raise NoAnswerError(f"{target.url} did not say what its answer reflects") from error


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NothingDoneError(f"no connection to {url}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NoAnswerError(f"the connection to {url} broke") from error


def _check_status(status: int, url: str) -> None:
    if status == 421:
        raise NothingDoneError(f"{url} does not lead in this epoch")
    if status == 412:
        raise BehindError(f"{url} has not applied enough yet")
    if status == 410:
        raise GoneError(f"the log of {url} begins later")
    if status != 200:
        # Also a 500: it may have come after the append.
        raise NoAnswerError(f"{url} answered {status}")


def decode_record(line: bytes) -> Stored | None:
    """A line of the answer to `gets`: a version, a space and the value, or just `0`.

    Raises:
        ValueError: It is no such line.
    """
    if line == b"0":
        return None
    version, space, value = line.partition(b" ")
    if not space:
        raise ValueError("a record without a version")
    return Stored(int(version), value)


def _decode_outcomes(told: dict[str, Any]) -> list[WriteOutcome]:
    acks = tuple(told["acks"])
    timing = ", ".join(f"{name};dur={ms}" for name, ms in told["timing"].items())
    return [_decode_outcome(outcome, acks, timing) for outcome in told["outcomes"]]


def _decode_outcome(outcome: dict[str, Any], acks: tuple[str, ...], timing: str) -> WriteOutcome:
    match outcome["status"]:
        case "committed":
            return Committed(
                *(outcome["index"], outcome["epoch"], outcome["digest"], outcome["done"]),
                *(outcome["again"], acks, timing),
            )
        case "rejected":
            return Rejected(Reason(outcome["reason"]), outcome["position"], outcome["version"])
        case "refused":
            return Refusal(outcome["reason"])
        case unresolved:
            return Unresolved(unresolved)
