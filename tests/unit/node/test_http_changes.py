"""The feed of changes, and the digest of one record, by a real driver of a cluster of one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicad.core.feed import Cursor
from replicad.core.write import Operation
from replicad.errors import CorruptLogError, LogFrontGoneError
from replicad.node import feed as feed_module
from replicad.node import http_changes as module
from replicad.node.feed import Page, read_page
from tests.support.entries import batch_of, delete_of, put_of, write_of
from tests.support.node_http import Client
from tests.support.nodes import Driven, driven
from tests.support.waiting import eventually

CHANGES, DIGEST = "/internal/changes", "/internal/record-digest"
BATCH = batch_of(*(Operation(f"b{n}", b'{"n":%d}' % n) for n in range(5)), request="batch")


@dataclass
class Answer:
    status: int
    next: str
    changes: list[dict[str, Any]]
    body: bytes

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(change["index"], change["position"]) for change in self.changes]


async def changes(client: Client, **query: object) -> Answer:
    asked = {"collection": "forms", "since": "0", "limit": "100", "wait_ms": "0"} | {
        name: str(value) for name, value in query.items()
    }
    headers = {"X-Replicad-Min-Index": "0"}
    async with client.get(CHANGES, params=asked, headers=headers) as response:
        body = await response.read()
        lines = [] if response.status != 200 else [json.loads(line) for line in body.splitlines()]
        return Answer(response.status, response.headers.get("X-Replicad-Next", ""), lines, body)


async def test_everything_that_is_applied_is_told(client: Client, one: Driven) -> None:
    value = b'{"id":"a","x":1.0e0}'
    first, *_, last = await one.store_all(
        write_of("a", value),
        put_of("a", b"{}", request="again"),
        BATCH,
        delete_of("a", request="gone"),
    )
    answer = await changes(client)
    assert [(c["operation"], c["id"]) for c in answer.changes] == [
        ("insert", "a"),
        ("update", "a"),
        *(("insert", f"b{n}") for n in range(5)),
        ("delete", "a"),
    ]
    assert b'"value":%b,"digest"' % value in answer.body
    assert answer.changes[0]["digest"] == first.digest.hex()
    assert answer.places[0] == (first.index, 0)
    assert answer.next == str(last.index)


async def test_pages_join_whatever_their_size(client: Client, one: Driven) -> None:
    await one.store_all(write_of("a"), BATCH, write_of("z"))
    everything = await changes(client)
    for limit in range(1, 8):
        since, places = "0", list[tuple[int, int]]()
        while (page := await changes(client, since=since, limit=limit)).changes:
            assert len(page.changes) <= limit
            since, places = page.next, places + page.places
        assert places == everything.places
        assert since == everything.next


async def test_one_page_of_a_batch_says_where_it_ends(client: Client, one: Driven) -> None:
    (done,) = await one.store_all(BATCH)
    assert (await changes(client, limit=2)).next == f"{done.index}.1"
    assert (await changes(client, limit=5)).next == str(done.index)
    rest = await changes(client, since=f"{done.index}.3")
    assert rest.places == [(done.index, 4)]
    assert (await changes(client, since=f"{done.index}.900")).next == str(done.index)


async def test_other_collections_only_move_the_place(client: Client, one: Driven) -> None:
    (done,) = await one.store_all(write_of("a", collection="others"))
    answer = await changes(client)
    assert (answer.changes, answer.next) == ([], str(done.index))


async def test_it_waits_until_something_is_applied(client: Client, one: Driven) -> None:
    end = (await changes(client)).next
    waiting = asyncio.create_task(changes(client, since=end, wait_ms=30_000))
    beyond = asyncio.create_task(changes(client, since=int(end) + 1, wait_ms=30_000))
    await eventually(lambda: one.driver.applied._waited_for is not None)
    a, _ = await one.store_all(write_of("a"), write_of("b"))
    assert (await waiting).places[0] == (a.index, 0)
    assert (await beyond).places == [(a.index + 1, 0)]


async def test_a_wait_ends_without_changes(client: Client, one: Driven) -> None:
    end = (await changes(client)).next
    answer = await changes(client, since=int(end) + 7, wait_ms=1)
    assert (answer.status, answer.changes, answer.next) == (200, [], str(int(end) + 7))


async def test_a_big_page_ends_early(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "PAGE_BYTES", 30)
    await one.store_all(*(write_of(str(n), b'{"x":"0123456789"}') for n in range(4)))
    assert len((await changes(client)).changes) == 2


async def test_a_long_log_is_read_in_slices(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_SLICE_BYTES", 700)
    monkeypatch.setattr(feed_module, "_SCAN_BYTES_MAX", 1500)
    await one.store_all(*(write_of(str(n), collection="others") for n in range(20)))
    (wanted,) = await one.store_all(write_of("a"))
    first = await changes(client)
    assert not first.changes
    assert 1 < int(first.next) < wanted.index
    assert (await changes(client, wait_ms=30_000)).places == [(wanted.index, 0)]


@pytest.mark.parametrize(
    "query",
    [
        *({"since": "x"}, {"since": "now"}, {"since": ""}, {"limit": "0"}, {"limit": "10001"}),
        *({"limit": ""}, {"wait_ms": "-1"}, {"wait_ms": "60001"}, {"wait_ms": "1.5"}),
    ],
)
async def test_what_is_malformed_is_refused(client: Client, query: dict[str, str]) -> None:
    assert (await changes(client, **query)).status == 400


async def test_an_answer_names_who_gives_it(client: Client, one: Driven) -> None:
    headers = {"X-Replicad-Min-Index": "0"}
    query = {"collection": "forms", "since": "0", "limit": "1", "wait_ms": "0"}
    async with client.get(CHANGES, params=query, headers=headers) as response:
        applied = one.store.records.applied.index
        assert response.headers["X-Replicad-Replica"] == "n1"
        assert response.headers["X-Replicad-Index"] == str(applied)
    async with client.get(CHANGES, params=query) as response:
        assert response.status == 400  # It names neither an epoch nor an index.


async def test_what_was_dropped_is_gone(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.store_all(write_of("a"), write_of("b"), write_of("c"))
    one.store.log.rebase(2)
    assert (await changes(client, since=0)).status == 410
    assert (await changes(client, since="2.0")).status == 410
    assert (await changes(client, since=2)).places == [(3, 0), (4, 0)]


async def test_a_damaged_log_ends_the_replica(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(first: int, count: int) -> bytes:
        raise CorruptLogError("damaged")

    monkeypatch.setattr(one.store, "read", fail)
    assert (await changes(client)).status == 503
    assert isinstance(one.failures[0], CorruptLogError)


async def test_a_replica_that_stops_does_not_pretend(client: Client, one: Driven) -> None:
    end = int((await changes(client)).next)
    following = asyncio.create_task(changes(client, since=end, wait_ms=60_000))
    asking = asyncio.create_task(digest_of(client, "a", end + 1))
    await eventually(lambda: one.driver.applied._waited_for is not None)
    one.driver.abandon()
    async with asyncio.timeout(1):  # Its end waits for nobody who waits.
        assert (await following).status == 503
        assert (await asking)[0] == 503
    assert (await changes(client)).status == 503


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_cursor_and_page_give_what_follows(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
    since = Cursor(data.draw(st.integers(1, 14)), data.draw(st.none() | st.integers(0, 7)))
    limit, slice_bytes = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3000))

    async def play() -> None:
        async with driven(tmp_path_factory.mktemp("replica")) as one:
            written = await one.store_all(
                *(
                    batch_of(*(Operation(f"{n}-{m}", b"{}") for m in range(size)), request=f"r{n}")
                    for n, size in enumerate(sizes)
                )
            )
            expected = [
                (done.index, position)
                for done, size in zip(written, sizes, strict=True)
                for position in range(size)
                if since.is_before(done.index, position)
            ]
            seen, place = list[tuple[int, int]](), since
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(feed_module, "_SLICE_BYTES", slice_bytes)
                while True:
                    page = Page(place, limit, "forms")
                    await read_page(one.driver, page)
                    if not page.changes:
                        break
                    seen += [(change.index, change.position) for change in page.changes]
                    place = page.next
            assert seen == expected

    asyncio.run(play())


async def test_changes_before_a_drop_are_given_first(
    one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's front goes while a page is being read: no gap is passed over."""
    monkeypatch.setattr(feed_module, "_SLICE_BYTES", 1)
    a, b, c = await one.store_all(*(write_of(key) for key in "abc"))
    works = one.store.read

    def read_and_drop(first: int, count: int) -> bytes:
        lines = works(first, count)
        if first == a.index:
            one.store.log.rebase(b.index)
        return lines

    monkeypatch.setattr(one.store, "read", read_and_drop)
    page = Page(Cursor(0), 10, "forms")
    await read_page(one.driver, page)
    assert [change.index for change in page.changes] == [a.index]
    with pytest.raises(LogFrontGoneError):
        await read_page(one.driver, Page(page.next, 10, "forms"))
    rest = Page(Cursor(b.index), 10, "forms")
    await read_page(one.driver, rest)
    assert [change.index for change in rest.changes] == [c.index]


