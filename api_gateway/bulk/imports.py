"""Stores a stream of records, each like a single insert, and says what became of each.

Records travel in groups: one write inserts a group, all or nothing. A group that holds a record
which is there already is rejected as a whole; its records are then inserted one by one. So the
common case costs one entry of the log a group, and what each record is told is the same.

Groups wait for their answers in a window. When it is full no more of the stream is read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple, Protocol, assert_never

from api_gateway.bulk.record_lines import Piece
from api_gateway.errors import InvalidRequestError, OutcomeUnknownError, RequestError
from replicad.core.write import OPERATIONS_MAX

Pieces = AsyncGenerator[Iterable[Piece], None]

# What a group costs whatever it holds weighs twice as much with half as many.
GROUP_RECORDS_MAX: Final = OPERATIONS_MAX
_GROUP_BYTES_MAX: Final = 512 * 1024
WINDOW_GROUPS: Final = 8
# Of one group at a time, so that imports leave room for others at the coalescer.
_SINGLE_INSERTS: Final = 100
# So long a group waits for more records; a client that waits for its answers waits no longer.
_LINGER_S: Final = 0.01
# What is checked before anything else gets its turn; a record that is longer is checked whole.
_SLICE_RECORDS: Final = 50
_SLICE_BYTES: Final = 16 * 1024


class Status(StrEnum):
    """What became of a record.

    STORED: every in-sync replica has it. DUPLICATE: there was a record with its id, which is as
    it was. INVALID: it breaks a rule. UNKNOWN: it was sent, and nobody could say what became
    of it.
    """

    STORED = "stored"
    DUPLICATE = "duplicate"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Inserted(Enum):
    """What came of a try to insert records, all or none of them.

    DONE: they are stored. EXISTS: one of them was there. REDEFINED: the collection's definition
    is another one than that by which they were checked.
    """

    DONE = "done"
    EXISTS = "exists"
    REDEFINED = "redefined"


class Checked(NamedTuple):
    """What a piece of the stream holds.

    Attributes:
        key: The record's id, as far as there is one.
        value: The bytes to store.
        why: What it breaks; None if it is valid.
    """

    key: str | None
    value: bytes = b""
    why: RequestError | None = None


class Target(Protocol):
    """Where the records go."""

    @property
    def version(self) -> int:
        """Of the definition by which records are checked now."""

    def check(self, data: bytes) -> Checked:
        """Find the record in one piece of the stream, and what it breaks."""

    def check_again(self, value: bytes) -> Checked:
        """Check a record that was valid by an earlier definition."""

    async def insert(self, records: Sequence[tuple[str, bytes]], version: int) -> Inserted:
        """Store new records, by id, all or none of them.

        Args:
            records: At least one; each id once.
            version: Of the definition by which they were checked. If that is another one now,
                `version` of this target is so afterwards.

        Raises:
            OutcomeUnknownError: They may be stored or not.
            RequestError: Nothing was stored, and trying again does not help.
        """


@dataclass(slots=True, eq=False)
class Line:
    """One record of the stream.

    Attributes:
        number: The line in which it begins.
        key: Its id, as far as there is one.
        value: The bytes to store.
        status: What became of it; None as long as that is open.
        why: What it breaks, if it is INVALID.
    """

    number: int
    key: str | None
    value: bytes
    status: Status | None = None
    why: RequestError | None = None

    def judge(self, checked: Checked) -> None:
        """Take the result of a check."""
        self.key, self.value, self.why = checked.key, checked.value, checked.why
        self.status = None if checked.why is None else Status.INVALID


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """Not all of the stream was dealt with, for this reason.

    Lines that were not told of are not stored.
    """

    why: RequestError


@dataclass(slots=True, eq=False)
class _Group:
    """Lines that are told of together.

    Attributes:
        lines: In the stream's order.
        keys: Of the records to store, no two of which have the same.
        size: Of these records in bytes.
        is_full: Whether it is to have no more lines.
        version: Of the definition by which they were checked.
        failure: Why some of them could not be stored.
    """

    version: int
    lines: list[Line] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    size: int = 0
    is_full: bool = False
    failure: RequestError | None = None

    def add(self, line: Line) -> None:
        self.lines.append(line)
        if line.status is None and line.key is not None:
            self.keys.add(line.key)
            self.size += len(line.value)
        self.is_full = len(self.lines) >= GROUP_RECORDS_MAX or self.size >= _GROUP_BYTES_MAX

    def open_lines(self) -> list[Line]:
        return [line for line in self.lines if line.status is None]


class _Slices:
    """Cuts the work of checking records, so that it leaves turns to others."""

    def __init__(self) -> None:
        self._records = self._bytes = 0

    def is_full(self, size: int) -> bool:
        """A record of `size` bytes was checked: whether that is enough for one turn."""
        self._records += 1
        self._bytes += size
        if self._records < _SLICE_RECORDS and self._bytes < _SLICE_BYTES:
            return False
        self._records = self._bytes = 0
        return True


class Import:
    """One import on its way."""

    def __init__(self, target: Target) -> None:
        """Store into `target`."""
        self._target = target
        # Where one record was there, others are likely to be: a group is not worth trying.
        self._one_by_one = False
        self._window: deque[tuple[_Group, asyncio.Task[None]]] = deque()

    async def run(self, pieces: Pieces) -> AsyncGenerator[Sequence[Line] | BrokenOff, None]:
        """What became of the records, in their order; BrokenOff comes last, if it does.

        Args:
            pieces: The records, as they arrive. It raises RequestError when there are no more
                although there should be.
        """
        why: RequestError | None = None
        async with aclosing(self._groups(pieces)) as groups:
            reading = asyncio.create_task(anext(groups, None))
            has_more = True
            try:
                while has_more or self._window:
                    await self._await_progress(reading if has_more else None)
                    if has_more and reading.done():
                        group, failure = _result_of(reading)
                        why, has_more = why or failure, group is not None
                        if group is not None:
                            self._launch(group)
                            reading = asyncio.create_task(anext(groups, None))
                    for group in self._take_finished():
                        if told := [line for line in group.lines if line.status is not None]:
                            yield told
                        why = why or group.failure
                        has_more = has_more and group.failure is None
            finally:
                await _end(reading, *(task for _, task in self._window))
        if why is not None:
            yield BrokenOff(why)

    async def _await_progress(self, reading: asyncio.Task[_Group | None] | None) -> None:
        """Until the oldest group has its answers, or there is another one that has room."""
        waited: set[asyncio.Task[None] | asyncio.Task[_Group | None]] = set()
        if self._window:
            waited.add(self._window[0][1])
        if reading is not None and len(self._window) < WINDOW_GROUPS:
            waited.add(reading)
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def _launch(self, group: _Group) -> None:
        """Send a group; if it repeats ids of others under way, after those."""
        earlier = [task for other, task in self._window if not group.keys.isdisjoint(other.keys)]
        self._window.append((group, asyncio.create_task(self._store(group, earlier))))

    def _take_finished(self) -> list[_Group]:
        finished = []
        while self._window and self._window[0][1].done():
            group, task = self._window.popleft()
            task.result()  # Raises what is a defect.
            finished.append(group)
        return finished

    async def _groups(self, pieces: Pieces) -> AsyncGenerator[_Group, None]:
        """Groups of checked lines, cut where an id comes again."""
        group, slices = _Group(self._target.version), _Slices()
        reading = asyncio.create_task(anext(pieces, None))
        try:
            while True:
                if group.lines and not (await asyncio.wait({reading}, timeout=_LINGER_S))[0]:
                    yield group
                    group = _Group(self._target.version)
                try:
                    arrived = await reading
                except RequestError:
                    yield group
                    raise
                if arrived is None:
                    yield group
                    return
                for piece in arrived:
                    line = self._check(piece)
                    if group.is_full or line.key in group.keys:
                        yield group
                        group = _Group(self._target.version)
                    group.add(line)
                    if slices.is_full(len(piece.data or b"")):
                        await asyncio.sleep(0)
                reading = asyncio.create_task(anext(pieces, None))
        finally:
            await _end(reading)
            await pieces.aclose()

    def _check(self, piece: Piece) -> Line:
        number, data = piece
        checked = Checked(None, why=too_long()) if data is None else self._target.check(data)
        key, value, why = checked
        return Line(number, key, value, None if why is None else Status.INVALID, why)

    async def _check_again(self, lines: Sequence[Line]) -> None:
        slices = _Slices()
        for line in lines:
            size = len(line.value)
            line.judge(self._target.check_again(line.value))
            if slices.is_full(size):
                await asyncio.sleep(0)

    async def _store(self, group: _Group, earlier: Sequence[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        try:
            while lines := group.open_lines():
                if group.version != self._target.version:
                    group.version = self._target.version
                    self._one_by_one = True  # By another key field ids might repeat.
                    await self._check_again(lines)
                elif self._one_by_one or len(lines) == 1:
                    await self._insert_each(lines, group.version)
                else:
                    await self._insert_all(lines, group.version)
        except RequestError as error:
            group.failure = error

    async def _insert_all(self, lines: Sequence[Line], version: int) -> None:
        """One try with all lines at once. Those that stay open are to be tried otherwise."""
        try:
            records = [(line.key or "", line.value) for line in lines]
            inserted = await self._target.insert(records, version)
        except OutcomeUnknownError:
            _mark(lines, Status.UNKNOWN)
            raise
        match inserted:
            case Inserted.DONE:
                _mark(lines, Status.STORED)
            case Inserted.EXISTS:
                self._one_by_one = True
            case Inserted.REDEFINED:
                pass  # The target's version shows it.
            case _:
                assert_never(inserted)

    async def _insert_each(self, lines: Sequence[Line], version: int) -> None:
        """One try with each line; otherwise as `_insert_all`."""
        finds_duplicates = False
        for start in range(0, len(lines), _SINGLE_INSERTS):
            outcomes = await self._insert_some(lines[start : start + _SINGLE_INSERTS], version)
            finds_duplicates = finds_duplicates or Inserted.EXISTS in outcomes
        self._one_by_one = finds_duplicates

    async def _insert_some(
        self, lines: Sequence[Line], version: int
    ) -> Sequence[Inserted | BaseException]:
        outcomes = await asyncio.gather(
            *(self._target.insert([(line.key or "", line.value)], version) for line in lines),
            return_exceptions=True,
        )
        failures: list[BaseException] = []
        for line, outcome in zip(lines, outcomes, strict=True):
            match outcome:
                case Inserted.DONE:
                    line.status = Status.STORED
                case Inserted.EXISTS:
                    line.status = Status.DUPLICATE
                case Inserted.REDEFINED:
                    pass
                case _:
                    if isinstance(outcome, OutcomeUnknownError):
                        line.status = Status.UNKNOWN
                    failures.append(outcome)
        if failures:
            raise failures[0]
        return outcomes


def _result_of(
    reading: asyncio.Task[_Group | None],
) -> tuple[_Group | None, RequestError | None]:
    try:
        return reading.result(), None
    except RequestError as error:
        return None, error


def _mark(lines: Iterable[Line], status: Status) -> None:
    for line in lines:
        line.status = status


def too_long() -> RequestError:
    """What a record breaks that is longer than any may be."""
    return InvalidRequestError(
        "The record exceeds the limit of 1 MiB.", "El registro supera el límite de 1 MiB."
    )


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what is not done yet. Whatever they would have told, nobody asks any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
