from __future__ import annotations

import json
from pathlib import Path

from tests.unit.cli.conftest import Terminal


async def test_a_record_is_put_shown_and_deleted(terminal: Terminal) -> None:
    receipt = json.loads(await terminal.run("put", "a", "--json", typed='{"id":"a","n":1.0}'))
    assert (receipt["operation"], receipt["index"], receipt["digest"]) == ("insert", 1, "d1")
    assert await terminal.run("get", "a", "--json") == '{"id":"a","n":1.0}\n'
    shown = await terminal.run("get", "a")
    assert "1.0" in shown
    assert '"1"' in shown
    assert "delete" in await terminal.run("delete", "a")
    assert "no record a" in await terminal.run("get", "a", code=3)


async def test_a_record_comes_from_a_file(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"id":"a"}')
    assert "insert" in await terminal.run("put", "a", str(file))


async def test_conditions_and_their_exit_code(terminal: Terminal) -> None:
    await terminal.run("put", "a", typed='{"id":"a"}')
    assert "update" in await terminal.run("put", "a", "--if-match", '"1"', typed='{"id":"a"}')
    await terminal.run("put", "a", "--if-match", '"1"', typed='{"id":"a"}', code=4)
    await terminal.run("put", "a", "--new", "--if-match", '"1"', typed="{}", code=2)


async def test_a_command_with_a_key_happens_once(terminal: Terminal) -> None:
    for _ in range(2):
        await terminal.run("put", "a", "--idempotency-key", "k", typed='{"id":"a"}')
    assert len(terminal.store.changes) == 1


async def test_nobody_and_unknown_have_codes_of_their_own(terminal: Terminal) -> None:
    terminal.gateway.faults.extend([503] * 100)
    told = await terminal.run("delete", "a", "--timeout", "0.3", code=5)
    assert "503" in told
    terminal.gateway.faults.clear()
    terminal.gateway.faults.extend([504] * 100)
    told = await terminal.run("put", "a", "--timeout", "0.3", typed='{"id":"a"}', code=6)
    assert "not known" in told


async def test_bad_usage(terminal: Terminal) -> None:
    await terminal.run("get", "a", "--url", "localhost:80", code=2)
    await terminal.run("patch", "a", "[1]", code=2)
    await terminal.run("patch", "a", "{", code=2)
    await terminal.run("query", "genero", code=2)
