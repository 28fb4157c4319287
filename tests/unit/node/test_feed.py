"""Pages of the feed; most of it is tried through HTTP, in test_http_changes.py."""

from __future__ import annotations

import pytest

from replicad.core.feed import Cursor
from replicad.core.write import Operation
from replicad.node.feed import Page, read_page
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.nodes import Driven

INSERT, UPDATE, DELETE = (f"forms.{done}" for done in ("insert", "update", "delete"))


async def store_some(one: Driven) -> list[int]:
    """An insert of two records each, an update of one, a delete of another; their indexes."""
    done = await one.store_all(
        write_of("a"),
        write_of("b"),
        batch_of(Operation("c", b"{}"), Operation("d", b"{}"), request="batch"),
        put_of("a", b"{}", request="r4"),
        delete_of("b", request="r5"),
    )
    return [each.index for each in done]


async def read_whole(one: Driven, page: Page) -> list[tuple[str, str]]:
    """Operations and keys on it."""
    await read_page(one.driver, page)
    return [(change.operation, change.key) for change in page.changes]


@pytest.mark.parametrize(
    ("unwanted", "expected"),
    [
        (set(), ["a", "b", "c", "d", "a", "b"]),
        ({"other.insert"}, ["a", "b", "c", "d", "a", "b"]),
        ({INSERT}, ["a", "b"]),
        ({UPDATE}, ["a", "b", "c", "d", "b"]),
        ({INSERT, DELETE}, ["a"]),
        ({INSERT, UPDATE, DELETE}, []),
    ],
)
async def test_what_is_unwanted_is_left_out(
    one: Driven, unwanted: set[str], expected: list[str]
) -> None:
    *_, last = await store_some(one)
    page = Page(Cursor(0), 10, None, None, unwanted)
    assert [key for _, key in await read_whole(one, page)] == expected
    assert page.next == Cursor(last)


async def test_collections_are_told_apart_whatever_their_names(one: Driven) -> None:
    await one.store_all(
        write_of("a", collection="forms.x"),
        write_of("b", collection="x", request="r2"),
        write_of("c", collection="forms", request="r3"),
    )
    page = Page(Cursor(0), 10, None, None, {"forms.x.insert"})
    assert [key for _, key in await read_whole(one, page)] == ["b", "c"]


async def test_an_entry_of_which_something_is_wanted_is_read_as_a_whole(one: Driven) -> None:
    write = batch_of(Operation("a", b'{"x":1}'), Operation("b", b"{}"), request="r2")
    await one.store_all(write_of("a"), write)
    page = Page(Cursor(0), 10, None, None, {UPDATE})
    assert await read_whole(one, page) == [("insert", "a"), ("update", "a"), ("insert", "b")]


async def test_what_is_unwanted_is_not_verified(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hash each line would take longer than all the rest."""
    first, *_ = await store_some(one)
    read = list[int]()
    works = one.store.read

    def note(index: int, count: int) -> bytes:
        read.append(index)
        return works(index, count)

    monkeypatch.setattr(one.store, "read", note)
    await read_page(one.driver, Page(Cursor(0), 10, None, None, {INSERT, UPDATE}))
    assert read == [1, first + 4]  # The entry that opens the epoch, and the one that deletes.


async def test_a_page_ends_where_it_is_told(one: Driven) -> None:
    _, second, *_ = await store_some(one)
    page = Page(Cursor(0), 10, None, second)
    assert await read_whole(one, page) == [("insert", "a"), ("insert", "b")]
    assert page.next == Cursor(second)
    assert await read_whole(one, page) == [("insert", "a"), ("insert", "b")]


def damage(patch: pytest.MonkeyPatch, one: Driven, offset: int, byte: int) -> None:
    """Let the disk give another byte at this offset of the log."""
    works = one.store.read_unverified

    def damaged(first: int, last: int) -> bytes:
        lines = bytearray(works(first, last))
        lines[offset - one.store.log.end_of(first - 1)] = byte
        return bytes(lines)

    patch.setattr(one.store, "read_unverified", damaged)


async def test_a_damaged_line_end_hides_nothing(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not verified must not decide where the entries after it are, either."""
    first, *_ = await store_some(one)
    damage(monkeypatch, one, one.store.log.end_of(first) - 1, ord("."))
    assert await read_whole(one, Page(Cursor(first - 1), 10, None, None, {INSERT})) == [
        ("update", "a"),
        ("delete", "b"),
    ]


async def test_what_is_torn_by_a_line_end_is_verified(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = await store_some(one)
    damage(monkeypatch, one, one.store.log.end_of(first) - 3, ord("\n"))
    found = await read_whole(one, Page(Cursor(first - 1), 10, None, None, {INSERT}))
    assert found[0] == ("insert", "a")  # What the log holds; it is not left out unseen.
