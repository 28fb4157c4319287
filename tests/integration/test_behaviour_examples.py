"""The example forms: 12,136 real people, loaded by many clients at once, on every replica."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.client import STORED, Client
from tests.support.cluster import Cluster, assert_all_in
from tests.support.logs import (
    assert_chained,
    documented_checks,
    entries,
    inserted_keys,
    log_bytes,
    run_check,
)

pytestmark = pytest.mark.timeout(180)
COUNT = 12_136
CLIENTS = 128
PAGE = Path(__file__).parents[2] / "docs" / "log-format.md"


@pytest.fixture(scope="module")
def forms() -> dict[str, bytes]:
    """The example forms' bytes by id."""
    path = files("replicad").joinpath("examples/legisladores.ndjson")
    lines = path.read_bytes().splitlines()
    by_id = {json.loads(line)["id"]: line for line in lines}
    assert len(lines) == len(by_id) == COUNT
    return by_id


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def loaded(cluster: Cluster, forms: dict[str, bytes]) -> None:
    """Stores all of them, each once."""
    waiting = iter(forms.values())

    async def work(client: Client) -> None:
        for line in waiting:
            answer = await client.post(line)
            assert (answer.status, answer.body) == (200, STORED), answer

    async with Client.open(cluster.url) as client, asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(work(client))


async def test_every_example_form_is_on_every_replica(
    client: Client, cluster: Cluster, forms: dict[str, bytes]
) -> None:
    view = await cluster.in_sync(client)

    logs = {sha256(log_bytes(cluster.data_dir(name))).hexdigest() for name in cluster.names}
    assert len(logs) == 1
    for name in cluster.names:
        assert_chained(cluster.data_dir(name))
        found = entries(cluster.data_dir(name))
        operations = Counter(entry["operation"] for entry in found)
        assert operations.keys() == {"insert", "epoch"}
        assert operations["epoch"] == len({entry["epoch"] for entry in found})
        assert len(found) == view["replicas"][0]["last_index"]
        keys = inserted_keys(cluster.data_dir(name))
        assert len(keys) == len(set(keys)) == operations["insert"]
        assert_all_in(forms, keys)

    answer = await client.get("/API/ObtenerTodosLosFormularios")
    all_ids = [each["id"] for each in json.loads(answer.body)]
    assert all_ids == inserted_keys(cluster.data_dir("n1"))
    # The forms' order among each other is the clients' race; their bytes are not.
    for line in forms.values():
        assert line in answer.body


async def test_each_comes_back_byte_for_byte(client: Client, forms: dict[str, bytes]) -> None:
    waiting = iter(forms.items())

    async def work() -> None:
        for key, line in waiting:
            assert await client.fetch(key) == line

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(work())


async def test_forms_by_genero(client: Client, forms: dict[str, bytes]) -> None:
    for asked, genero, count in (("femENINO", "Femenino", 270), ("MASCULINO", "Masculino", 11_866)):
        answer = await client.get(f"/API/ObtenerGeneros/{asked}")
        found = {each["id"] for each in json.loads(answer.body) if each["genero"] == genero}
        assert len(found & forms.keys()) == count


@pytest.mark.parametrize("check", documented_checks(PAGE))
async def test_a_documented_check_of_a_log(cluster: Cluster, tmp_path: Path, check: str) -> None:
    """On a copy of a log's beginning, since a process for each line takes its time."""
    source = cluster.data_dir("n1")
    shutil.copy(source / "replica.json", tmp_path)
    segment = tmp_path / "log" / f"{1:020}.jsonl"
    segment.parent.mkdir()
    lines = log_bytes(source).splitlines(keepends=True)[:200]
    segment.write_bytes(b"".join(lines))
    good = run_check(check, tmp_path)
    assert (good.returncode, good.stderr) == (0, ""), good

    at = 150
    changed = lines[at].replace(b'"time":"2', b'"time":"3')
    assert changed != lines[at]
    segment.write_bytes(b"".join([*lines[:at], changed, *lines[at + 1 :]]))
    assert run_check(check, tmp_path).returncode != 0
