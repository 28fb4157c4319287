"""What clients ask of records, made into writes that the leader takes.

A record is checked by its collection's definition as last seen. Whether that is still so is found
out only when it matters: when the leader says that it is not, and before a client is told that
its record does not pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import orjson

from api_gateway.cluster.forwarding import Writes
from api_gateway.cluster.leader import Committed, Stored
from api_gateway.errors import (
    BodyTooLargeError,
    InvalidRecordError,
    KeyReusedError,
    NoSuchCollectionError,
    NoSuchRecordError,
    PreconditionFailedError,
    RejectedError,
    RequestError,
    UnavailableError,
)
from api_gateway.idempotency import Key
from api_gateway.reading.reads import Reads
from api_gateway.records.batches import BatchOperation
from api_gateway.records.conditions import etag_of, refusal_of
from api_gateway.records.definitions import Definition, Definitions
from api_gateway.records.forms import is_id
from api_gateway.records.patches import merge
from api_gateway.records.strict_json import ObjectText
from replicad.core.effects import Reason, Rejected
from replicad.core.write import (
    Condition,
    Operation,
    Wanted,
    fingerprint_of,
    patch_fingerprint_of,
)

RECORD_BYTES_MAX: Final = 1024 * 1024
# A longer record is patched beside the event loop.
_INLINE_BYTES_MAX: Final = 64 * 1024
Prepare = Callable[[Definition, float], Awaitable[tuple[Operation, ...]]]


class _Asked(NamedTuple):
    """What a client asks for.

    Attributes:
        collection: Whose records.
        idempotency: What the request is known by.
        key: Of any of its records.
        fingerprint: Of the request.
        prepare: Makes the operations, as the definition allows, by a deadline.
        refusal: What the client is told when the state does not allow them; None if they rest on
            what was read, and are made anew then.
    """

    collection: str
    idempotency: Key
    key: str
    fingerprint: str
    prepare: Prepare
    refusal: Callable[[Rejected], RequestError] | None


class RecordWrites:
    """Puts, inserts, patches and deletes records."""

    def __init__(
        self, writes: Writes, reads: Reads, definitions: Definitions, *, deadline_s: float
    ) -> None:
        """Take the ways to the replicas; a request has `deadline_s` for all of its attempts."""
        self._writes = writes
        self._reads = reads
        self._definitions = definitions
        self._deadline_s = deadline_s

    async def put(
        self, collection: str, key: str, body: ObjectText, condition: Condition, idempotency: Key
    ) -> Committed:
        """Store a record under this id, whether it is new or not.

        Raises:
            PreconditionFailedError: The condition does not hold.
            InvalidRecordError: The collection does not take such a record.
            NoSuchCollectionError: There is no such collection.
            RequestError: As `Writes.write`.
        """
        operation = Operation(key, body.canonical, condition)
        conditional = condition is not Wanted.ANYTHING
        return await self._run(_storing(collection, operation, body, idempotency, conditional))

    async def insert(
        self, collection: str, body: ObjectText, idempotency: Key
    ) -> tuple[str, Committed]:
        """Store a new record under the id that it holds, and return that, too.

        Raises:
            RecordExistsError: There is a record with this id.
            RequestError: As `put`.
        """
        try:
            key = await self._id_of(collection, body.document)
            operation = Operation(key, body.canonical, Wanted.ABSENT)
            asked = _storing(collection, operation, body, idempotency, conditional=False)
            stored = await self._run(asked)
        except (NoSuchCollectionError, InvalidRecordError, KeyReusedError):
            # It may have been stored under the id that it held by an earlier definition.
            earlier = await self._inserted(collection, body, idempotency)
            if earlier is None:
                raise
            return earlier
        return key, stored

    async def _id_of(self, collection: str, document: dict[str, Any]) -> str:
        """The id that a record holds.

        Raises:
            NoSuchCollectionError: There is no such collection.
            InvalidRecordError: There is no id in it.
        """
        definition = await self._definitions.of(collection)
        if not is_id(document.get(definition.key)):
            definition = await self._definitions.reread(collection)
        if not is_id(document.get(definition.key)):
            definition.check(document)
        key: str = document[definition.key]
        return key

    async def _inserted(
        self, collection: str, body: ObjectText, idempotency: Key
    ) -> tuple[str, Committed] | None:
        """The id and the outcome of an earlier request with the same key.

        Raises:
            KeyReusedError: It asked for something else.
        """
        if not idempotency.is_own:
            return None
        outcome, _ = await self._reads.outcome(idempotency.text)
        if outcome["state"] == "unknown":
            return None
        key = outcome["key"]
        if key is None:  # A batch.
            raise KeyReusedError
        fingerprint = fingerprint_of(collection, [(key, body.canonical)])
        earlier = await self._writes.outcome(
            *(idempotency.text, fingerprint, collection, key),
            deadline=asyncio.get_running_loop().time() + self._deadline_s,
        )
        return None if earlier is None else (key, earlier)

    async def delete(
        self, collection: str, key: str, condition: Condition, idempotency: Key
    ) -> Committed:
        """Delete a record.

        Raises:
            NoSuchRecordError: There is none.
            RequestError: As `put`.
        """

        async def prepare(definition: Definition, deadline: float) -> tuple[Operation, ...]:
            return (Operation(key, None, condition),)

        fingerprint = fingerprint_of(collection, [(key, None)])
        refusal = partial(refusal_of, conditional=condition is not Wanted.ANYTHING)
        return await self._run(_Asked(collection, idempotency, key, fingerprint, prepare, refusal))

    async def patch(
        self, collection: str, key: str, patch: bytes, condition: Condition, idempotency: Key
    ) -> Committed:
        """Apply a merge patch to what the record is when the write takes place.

        Args:
            collection: Whose record.
            key: Its id.
            patch: A JSON object without white space.
            condition: What the record must be for the patch to be applied.
            idempotency: What the request is known by.

        Raises:
            NoSuchRecordError: There is none.
            RequestError: As `put`.
        """

        async def prepare(definition: Definition, deadline: float) -> tuple[Operation, ...]:
            stored, _ = await self._reads.get(collection, key, deadline=deadline)
            current = _require(stored, condition)
            if len(current.value) + len(patch) > _INLINE_BYTES_MAX:
                merged = await asyncio.to_thread(merge, current.value, patch)
            else:
                merged = merge(current.value, patch)
            if len(merged) > RECORD_BYTES_MAX:
                raise BodyTooLargeError(1)
            definition.check(orjson.loads(merged), key)
            return (Operation(key, merged, (current.version,)),)

        fingerprint = patch_fingerprint_of(collection, key, patch)
        return await self._run(
            _Asked(collection, idempotency, key, fingerprint, prepare, refusal=None)
        )

    async def batch(
        self, collection: str, batch: list[BatchOperation], idempotency: Key
    ) -> Committed:
        """Do several operations, all or none.

        Raises:
            RequestError: As the single ones; `extensions` names the operation's position and id.
        """

        async def prepare(definition: Definition, deadline: float) -> tuple[Operation, ...]:
            for position, each in enumerate(batch):
                try:
                    if each.document is not None:
                        definition.check(each.document, each.operation.key)
                except InvalidRecordError as error:
                    error.extensions = {**error.extensions, **_place(batch, position)}
                    raise
            return tuple(each.operation for each in batch)

        def refusal(rejected: Rejected) -> RequestError:
            position = rejected.position
            return refusal_of(
                rejected,
                conditional=batch[position].conditional,
                extensions=_place(batch, position),
            )

        contents = [(each.operation.key, each.operation.value) for each in batch]
        fingerprint = fingerprint_of(collection, contents)
        return await self._run(
            _Asked(collection, idempotency, contents[0][0], fingerprint, prepare, refusal)
        )

    async def _run(self, asked: _Asked) -> Committed:
        """Have it done, by the definition that there is."""
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        is_fresh = False
        while True:
            read = self._definitions.reread if is_fresh else self._definitions.of
            try:
                definition = await read(asked.collection, deadline=deadline)
                operations = await asked.prepare(definition, deadline)
            except UnavailableError:
                raise
            except RequestError as refusal:
                if isinstance(refusal, InvalidRecordError) and not is_fresh:
                    is_fresh = True
                    continue
                earlier = await self._earlier(asked, deadline)
                if earlier is None:
                    raise
                return earlier
            try:
                return await self._writes.write(
                    asked.idempotency.text,
                    asked.fingerprint,
                    asked.collection,
                    definition.version,
                    operations,
                    deadline=deadline,
                )
            except RejectedError as error:
                if error.rejected.reason is Reason.DEFINITION:
                    is_fresh = True
                elif asked.refusal is not None:
                    raise asked.refusal(error.rejected) from error

    async def _earlier(self, asked: _Asked, deadline: float) -> Committed | None:
        """What an earlier request with the same key did: that is what its repetition is told."""
        if not asked.idempotency.is_own:
            return None
        return await self._writes.outcome(
            asked.idempotency.text,
            asked.fingerprint,
            asked.collection,
            asked.key,
            deadline=deadline,
        )


def _storing(
    collection: str, operation: Operation, body: ObjectText, idempotency: Key, conditional: bool
) -> _Asked:
    async def prepare(definition: Definition, deadline: float) -> tuple[Operation, ...]:
        definition.check(body.document, operation.key)
        return (operation,)

    fingerprint = fingerprint_of(collection, [(operation.key, body.canonical)])
    refusal = partial(refusal_of, conditional=conditional)
    return _Asked(collection, idempotency, operation.key, fingerprint, prepare, refusal)


def _require(stored: Stored | None, condition: Condition) -> Stored:
    """The record, if it is as a patch wants it."""
    if stored is None:
        if condition is Wanted.ANYTHING:
            raise NoSuchRecordError
        raise PreconditionFailedError(extensions={"etag": None})
    if isinstance(condition, tuple) and stored.version not in condition:
        raise PreconditionFailedError(extensions={"etag": etag_of(stored.version)})
    return stored


def _place(batch: list[BatchOperation], position: int) -> dict[str, object]:
    return {"position": position, "id": batch[position].operation.key}
