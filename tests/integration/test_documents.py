"""The examples of the documents, run in their order as a reader would."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.timeout(180), pytest.mark.processes]
DOCS = Path(__file__).parents[2] / "docs"
_EXAMPLE = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_URL = "http://127.0.0.1:8080"


@pytest.fixture
async def view(cluster: Cluster) -> AsyncIterator[None]:
    """All replicas are in sync, before and after."""
    async with Client.open(cluster.url) as client:
        await cluster.in_sync(client)
        yield
        await cluster.in_sync(client)


@pytest.mark.parametrize("page", ["client.md", "cli.md", "api.md"])
async def test_examples_run(cluster: Cluster, view: None, tmp_path: Path, page: str) -> None:
    examples = _EXAMPLE.findall((DOCS / page).read_text())
    assert examples
    for kind, text in examples:
        if kind == "python":
            command = (sys.executable, "-c", text.replace(_URL, cluster.url))
            await _run(cluster, tmp_path, *command)
    # One shell for a page: what an example sets holds for the next ones.
    script = "".join(text for kind, text in examples if kind == "sh").replace(_URL, cluster.url)
    await _run(cluster, tmp_path, "bash", "-euo", "pipefail", "-c", script)


async def _run(cluster: Cluster, directory: Path, *command: str) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATA_DIR": str(cluster.data_dir("n1")),
        "COLUMNS": "160",
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"{command[-1]}\n{output.decode()}"
