from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.node_http import Client, client_of
from tests.support.nodes import Driven, driven


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Driven]:
    """The only replica of a cluster; it leads."""
    async with driven(tmp_path) as running:
        await running.leads()
        yield running


@pytest.fixture
async def client(one: Driven, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of its HTTP interface."""
    async with client_of(one, tmp_path) as opened:
        yield opened
