"""Forwards writes to whoever leads, across failovers, until their deadlines.

A write is never applied twice: all its attempts carry one request id, and a leader that finds the
id in its log answers with the first outcome. What this module keeps is the other half of that
promise: once an attempt may have been appended, only an outcome that the log confirms is told to
the client; a later refusal says nothing about the earlier attempt. A rejection does: the leader
that confirms it lets no earlier attempt of the same call in any more.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

from api_gateway.cluster.coalescer import Call, Coalescer
from api_gateway.cluster.leader import Committed, LeaderClient, Refusal, WriteOutcome
from api_gateway.cluster.watch import ClusterWatch, Leader
from api_gateway.errors import (
    KeyReusedError,
    NothingDoneError,
    OutcomeUnknownError,
    RejectedError,
    StorageFullError,
    UnavailableError,
    WriteTooLargeError,
)
from api_gateway.metrics import Metrics
from replicad.core.effects import Reason, Rejected, Unresolved
from replicad.core.write import WRITE_BYTES_MAX, Operation, WriteRequest, encode_write

_MIB: Final = 1024 * 1024
_WRITES_IN_BATCH_MAX: Final = 1_000
_WRITE_BATCH_BYTES_MAX: Final = 4 * _MIB


@dataclass(slots=True)
class _Outgoing:
    """A write, the line of its first attempt, and how many there have been."""

    write: WriteRequest
    line: bytes
    attempts: int = 0

    def next_attempt(self) -> bytes:
        """The line of one more attempt."""
        self.attempts += 1
        if self.attempts == 1:
            return self.line
        return encode_write(self.write._replace(attempt=self.attempts))


class Writes:
    """Changes records through the leader."""

    def __init__(self, client: LeaderClient, watch: ClusterWatch, metrics: Metrics) -> None:
        """Prepare; the coalescer's workers are started by the application."""
        self._client = client
        # Calls are told apart by gateway and number.
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self.coalescer: Coalescer[_Outgoing, Committed] = Coalescer(
            "write",
            self._send,
            watch,
            metrics,
            batch_calls_max=_WRITES_IN_BATCH_MAX,
            batch_bytes_max=_WRITE_BATCH_BYTES_MAX,
        )

    async def write(
        self,
        request: str,
        fingerprint: str,
        collection: str,
        definition: int,
        operations: tuple[Operation, ...],
        *,
        deadline: float,
        if_empty: bool = False,
    ) -> Committed:
        """Have a write done, once, however often it is sent.

        Args:
            request: The idempotency key.
            fingerprint: As in WriteRequest.
            collection: Whose records.
            definition: The version of the definition by which they were checked.
            operations: What is to happen.
            deadline: When there must be an answer, in the event loop's time.
            if_empty: As in WriteRequest.

        Raises:
            RejectedError: The state does not allow it; nothing was done.
            KeyReusedError: The request id came before with another fingerprint.
            WriteTooLargeError: It does not fit into one entry of the log.
            StorageFullError: Nothing was stored: the leader's disk is full.
            UnavailableError: Nothing was stored: no leader, or too few in-sync replicas.
            OutcomeUnknownError: The deadline came, and an attempt may have been appended.
        """
        call_name = f"{self._name}{next(self._numbers):x}"
        write = WriteRequest(
            *(request, fingerprint, collection, definition, operations, call_name),
            if_empty=if_empty,
        )
        line = encode_write(write)
        if len(line) > WRITE_BYTES_MAX:
            raise WriteTooLargeError
        call: Call[_Outgoing, Committed] = Call(_Outgoing(write, line), len(line), deadline)
        try:
            return await self.coalescer.run(call)
        except TimeoutError:
            if call.in_doubt:
                raise OutcomeUnknownError(request) from None
            raise UnavailableError from None

    async def outcome(
        self, request: str, fingerprint: str, collection: str, key: str, *, deadline: float
    ) -> Committed | None:
        """What this request id did before, if it did anything.

        Args:
            request: The idempotency key.
            fingerprint: As in WriteRequest.
            collection: Whose records.
            key: Any record's.
            deadline: As in `write`.

        Raises:
            KeyReusedError: It came before with another fingerprint.
            UnavailableError: Nobody could tell by the deadline.
        """
        # No record has one of no versions: this can only be answered from memory.
        never = (Operation(key, None, ()),)
        try:
            return await self.write(request, fingerprint, collection, 0, never, deadline=deadline)
        except RejectedError:
            return None
        except OutcomeUnknownError:
            raise UnavailableError from None

    async def _send(self, leader: Leader, calls: Sequence[Call[_Outgoing, Committed]]) -> None:
        lines = [call.payload.next_attempt() for call in calls]
        doubts_before = [call.in_doubt for call in calls]
        for call in calls:
            call.in_doubt = True  # First: the deadline may come while the answer is awaited.
        try:
            outcomes = await self._client.write(leader, lines)
        except NothingDoneError:
            for call, doubt in zip(calls, doubts_before, strict=True):
                call.in_doubt = doubt
            raise
        for call, doubt, outcome in zip(calls, doubts_before, outcomes, strict=True):
            _settle(call, outcome, in_doubt_before=doubt)


def _settle(
    call: Call[_Outgoing, Committed], outcome: WriteOutcome, *, in_doubt_before: bool
) -> None:
    match outcome:
        case Committed():
            # What an attempt of this very call did is no replay.
            is_replay = outcome.again and not in_doubt_before
            call.settle(outcome if outcome.again is is_replay else replace(outcome, again=False))
        case Rejected(reason=Reason.MISMATCH):
            call.fail(KeyReusedError())
        case Rejected():
            # Also of an attempt in doubt: its own id would have been found first.
            call.fail(RejectedError(outcome))
        case Unresolved():
            pass  # The next attempt, with the same id, finds out.
        case Refusal():
            call.in_doubt = in_doubt_before
            if not in_doubt_before:
                _refuse(call, outcome)
        case _:
            assert_never(outcome)


def _refuse(call: Call[_Outgoing, Committed], refusal: Refusal) -> None:
    """Answer at once where waiting does not help; anything else is tried again."""
    if refusal is Refusal.DISK_FULL:
        call.fail(StorageFullError())
    elif refusal is Refusal.NOT_ENOUGH_REPLICAS:
        call.fail(
            UnavailableError(
                "There are not enough in-sync replicas. Try again later.",
                "No hay suficientes réplicas sincronizadas. Intente de nuevo más tarde.",
            )
        )
