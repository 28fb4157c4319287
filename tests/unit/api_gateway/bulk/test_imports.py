"""The window of an import, over a target that answers when it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_gateway.bulk import imports as module
from api_gateway.bulk.imports import (
    GROUP_RECORDS_MAX,
    WINDOW_GROUPS,
    BrokenOff,
    Checked,
    Import,
    Inserted,
    Line,
    Status,
)
from api_gateway.bulk.record_lines import Piece
from api_gateway.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    RequestError,
    StorageFullError,
    UnavailableError,
)
from tests.support.waiting import eventually

STORED, DUPLICATE, INVALID, UNKNOWN = Status


@dataclass(slots=True)
class Shelf:
    """Implements Target over a set of ids; a record that says `bad` is invalid.

    Attributes:
        keys: What is stored.
        version: Of the definition; by all above 1 `old` is invalid, too.
        redefined: The definition is to be another one from the next insert on.
        failures: What happens to the next inserts instead; None for nothing.
        gate: Inserts wait for it.
        tries: How many records each insert had.
        under_way: Inserts that are being tried now, and how many there were at most.
    """

    keys: set[str] = field(default_factory=set)
    version: int = 1
    redefined: bool = False
    failures: list[RequestError | None] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    tries: list[int] = field(default_factory=list)
    under_way: int = 0
    under_way_most: int = 0

    def check(self, data: bytes) -> Checked:
        return self.check_again(data)

    def check_again(self, value: bytes) -> Checked:
        key = value.decode()
        if key.startswith("bad") or (key.startswith("old") and self.version > 1):
            return Checked(key, why=InvalidRequestError("bad"))
        return Checked(key, value)

    async def insert(self, records: Sequence[tuple[str, bytes]], version: int) -> Inserted:
        self.tries.append(len(records))
        self.under_way += 1
        self.under_way_most = max(self.under_way_most, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        if self.redefined:
            self.version, self.redefined = 2, False
        if version != self.version:
            return Inserted.REDEFINED
        keys = {key for key, _ in records}
        assert len(keys) == len(records)
        if keys & self.keys:
            return Inserted.EXISTS
        self.keys |= keys
        return Inserted.DONE


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf()
    shelf.gate.set()
    return shelf


async def pieces(
    keys: Iterable[str | None],
    *,
    chunk: int = 1_000,
    end: RequestError | None = None,
    read: list[int] | None = None,
) -> AsyncGenerator[list[Piece], None]:
    all_of_them = [
        Piece(line, None if key is None else key.encode()) for line, key in enumerate(keys, 1)
    ]
    for start in range(0, len(all_of_them), chunk):
        if read is not None:
            read.append(start)
        yield all_of_them[start : start + chunk]
    if end is not None:
        raise end


async def told_of(
    importing: Import, stream: AsyncGenerator[list[Piece], None]
) -> tuple[list[Line], RequestError | None]:
    lines: list[Line] = []
    why = None
    async with aclosing(importing.run(stream)) as told:
        async for each in told:
            assert why is None
            if isinstance(each, BrokenOff):
                why = each.why
            else:
                lines += each
    return lines, why


def statuses(lines: Sequence[Line]) -> list[Status | None]:
    return [line.status for line in lines]


async def test_each_line_is_told_in_order(shelf: Shelf) -> None:
    shelf.keys = {"b"}
    lines, why = await told_of(Import(shelf), pieces(["a", "b", "bad", None, "c"]))
    assert [(line.number, line.key) for line in lines] == [
        (1, "a"),
        (2, "b"),
        (3, "bad"),
        (4, None),
        (5, "c"),
    ]
    assert statuses(lines) == [STORED, DUPLICATE, INVALID, INVALID, STORED]
    assert why is None
    assert shelf.keys == {"a", "b", "c"}


async def test_nothing_at_all(shelf: Shelf) -> None:
    assert await told_of(Import(shelf), pieces([])) == ([], None)
    assert shelf.tries == []


async def test_new_records_travel_in_groups(shelf: Shelf) -> None:
    many = map(str, range(2 * GROUP_RECORDS_MAX + 200))
    lines, _ = await told_of(Import(shelf), pieces(many, chunk=300))
    assert set(statuses(lines)) == {STORED}
    assert shelf.tries == [GROUP_RECORDS_MAX, GROUP_RECORDS_MAX, 200]


async def test_after_duplicates_records_are_tried_one_by_one_until_there_are_none(
    shelf: Shelf,
) -> None:
    shelf.keys = {"0"}
    many = [str(number) for number in range(20 * GROUP_RECORDS_MAX)]
    lines, _ = await told_of(Import(shelf), pieces(many))
    assert statuses(lines) == [DUPLICATE, *[STORED] * (len(many) - 1)]
    assert shelf.tries[-1] == GROUP_RECORDS_MAX


async def test_the_first_of_two_with_one_id_is_stored_in_whatever_order_answers_come(
    shelf: Shelf,
) -> None:
    keys = ["a", "b", "a", *map(str, range(GROUP_RECORDS_MAX)), "b"]
    shelf.gate.clear()
    running = asyncio.create_task(told_of(Import(shelf), pieces(keys)))
    await eventually(lambda: shelf.under_way > 0)
    shelf.gate.set()
    lines, _ = await running
    assert [line.number for line in lines if line.status is DUPLICATE] == [3, len(keys)]


async def test_a_full_window_stops_the_reading(shelf: Shelf) -> None:
    shelf.gate.clear()
    read: list[int] = []
    many = map(str, range(40 * GROUP_RECORDS_MAX))
    running = asyncio.create_task(told_of(Import(shelf), pieces(many, chunk=100, read=read)))
    await eventually(lambda: shelf.under_way == WINDOW_GROUPS)
    for _ in range(100):
        await asyncio.sleep(0)
    # The window, one group that waits for room in it, and one piece that was read for the next.
    assert read[-1] <= (WINDOW_GROUPS + 1) * GROUP_RECORDS_MAX + 100
    shelf.gate.set()
    lines, _ = await running
    assert len(lines) == 40 * GROUP_RECORDS_MAX
    assert shelf.under_way_most == WINDOW_GROUPS


async def test_a_client_that_waits_for_its_answers_gets_them(shelf: Shelf) -> None:
    answered = asyncio.Event()

    async def patient() -> AsyncGenerator[list[Piece], None]:
        yield [Piece(1, b"a")]
        await answered.wait()
        yield [Piece(2, b"b")]

    async with aclosing(Import(shelf).run(patient())) as told:
        first = await anext(told)
        assert not isinstance(first, BrokenOff)
        assert statuses(first) == [STORED]
        answered.set()
        assert len([each async for each in told]) == 1


@pytest.mark.parametrize(
    ("size", "records", "redefined"),
    [
        (9, 1_200, False),
        (5_000, 400, False),
        (300_000, 9, False),
        (9, 400, True),
        (5_000, 40, True),
    ],
)
async def test_others_get_their_turn_while_records_are_checked(
    size: int, records: int, redefined: bool
) -> None:
    """All of them arrive at once. Between two turns of another task few are checked."""
    turns = 0
    checked: Counter[int] = Counter()

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class Watched(Shelf):
        def check_again(self, value: bytes) -> Checked:
            checked[turns] += 1
            return super().check_again(value)

    watched = Watched(redefined=redefined)
    watched.gate.set()
    others = asyncio.create_task(take_turns())
    keys = [f"{number}-".ljust(size, "x") for number in range(records)]
    lines, _ = await told_of(Import(watched), pieces(keys))
    others.cancel()
    assert set(statuses(lines)) == {STORED}
    assert checked.total() == records * (2 if redefined else 1)
    assert max(checked.values()) <= min(50, 1 + 16_384 // size)


async def test_a_body_that_breaks_off_is_told_after_what_was_stored(shelf: Shelf) -> None:
    cut = InvalidRequestError("cut")
    lines, why = await told_of(Import(shelf), pieces(["a", "b"], end=cut))
    assert (statuses(lines), why) == ([STORED, STORED], cut)


@pytest.mark.parametrize("failure", [UnavailableError(), StorageFullError()])
async def test_what_was_not_stored_is_not_told_of(shelf: Shelf, failure: RequestError) -> None:
    shelf.failures = [None, failure]
    many = map(str, range(3 * GROUP_RECORDS_MAX))
    lines, why = await told_of(Import(shelf), pieces(many, chunk=100))
    assert why is failure
    assert set(statuses(lines)) == {STORED}
    assert {line.key for line in lines} == shelf.keys


@pytest.mark.parametrize("duplicates", [set(), {"1"}])
async def test_an_unknown_outcome_is_told_as_one(shelf: Shelf, duplicates: set[str]) -> None:
    shelf.keys = set(duplicates)
    shelf.failures = [None] * len(duplicates) + [OutcomeUnknownError("key")]
    lines, why = await told_of(Import(shelf), pieces(["0", "1", "bad"]))
    assert isinstance(why, OutcomeUnknownError)
    assert statuses(lines) == [UNKNOWN, DUPLICATE if duplicates else UNKNOWN, INVALID]


async def test_a_new_definition_on_the_way_checks_what_is_not_stored_yet(shelf: Shelf) -> None:
    shelf.redefined = True
    many = ["old", *map(str, range(2 * GROUP_RECORDS_MAX)), "old2"]
    lines, why = await told_of(Import(shelf), pieces(many))
    assert [line.key for line in lines if line.status is INVALID] == ["old", "old2"]
    assert why is None
    assert len(shelf.keys) == len(many) - 2


async def test_who_goes_away_leaves_nothing_running(shelf: Shelf) -> None:
    shelf.gate.clear()
    many = map(str, range(20 * GROUP_RECORDS_MAX))
    told = Import(shelf).run(pieces(["bad", *many]))
    reading = asyncio.create_task(anext(told))
    await eventually(lambda: shelf.under_way == WINDOW_GROUPS)
    reading.cancel()
    await asyncio.wait({reading})
    await told.aclose()
    assert shelf.under_way == 0
    assert len(asyncio.all_tasks()) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*"abcdefgh", "bad", "old", None])),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sets(st.sampled_from("abc")),
    st.booleans(),
)
async def test_it_is_the_same_as_one_insert_after_the_other(
    keys: list[str | None], chunk: int, group: int, there: set[str], redefined: bool
) -> None:
    shelf = Shelf(keys=set(there), redefined=redefined)
    shelf.gate.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "GROUP_RECORDS_MAX", group)
        patch.setattr(module, "WINDOW_GROUPS", 3)
        lines, _ = await told_of(Import(shelf), pieces(keys, chunk=chunk))
    stored = set(there)
    for key, line in zip(keys, lines, strict=True):
        if key is None or key == "bad":
            assert line.status is INVALID
        elif key == "old" and redefined:
            assert line.status in (INVALID, DUPLICATE, STORED)
            stored |= {key} & shelf.keys
        else:
            assert line.status is (DUPLICATE if key in stored else STORED)
            stored.add(key)
    assert shelf.keys == stored
