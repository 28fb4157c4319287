from __future__ import annotations

import json

from tests.unit.cli.conftest import Terminal


async def _fill(terminal: Terminal) -> None:
    for number in range(5):
        await terminal.run("put", f"k{number}", typed=json.dumps({"id": f"k{number}", "n": number}))


async def test_one_page_or_all(terminal: Terminal) -> None:
    await _fill(terminal)
    page = await terminal.run("query", "--limit", "2", "--json")
    assert [json.loads(line)["id"] for line in page.splitlines()] == ["k0", "k1"]
    everything = await terminal.run("query", "--limit", "2", "--all", "--json")
    assert len(everything.splitlines()) == 5


async def test_a_table_for_people(terminal: Terminal) -> None:
    await _fill(terminal)
    table = await terminal.run("query", "--limit", "2", "n[gte]=0")
    assert "k1" in table
    assert "there are more" in table


async def test_changes(terminal: Terminal) -> None:
    await _fill(terminal)
    lines = (await terminal.run("changes", "--since", "2", "--json")).splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["k2", "k3", "k4"]
    assert "insert  k4" in await terminal.run("changes")
