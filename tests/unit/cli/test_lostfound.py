"""`replicad lostfound` against a small server that answers as a gateway does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from replicad.cli import replicad, resubmission
from replicad.cli.resubmission import ResubmissionError
from replicad.core.write import DEFINITIONS, Operation
from replicad.errors import ConfigurationError
from replicad.storage.lostfound import LOST_AND_FOUND, kept_name
from tests.support.entries import LogBuilder, batch_of, delete_of, put_of, write_of


class FakeGateway:
    """Remembers requests and form ids; its first answers to writes can be made to fail.

    Attributes:
        indexes: Where each request id was committed.
        ids: Form ids that other requests have stored.
        failures: Status codes of the next answers to writes, last first.
        stores_before_failing: Whether a write is stored although its answer fails.
        is_old: Whether it knows nothing of requests.
    """

    def __init__(self) -> None:
        self.indexes: dict[str, int] = {}
        self.ids: set[str] = set()
        self.failures: list[int] = []
        self.stores_before_failing = False
        self.is_old = False
        self.bodies: list[bytes] = []

    async def insert(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        key = request.headers["Idempotency-Key"]
        if self.failures and not self.stores_before_failing:
            return web.json_response({"status": "error"}, status=self.failures.pop())
        if key.removeprefix("r-formularios-") in self.ids:
            return web.json_response({"status": "error"}, status=409)
        index = self.indexes.setdefault(key, len(self.indexes) + 1)
        if self.failures:
            return web.json_response({"status": "error"}, status=self.failures.pop())
        headers = {"X-Replicad-Index": str(index)}
        return web.json_response({"operation": "insert"}, status=201, headers=headers)

    async def look_up(self, request: web.Request) -> web.Response:
        if self.is_old:
            return web.Response(status=404, text="404: Not Found")
        index = self.indexes.get(request.match_info["key"])
        if index is None:
            return web.json_response({"state": "unknown"}, status=404)
        return web.json_response({"state": "committed", "index": index})


@pytest.fixture
def gateway() -> Iterator[tuple[FakeGateway, str]]:
    """It runs in a thread of its own: the command has an event loop of its own."""
    fake, loop = FakeGateway(), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/collections/formularios/records", fake.insert)
    app.router.add_get("/v1/requests/{key}", fake.look_up)
    runner = web.AppRunner(app)

    async def serve() -> str:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield fake, asyncio.run_coroutine_threadsafe(serve(), loop).result()
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file of lost+found: an epoch's opening entry and the forms a, b and c."""
    log = LogBuilder()
    folder = tmp_path / LOST_AND_FOUND
    folder.mkdir()
    path = kept_name(folder, 1, 2)
    writes = [
        write_of(key, b'{"id":"%b"}' % key.encode(), collection="formularios") for key in "abc"
    ]
    path.write_bytes(log.open_epoch(1) + b"".join(log.insert(write) for write in writes))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(replicad, ["lostfound", *map(str, arguments)], catch_exceptions=False)


def test_the_list_names_files_and_counts(kept: Path) -> None:
    result = run("list", "--data-dir", kept.parents[1])
    assert result.output == f"{kept}  first 1  epoch 2  entries 4  inserts 3  others 0\n"


def test_the_list_tells_what_became_of_each(kept: Path, gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    fake.indexes["r-formularios-b"] = 42
    lines = run("list", "--data-dir", kept.parents[1], "--url", url).output.splitlines()
    assert lines[1:] == [
        "  insert a  request r-formularios-a  in no log",
        "  insert b  request r-formularios-b  already there at 42",
        "  insert c  request r-formularios-c  in no log",
    ]
    assert not fake.bodies


def test_every_insert_is_sent_once_with_its_own_request_id(
    kept: Path, gateway: tuple[FakeGateway, str]
) -> None:
    fake, url = gateway
    fake.ids = {"c"}
    result = run("resubmit", kept, "--url", url)
    assert result.output.splitlines()[-1] == "2 committed, 1 duplicate"
    assert list(fake.indexes) == ["r-formularios-a", "r-formularios-b"]
    assert fake.bodies == [b'{"id":"a"}', b'{"id":"b"}', b'{"id":"c"}']


def test_what_rests_on_what_stood_before_is_never_sent(
    tmp_path: Path, gateway: tuple[FakeGateway, str]
) -> None:
    fake, url = gateway
    fake.indexes["d2"] = 42
    log, path = LogBuilder(), tmp_path / "00000000000000000001.jsonl"
    writes = [
        put_of("a", request="u", collection="formularios"),
        delete_of("a", request="d1", collection="formularios"),
        delete_of("b", request="d2", collection="formularios"),
        batch_of(
            Operation("b", b"{}"), Operation("c", None), request="b", collection="formularios"
        ),
        write_of("formularios", collection=DEFINITIONS),
    ]
    log.write(write_of("a", collection="formularios"))
    path.write_bytes(b"".join(map(log.write, writes)))
    left = "not submitted again: it rests on what stood before"
    assert run("resubmit", path, "--url", url).output.splitlines() == [
        f"{path}  first 2  epoch ?  entries 5  inserts 0  others 5",
        f"  update a  request u  {left}",
        f"  delete a  request d1  {left}",
        "  delete b  request d2  already there at 42",
        f"  batch 2  request b  {left}",
        f"  insert formularios  request r-_collections-formularios  {left}",
        f"4 {left}, 1 already there",
    ]
    assert not fake.bodies


def test_to_do_it_again_sends_nothing_twice(kept: Path, gateway: tuple[FakeGateway, str]) -> None:
    fake, url = gateway
    run("resubmit", "--all", "--data-dir", kept.parents[1], "--url", url)
    again = run("resubmit", "--all", "--data-dir", kept.parents[1], "--url", url)
    assert again.output.splitlines()[-1] == "3 already there"
    assert len(fake.bodies) == len(fake.indexes) == 3


def test_an_unknown_outcome_is_asked_again_under_the_same_id(
    kept: Path, gateway: tuple[FakeGateway, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = gateway
    monkeypatch.setattr(resubmission, "_PAUSE_S", 0.01)
    fake.failures, fake.stores_before_failing = [504, 503], True
    result = run("resubmit", kept, "--url", url)
    assert result.output.splitlines()[-1] == "3 committed"
    assert len(fake.indexes) == 3


def test_a_refusal_ends_it_with_what_was_refused(
    kept: Path, gateway: tuple[FakeGateway, str]
) -> None:
    fake, url = gateway
    fake.failures = [422]
    with pytest.raises(ResubmissionError, match="entry 2, a: the gateway answered 422"):
        run("resubmit", kept, "--url", url)
    assert not fake.indexes


def test_a_gateway_that_cannot_tell_sends_nothing(
    kept: Path, gateway: tuple[FakeGateway, str]
) -> None:
    fake, url = gateway
    fake.is_old = True
    with pytest.raises(ResubmissionError, match="404"):
        run("resubmit", kept, "--url", url)
    assert not fake.bodies


def test_it_must_be_said_what_to_send(kept: Path) -> None:
    for arguments in (["--all", kept], []):
        result = run("resubmit", *arguments, "--url", "http://127.0.0.1:1")
        assert result.exit_code == 2
    with pytest.raises(ConfigurationError, match="--data-dir"):
        run("resubmit", "--all", "--url", "http://127.0.0.1:1")
