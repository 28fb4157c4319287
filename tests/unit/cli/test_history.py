"""The command against a small server that answers as a gateway does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from replicad.cli.history import HistoryError, history

NEW = {
    "epoch": 3,
    "index": 9,
    "time": "2026-11-23T06:02:21.692Z",
    "leader": "n2",
    "incarnation": "i2",
    "reason": "n1 is gone",
    "previous_leader": "n1",
    "previous_epoch": 1,
    "isr_before": ["n1", "n2", "n3"],
    "isr_after": ["n2", "n3"],
    "leaderless_ms": 180,
    "truncated": {"n1": 4, "n2": 0, "n3": None},
}
OLD = dict.fromkeys(NEW) | {"epoch": 1, "time": "t", "leader": "n1", "truncated": {}}


class FakeGateway:
    """Answers with `status` and `body`."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps({"failovers": [NEW, OLD]})
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.status, text=self.body)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_get("/v1/cluster/history", fake.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def run(gateway: FakeGateway, *options: str, columns: int = 200) -> Result:
    environment = {"REPLICAD_URL": f"{gateway.url}/", "COLUMNS": str(columns)}
    return await asyncio.to_thread(CliRunner(env=environment).invoke, history, options)


async def test_shows_a_table(gateway: FakeGateway) -> None:
    result = await run(gateway)
    assert result.exit_code == 0, result.output
    new, old = (line for line in result.output.splitlines() if "│" in line)
    assert " ".join(new.replace("│", "").split()) == (
        "3 2026-11-23T06:02:21.692Z n2 n1 n1 is gone 180 ms n1,n2,n3 -> n2,n3 n1:4 n3:?"
    )
    assert " ".join(old.replace("│", "").split()) == "1 t n1 - ? - ? -> ? -"


async def test_json_for_scripts(gateway: FakeGateway) -> None:
    result = await run(gateway, "--json")
    assert [json.loads(line) for line in result.output.splitlines()] == [NEW, OLD]


@pytest.mark.parametrize(
    ("status", "body"), [(404, "{}"), (200, "<html>"), (200, "[]"), (200, "{}")]
)
async def test_what_is_no_history_is_an_error(gateway: FakeGateway, status: int, body: str) -> None:
    gateway.status, gateway.body = status, body
    assert isinstance((await run(gateway)).exception, HistoryError)


async def test_nobody_answers(gateway: FakeGateway) -> None:
    gateway.url = "http://127.0.0.1:1"
    assert isinstance((await run(gateway)).exception, HistoryError)


async def test_a_narrow_terminal_does_not_cut_the_time(gateway: FakeGateway) -> None:
    result = await run(gateway, columns=80)
    assert str(NEW["time"]) in result.output
