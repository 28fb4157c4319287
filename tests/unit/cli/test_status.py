from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Terminal


async def test_the_cluster_in_a_table_and_as_json(terminal: Terminal) -> None:
    table = await terminal.run("status")
    assert "epoch 3, leader n1, in sync 1 (at least 1)" in table
    assert "unreachable" in table
    assert json.loads(await terminal.run("status", "--json"))["leader"] == "n1"


async def test_no_gateway(terminal: Terminal) -> None:
    told = await terminal.run("status", "--url", "http://127.0.0.1:1", "--timeout", "0.2", code=5)
    assert "no gateway served" in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion(terminal: Terminal, shell: str) -> None:
    assert "_REPLICAD_COMPLETE" in await terminal.run("completion", shell)
