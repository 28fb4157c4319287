"""The command line against gateways in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner

from replicad.cli import replicad
from replicad.cli.connection import exit_code_of
from replicad.errors import ReplicadError
from tests.support.fake_gateway import FakeGateway, FakeStore


class Terminal:
    """Runs commands as `main` does, against one gateway."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway
        self.store = gateway.store

    async def run(self, *words: str, code: int = 0, typed: str | None = None) -> str:
        """What a command prints to standard output; it must exit with this code."""
        environment = {
            "REPLICAD_URL": self.gateway.url,
            "REPLICAD_COLLECTION": "c",
            "COLUMNS": "200",
        }
        runner = CliRunner(env=environment)
        result = await asyncio.to_thread(runner.invoke, replicad, words, input=typed)
        if isinstance(result.exception, ReplicadError):
            assert exit_code_of(result.exception) == code
            return str(result.exception)
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.output


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    """A terminal, and a gateway that stores nothing yet."""
    async with FakeGateway.running(FakeStore()) as gateway:
        yield Terminal(gateway)
