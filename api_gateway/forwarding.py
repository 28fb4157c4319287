"""Forwards writes to whoever leads, across failovers, until their deadlines.

A write is never applied twice: all its attempts carry one request id, and a leader that finds the
id in its log answers with the first outcome. What this module keeps is the other half of that
promise: once an attempt may have been appended, only an outcome that the log confirms is told to
the client; a later refusal says nothing about the earlier attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, assert_never

from api_gateway.coalescer import Call, Coalescer
from api_gateway.errors import (
    FormExistsError,
    KeyReusedError,
    NothingDoneError,
    OutcomeUnknownError,
    StorageFullError,
    UnavailableError,
)
from api_gateway.forms import Form
from api_gateway.leader import (
    COLLECTION,
    Committed,
    LeaderClient,
    Refusal,
    Verdict,
    WriteOutcome,
)
from api_gateway.metrics import Metrics
from api_gateway.watch import ClusterWatch, Leader
from replicad.core.entry import WriteRequest, encode_write, fingerprint_of

_WRITES_IN_BATCH_MAX: Final = 1_000
_WRITE_BATCH_BYTES_MAX: Final = 4 * 1024 * 1024

_NOT_ENOUGH_REPLICAS = "No hay suficientes réplicas sincronizadas. Intente de nuevo más tarde."


class Writes:
    """Stores forms through the leader."""

    def __init__(
        self, client: LeaderClient, watch: ClusterWatch, metrics: Metrics, *, deadline_s: float
    ) -> None:
        """Prepare; the coalescer's workers are started by the application."""
        self._client = client
        self._deadline_s = deadline_s
        self.coalescer: Coalescer[bytes, Committed] = Coalescer(
            "write",
            self._send,
            watch,
            metrics,
            batch_calls_max=_WRITES_IN_BATCH_MAX,
            batch_bytes_max=_WRITE_BATCH_BYTES_MAX,
        )

    async def insert(self, form: Form, idempotency_key: str) -> Committed:
        """Store a new form, once, however often it is sent.

        Raises:
            FormExistsError: Another request stored this id.
            KeyReusedError: The key came before with another form.
            StorageFullError: Nothing was stored: the leader's disk is full.
            UnavailableError: Nothing was stored: no leader, or too few in-sync replicas.
            OutcomeUnknownError: The deadline came, and an attempt may have been appended.
        """
        line = encode_write(
            WriteRequest(
                request=idempotency_key,
                fingerprint=fingerprint_of(COLLECTION, form.key, form.value),
                collection=COLLECTION,
                key=form.key,
                value=form.value,
            )
        )
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        call: Call[bytes, Committed] = Call(line, len(line), deadline)
        try:
            return await self.coalescer.run(call)
        except TimeoutError:
            if call.in_doubt:
                raise OutcomeUnknownError(idempotency_key) from None
            raise UnavailableError from None

    async def _send(self, leader: Leader, calls: Sequence[Call[bytes, Committed]]) -> None:
        doubts_before = [call.in_doubt for call in calls]
        for call in calls:
            call.in_doubt = True  # First: the deadline may come while the answer is awaited.
        try:
            outcomes = await self._client.write(leader, [call.payload for call in calls])
        except NothingDoneError:
            for call, doubt in zip(calls, doubts_before, strict=True):
                call.in_doubt = doubt
            raise
        for call, doubt, outcome in zip(calls, doubts_before, outcomes, strict=True):
            _settle(call, outcome, in_doubt_before=doubt)


def _settle(call: Call[bytes, Committed], outcome: WriteOutcome, *, in_doubt_before: bool) -> None:
    match outcome:
        case Committed():
            call.settle(outcome)
        case Verdict.DUPLICATE:
            # Of another request: this one's own id would have been found first.
            call.fail(FormExistsError())
        case Verdict.MISMATCH:
            call.fail(KeyReusedError())
        case Verdict.UNKNOWN:
            pass  # The next attempt, with the same id, finds out.
        case Refusal():
            call.in_doubt = in_doubt_before
            if not in_doubt_before:
                _refuse(call, outcome)
        case _:
            assert_never(outcome)


def _refuse(call: Call[bytes, Committed], refusal: Refusal) -> None:
    """Answer at once where waiting does not help; anything else is tried again."""
    if refusal is Refusal.DISK_FULL:
        call.fail(StorageFullError())
    elif refusal is Refusal.NOT_ENOUGH_REPLICAS:
        call.fail(UnavailableError(_NOT_ENOUGH_REPLICAS))