async def digest_of(client: Client, key: str, index: int) -> tuple[int, dict[str, Any]]:
    query = {"collection": "forms", "key": key, "index": str(index)}
    headers = {"X-Replicad-Min-Index": str(index)}
    async with client.get(DIGEST, params=query, headers=headers) as response:
        return response.status, await response.json()


def told(version: int, value: bytes | None) -> tuple[int, dict[str, Any]]:
    return 200, {"version": version, "sha256": value and sha256(value).hexdigest()}


async def test_a_records_digest_is_that_as_of_the_entry(client: Client, one: Driven) -> None:
    a1, a2, gone, a3 = await one.store_all(
        write_of("a", b'{"v":1}'),
        put_of("a", b'{"v":2}', request="r2"),
        delete_of("a", request="r3"),
        write_of("a", b'{"v":3}', request="r4"),
    )
    assert await digest_of(client, "a", a1.index - 1) == told(0, None)
    assert await digest_of(client, "a", a1.index) == told(a1.index, b'{"v":1}')
    assert await digest_of(client, "a", a2.index) == told(a2.index, b'{"v":2}')
    assert await digest_of(client, "a", gone.index) == told(0, None)
    assert await digest_of(client, "a", a3.index) == told(a3.index, b'{"v":3}')
    assert await digest_of(client, "b", a3.index) == told(0, None)


async def test_a_digest_waits_until_its_entry_is_applied(client: Client, one: Driven) -> None:
    index = one.store.records.applied.index + 1
    waiting = asyncio.create_task(digest_of(client, "a", index))
    await eventually(lambda: one.driver.applied._waited_for is not None)
    await one.store_all(write_of("a", b"{}"))
    assert await waiting == told(index, b"{}")


async def test_a_replica_that_stays_behind_says_so(
    client: Client, one: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_APPLY_S", 0.01)
    status, refused = await digest_of(client, "a", one.store.records.applied.index + 1)
    assert (status, refused["error"]) == (412, "behind")


async def test_a_malformed_question_about_a_record_is_refused(client: Client) -> None:
    async with client.get(DIGEST, params={"collection": "forms", "key": "a"}) as response:
        assert response.status == 400
