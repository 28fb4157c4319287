from __future__ import annotations

import json

from tests.unit.cli.conftest import Terminal

DEFINITION = {"schema": None, "indexes": ["n"], "search": [], "key": "id"}


async def test_a_collection_is_defined_shown_and_deleted(terminal: Terminal) -> None:
    defined = await terminal.run("collections", "define", "things", typed=json.dumps(DEFINITION))
    assert defined == "things is defined\n"
    assert json.loads(await terminal.run("collections", "show", "things")) == DEFINITION
    assert "things" in await terminal.run("collections", "list")
    (line,) = (await terminal.run("collections", "list", "--json")).splitlines()
    assert json.loads(line)["indexes"] == ["n"]
    await terminal.run("collections", "delete", "things")
    await terminal.run("collections", "show", "things", code=3)


async def test_records_that_would_not_pass_are_a_conflict(terminal: Terminal) -> None:
    define = ("collections", "define", "strict")
    await terminal.run(*define, typed=json.dumps(DEFINITION), code=4)
    await terminal.run(*define, "--force", typed=json.dumps(DEFINITION))


async def test_a_definition_is_json(terminal: Terminal) -> None:
    await terminal.run("collections", "define", "things", typed="{", code=2)
