"""A collection as the target of an import."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from api_gateway.bulk.csv_records import CsvError
from api_gateway.bulk.imports import Checked, Inserted, too_long
from api_gateway.bulk.record_lines import RECORD_BYTES_MAX
from api_gateway.cluster.forwarding import Writes
from api_gateway.errors import (
    InvalidJsonError,
    InvalidRecordError,
    InvalidRequestError,
    RejectedError,
    RequestError,
    UnavailableError,
)
from api_gateway.idempotency import new_key
from api_gateway.records.definitions import Definition, Definitions
from api_gateway.records.forms import is_id
from api_gateway.records.strict_json import parse_object
from replicad.core.effects import Reason
from replicad.core.write import Operation, Wanted, fingerprint_of

PATIENCE_S: Final = 60.0
"""How long the records of an import wait for a leader that stores them."""
# Where the answer is that nothing can be stored now.
_PAUSE_S: Final = 0.5


class CollectionTarget:
    """Implements Target: checks by the collection's definition, and inserts through the leader."""

    def __init__(
        self,
        writes: Writes,
        definitions: Definitions,
        definition: Definition,
        decode: Callable[[bytes], bytes] | None,
    ) -> None:
        """Store into the collection of `definition`.

        Args:
            writes: The way to the leader.
            definitions: Where a newer definition is found.
            definition: The collection's, as last seen.
            decode: Makes JSON of a piece of the stream, or raises CsvError; None if it is JSON.
        """
        self._writes = writes
        self._definitions = definitions
        self._definition = definition
        self._decode = decode

    @property
    def version(self) -> int:
        """As in Target."""
        return self._definition.version

    def check(self, data: bytes) -> Checked:
        """As in Target."""
        if self._decode is None:
            return self.check_again(data)
        try:
            value = self._decode(data)
        except CsvError as error:
            return Checked(None, why=InvalidRequestError(error.english, error.spanish))
        return self.check_again(value)

    def check_again(self, value: bytes) -> Checked:
        """As in Target."""
        try:
            document, canonical = parse_object(value)
        except InvalidJsonError as error:
            return Checked(None, why=error)
        why: RequestError
        try:
            key = self._definition.check(document)
            if len(canonical) <= RECORD_BYTES_MAX:
                return Checked(key, canonical)
            why = too_long()
        except InvalidRecordError as error:
            why = error
        told = document.get(self._definition.key)
        return Checked(told if is_id(told) else None, why=why)

    async def insert(self, records: Sequence[tuple[str, bytes]], version: int) -> Inserted:
        """As in Target."""
        name = self._definition.name
        request, fingerprint = new_key(), fingerprint_of(name, records)
        operations = tuple([Operation(key, value, Wanted.ABSENT) for key, value in records])
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE_S
        while True:
            try:
                await self._writes.write(
                    request, fingerprint, name, version, operations, deadline=deadline
                )
            except RejectedError as error:
                if error.rejected.reason is not Reason.DEFINITION:
                    return Inserted.EXISTS
                if self.version == version:
                    self._definition = await self._definitions.reread(name, deadline=deadline)
                return Inserted.REDEFINED
            except UnavailableError:
                if clock() + _PAUSE_S > deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return Inserted.DONE
