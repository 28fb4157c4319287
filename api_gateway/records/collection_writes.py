"""Defines collections: what their records are like is a record itself, written like any other.

A new schema is compared with all records first. Those that are written while that goes on are
compared once it is in force, and the answer tells which of them do not pass. Another key field
needs an empty collection; whether it is that when the definition changes is the leader's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from api_gateway.bulk.record_lines import LineSplitter
from api_gateway.bulk.streams import RecordStream
from api_gateway.cluster.forwarding import Writes
from api_gateway.cluster.leader import Committed
from api_gateway.errors import (
    CollectionBuiltInError,
    KeyFieldFixedError,
    LeaderError,
    NoSuchCollectionError,
    PreconditionFailedError,
    RecordsWouldNotPassError,
    RejectedError,
    UnavailableError,
)
from api_gateway.idempotency import Key
from api_gateway.reading.consistency import STRONG, Wish
from api_gateway.reading.reads import Reads
from api_gateway.records.conditions import etag_of, refusal_of
from api_gateway.records.definitions import (
    FORMS,
    Definition,
    Definitions,
    built_in,
    definition_from,
    parse_definition,
)
from replicad.core.effects import Reason
from replicad.core.write import DEFINITIONS, Condition, Operation, Wanted, fingerprint_of

_TOLD_MAX: Final = 100
# Records that are checked before anything else gets its turn: about a millisecond.
_SLICE: Final = 200
_NAMES_IN_READ_MAX: Final = 64


@dataclass(slots=True)
class Failing:
    """Records that do not pass a definition.

    Attributes:
        index: As of which log index all records were looked at.
        count: How many there are.
        records: Ids and errors of the first ones.
    """

    index: int
    count: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        """Count one, and keep it if there is room."""
        self.count += 1
        if len(self.records) < _TOLD_MAX:
            self.records.append(record)

    def describe(self) -> dict[str, Any]:
        """What clients see."""
        return {"count": self.count, "records": self.records}


class CollectionWrites:
    """Defines and removes collections, and lists them."""

    def __init__(
        self, writes: Writes, reads: Reads, definitions: Definitions, *, deadline_s: float
    ) -> None:
        """Take the ways to the replicas; each write has `deadline_s` for all of its attempts."""
        self._writes = writes
        self._reads = reads
        self._definitions = definitions
        self._deadline_s = deadline_s

    async def all(self, wish: Wish) -> list[Definition]:
        """All collections, in the order of their names.

        Raises:
            UnavailableError: They could not be read.
        """
        documents = _documents(await self._reads.export(DEFINITIONS, wish))
        names = [told["name"] async for told in documents]
        found = {FORMS: built_in()}
        for start in range(0, len(names), _NAMES_IN_READ_MAX):
            some = names[start : start + _NAMES_IN_READ_MAX]
            stored = await self._reads.get_all([(DEFINITIONS, name) for name in some], wish)
            for name, record in zip(some, stored, strict=True):
                definition = definition_from(name, record)
                if definition is not None:  # Else it was removed a moment ago.
                    found[name] = definition
        return [found[name] for name in sorted(found)]

    async def put(
        self,
        name: str,
        document: dict[str, Any],
        condition: Condition,
        idempotency: Key,
        *,
        force: bool,
    ) -> tuple[Definition, Committed, Failing | None]:
        """Define a collection, anew or otherwise than before.

        Args:
            name: Its name.
            document: Its definition, as the client sent it.
            condition: What the client asks of the definition there is.
            idempotency: What the request is known by.
            force: Whether records that do not pass are put up with.

        Returns:
            The definition, the outcome, and which records do not pass; None if that was not
            looked at, because nothing changes for them or because this is a repetition, or
            could not be once the definition was in force.

        Raises:
            InvalidDefinitionError: It breaks a rule.
            PreconditionFailedError: The condition does not hold.
            KeyFieldFixedError: It has another key field, and there are records.
            RecordsWouldNotPassError: There are records that do not pass.
            RequestError: As `Writes.write`.
        """
        wanted = parse_definition(name, document)
        value = wanted.encode()
        fingerprint = fingerprint_of(DEFINITIONS, [(name, value)])
        earlier = await self._earlier(idempotency, fingerprint, name)
        if earlier is not None:
            return _at(wanted, earlier), earlier, None
        while True:
            stored, _ = await self._reads.get(DEFINITIONS, name)
            current = definition_from(name, stored)
            _check(current, condition)
            failing = await self._judge(current, wanted, force=force)
            known: Condition = Wanted.ABSENT if stored is None else (stored.version,)
            try:
                committed = await self._write(
                    idempotency,
                    fingerprint,
                    Operation(name, value, known),
                    if_empty=current is not None and wanted.key != current.key,
                )
            except RejectedError:
                continue  # It was defined otherwise, or is empty no more: look again.
            self._definitions.forget(name)
            if failing is not None and committed.index > failing.index + 1:
                failing = await self._failing_now(wanted)
            return _at(wanted, committed), committed, failing

    async def delete(self, name: str, condition: Condition, idempotency: Key) -> Committed:
        """Remove a collection, which must be empty.

        Raises:
            CollectionBuiltInError: It is always there.
            CollectionNotEmptyError: It has records.
            NoSuchCollectionError: There is none.
            PreconditionFailedError: The condition does not hold.
            RequestError: As `Writes.write`.
        """
        if name == FORMS:
            raise CollectionBuiltInError(
                f"The collection {FORMS} is always there.",
                f"La colección {FORMS} existe siempre.",
            )
        fingerprint = fingerprint_of(DEFINITIONS, [(name, None)])
        try:
            committed = await self._write(
                idempotency, fingerprint, Operation(name, None, condition)
            )
        except RejectedError as error:
            if condition is Wanted.ANYTHING and error.rejected.reason is Reason.MISSING:
                raise NoSuchCollectionError from error
            conditional = condition is not Wanted.ANYTHING
            raise refusal_of(error.rejected, conditional=conditional) from error
        self._definitions.forget(name)
        return committed

    async def _earlier(self, key: Key, fingerprint: str, name: str) -> Committed | None:
        """What an earlier request with the same key did: that is what its repetition is told."""
        if not key.is_own:
            return None
        return await self._writes.outcome(
            key.text, fingerprint, DEFINITIONS, name, deadline=self._deadline()
        )

    async def _write(
        self, key: Key, fingerprint: str, operation: Operation, *, if_empty: bool = False
    ) -> Committed:
        return await self._writes.write(
            *(key.text, fingerprint, DEFINITIONS, 0, (operation,)),
            deadline=self._deadline(),
            if_empty=if_empty,
        )

    async def _judge(
        self, current: Definition | None, wanted: Definition, *, force: bool
    ) -> Failing | None:
        """Compare the records with a definition, if it says anything new of them."""
        if current is None:
            return None
        if wanted.key != current.key and await self._is_fixed(wanted.name):
            raise KeyFieldFixedError(
                "The key field cannot change: there are records.",
                "El campo clave no puede cambiar: hay registros.",
            )
        if wanted.schema == current.schema and wanted.key == current.key:
            return None
        failing = await self._failing(wanted)
        if failing.count and not force:
            raise RecordsWouldNotPassError(
                f"{failing.count} records would not pass; with force=true they stay as they are.",
                f"{failing.count} registros no cumplirían; con force=true se quedan como están.",
                extensions=failing.describe(),
            )
        return failing

    async def _is_fixed(self, name: str) -> bool:
        """Whether there are records; of the forms there may always be some."""
        if name == FORMS:
            return True
        async with aclosing(_documents(await self._reads.export(name, STRONG))) as documents:
            async for _ in documents:
                return True
        return False

    async def _failing_now(self, definition: Definition) -> Failing | None:
        """Look at all records of a definition that is in force, whether or not that succeeds."""
        try:
            return await self._failing(definition)
        except UnavailableError:
            return None

    async def _failing(self, definition: Definition) -> Failing:
        """Look at all records there are."""
        stream = await self._reads.export(definition.name, STRONG)
        failing = Failing(stream.seen.index)
        async with aclosing(_documents(stream)) as documents:
            async for document in documents:
                errors = definition.errors_of(document)
                if errors:
                    failing.add({"id": document.get(definition.key), "errors": errors})
        return failing

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._deadline_s


def _check(current: Definition | None, condition: Condition) -> None:
    """Make sure that a definition, the built-in one included, is as a client wants it."""
    match condition:
        case Wanted.ANYTHING:
            holds = True
        case Wanted.ABSENT:
            holds = current is None
        case Wanted.PRESENT:
            holds = current is not None
        case versions:
            holds = current is not None and current.version in versions
    if not holds:
        etag = None if current is None else etag_of(current.version)
        raise PreconditionFailedError(extensions={"etag": etag})


def _at(definition: Definition, committed: Committed) -> Definition:
    return replace(definition, version=committed.index)


async def _documents(stream: RecordStream) -> AsyncGenerator[dict[str, Any], None]:
    """All records of an export, which is closed at the end.

    Raises:
        UnavailableError: It broke off.
    """
    splitter, count = LineSplitter(), 0
    try:
        async for chunk in stream.chunks():
            for piece in splitter.feed(chunk):
                if piece.data is None:
                    raise UnavailableError
                yield orjson.loads(piece.data)
                count += 1
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
    except LeaderError as error:
        raise UnavailableError from error
    finally:
        stream.close()
    if splitter.held_bytes:
        raise UnavailableError
