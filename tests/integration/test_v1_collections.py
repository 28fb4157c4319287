"""Collections through a whole cluster."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import pytest

from tests.support.client import Answer, Client
from tests.support.cluster import Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(180)
FORMS = "/v1/collections/formularios"
NUMBERS = {"type": "object", "properties": {"n": {"type": "integer"}}}


def example(name: str) -> dict[str, Any]:
    path = resources.files("replicad").joinpath("examples", f"{name}.schema.json")
    schema: dict[str, Any] = json.loads(path.read_bytes())
    return schema


def slug_of(answer: Answer) -> str:
    slug: str = answer.told["type"].removeprefix("urn:replicad:")
    return slug


@pytest.fixture
def path() -> str:
    """Of a collection that there is not yet."""
    return f"/v1/collections/coleccion-{uuid.uuid4().hex[:8]}"


async def test_the_life_of_a_collection(client: Client, cluster: Cluster, path: str) -> None:
    await cluster.in_sync(client)
    assert slug_of(await client.get(path)) == "no-such-collection"
    assert slug_of(await client.ask("PUT", f"{path}/records/a", {"id": "a"})) == (
        "no-such-collection"
    )
    created = await client.ask("PUT", path, {"schema": NUMBERS, "key": "dni"})
    assert (created.status, created.headers["Location"]) == (201, path)
    assert created.told["replicas"] == cluster.names
    listed = (await client.get("/v1/collections")).told["items"]
    assert {path.rpartition("/")[2], "formularios"} <= {each["name"] for each in listed}

    assert slug_of(await client.ask("POST", f"{path}/records", {"id": "a"})) == "invalid-record"
    stored = await client.ask("POST", f"{path}/records", {"dni": "a", "n": "1"})
    assert (stored.status, stored.told["errors"][0]["path"]) == (422, "/n")
    stored = await client.ask("POST", f"{path}/records", {"dni": "a", "n": 1})
    assert (stored.status, stored.headers["Location"]) == (201, f"{path}/records/a")

    assert slug_of(await client.ask("DELETE", path)) == "collection-not-empty"
    assert slug_of(await client.ask("PUT", path, {"key": "id"})) == "key-field-fixed"
    await client.ask("DELETE", f"{path}/records/a")
    stale = {"If-Match": '"1"'}
    assert (await client.ask("PUT", path, {}, stale)).status == 412
    current = {"If-Match": created.headers["ETag"]}
    assert (await client.ask("DELETE", path, None, current)).status == 200
    assert slug_of(await client.get(path)) == "no-such-collection"
    assert slug_of(await client.ask("PUT", f"{path}/records/a", {"dni": "a"})) == (
        "no-such-collection"
    )


async def test_a_schema_that_records_break(client: Client, cluster: Cluster, path: str) -> None:
    await cluster.in_sync(client)
    await client.ask("PUT", path, {})
    operations = [
        {"id": f"r{n}", "value": {"id": f"r{n}", "n": n if n % 5 else "x"}} for n in range(1000)
    ]
    assert (
        await client.ask("POST", f"{path}/records:batch", {"operations": operations})
    ).status == 200
    refused = await client.ask("PUT", path, {"schema": NUMBERS})
    assert (refused.status, slug_of(refused)) == (409, "records-would-not-pass")
    assert (refused.told["count"], len(refused.told["records"])) == (200, 100)
    assert {each["errors"][0]["path"] for each in refused.told["records"]} == {"/n"}
    assert (await client.get(path)).told["schema"] is None

    forced = await client.ask("PUT", f"{path}?force=true", {"schema": NUMBERS})
    assert (forced.status, forced.told["failing"]["count"]) == (200, 200)
    # They stay as they are, until they are written again.
    assert (await client.get(f"{path}/records/r0")).told == {"id": "r0", "n": "x"}
    assert slug_of(await client.ask("PATCH", f"{path}/records/r0", {"m": 1})) == "invalid-record"
    assert (await client.ask("PATCH", f"{path}/records/r0", {"n": 0})).status == 200


@pytest.mark.usefixtures("restored")
async def test_definitions_outlive_their_leader(
    client: Client, cluster: Cluster, path: str
) -> None:
    before = await cluster.in_sync(client)
    key = {"Idempotency-Key": f"k-{uuid.uuid4().hex}"}
    first = await client.ask("PUT", path, {"schema": NUMBERS}, key)

    async def is_replaced() -> bool:
        view = await client.view()
        return view["epoch"] > before["epoch"] and view["leader"] not in (None, before["leader"])

    await cluster.stop(before["leader"])
    await until(is_replaced, 10.0)
    again = await client.ask("PUT", path, {"schema": NUMBERS}, key)
    assert (again.status, again.told["version"]) == (201, first.told["version"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await client.ask("PUT", f"{path}/records/a", {"id": "a", "n": "x"})).status == 422
    assert (await client.ask("PUT", f"{path}/records/a", {"id": "a", "n": 1})).status == 201


@pytest.fixture
async def forms_as_before(client: Client, cluster: Cluster) -> AsyncIterator[None]:
    await cluster.in_sync(client)
    yield
    told = {"schema": example("formularios")}
    assert (await client.ask("PUT", f"{FORMS}?force=true", told)).status == 200


@pytest.mark.usefixtures("forms_as_before")
async def test_forms_may_be_checked_more_strictly(client: Client, cluster: Cluster) -> None:
    loose = await client.store(f"suelto-{uuid.uuid4().hex[:8]}", nombres="Ana", edad="muchos")
    assert loose.status == 200
    census = {"schema": example("censo")}
    refused = await client.ask("PUT", FORMS, census)
    assert (refused.status, slug_of(refused)) == (409, "records-would-not-pass")
    assert (await client.ask("PUT", f"{FORMS}?force=true", census)).status in (200, 201)

    key = f"censo-{uuid.uuid4().hex[:8]}"
    bad = await client.ask("POST", "/API/IngresarFormulario", {"id": key, "nombres": "Ana"})
    assert bad.status == 400
    assert list(bad.told) == ["status", "message"]
    assert bad.told["message"].startswith("El registro no es como su colección lo pide.")
    good = {
        "id": key,
        "nombres": "Ana",
        "apellidos": "Ruiz",
        "genero": "Femenino",
        "fecha_nacimiento": "1990-05-01",
    }
    assert (await client.ask("POST", "/API/IngresarFormulario", good)).status == 200
    assert slug_of(await client.ask("DELETE", FORMS)) == "collection-built-in"
